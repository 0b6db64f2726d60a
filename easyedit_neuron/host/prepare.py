"""Request dictionaries from an editor's arguments, as EasyEdit makes them; the arguments are never
changed."""

import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import RequestError
from ..utils.shown import shown
from ..utils.spelling import difference, tidied, tidied_all

Texts = str | Sequence[str]


def prepare_requests(
    prompts: Texts,
    target_new: Texts,
    ground_truth: Texts | None = None,
    target_neg: Texts | None = None,
    rephrase_prompts: Texts | None = None,
    locality_inputs: dict | None = None,
    portability_inputs: dict | None = None,
    subject: Texts | None = None,
    loc_prompts: Texts | None = None,
) -> list[dict]:
    """One dictionary per prompt with EasyEdit's keys: ``prompt``, ``target_new``, ``ground_truth`` (None when
    not given), ``portability``, ``locality``, and the other fields where given.

    ``locality_inputs`` and ``portability_inputs``: ``{kind: {"prompt": [...], "ground_truth": [...]}}`` with
    one entry (a text, a list of texts, or None for none) per prompt; single texts stand for a list of one.
    Fewer ``loc_prompts`` than prompts are repeated and shuffled with Python's global generator.
    ``RequestError`` names the argument, and the prompt where a single one is wrong.
    """
    prompts = _as_list(prompts, "prompts")
    if not prompts:
        raise RequestError("prompts: none given; give at least one prompt with its target_new")
    count = len(prompts)
    targets = _as_list(target_new, "target_new", count)
    if targets is None:
        raise RequestError("target_new: not given; give one target per prompt")
    truths = _as_list(ground_truth, "ground_truth", count) or [None] * count
    requests = [
        {"prompt": prompt, "target_new": target, "ground_truth": truth, "portability": {}, "locality": {}}
        for prompt, target, truth in zip(prompts, targets, truths)
    ]
    subjects = _as_list(subject, "subject", count)
    fields = {
        "target_neg": _as_list(target_neg, "target_neg", count),
        "subject": subjects,
        "loc_prompt": _repeated(loc_prompts, count),
        "rephrase_prompt": _as_list(rephrase_prompts, "rephrase_prompts", count),
    }
    for name, values in fields.items():
        for request, value in zip(requests, values or ()):
            request[name] = value
    for section, inputs in (("locality", locality_inputs), ("portability", portability_inputs)):
        if inputs is not None and not isinstance(inputs, dict):
            raise RequestError(f"{section}_inputs must be a dictionary of kinds, not {shown(inputs)}")
        for kind, texts in (inputs or {}).items():
            for request, pair in zip(requests, _pairs(texts, f"{section}_inputs[{kind!r}]", count)):
                if pair["prompt"] is not None:
                    request[section][kind] = pair
    requests = tidied_all(requests)
    for number, request in enumerate(requests):
        prompt, name = request["prompt"], request.get("subject", "")
        if not isinstance(prompt, str):
            raise RequestError(f"prompts: entry {number} must be a text, not {shown(prompt)}")
        if not isinstance(name, str) or name not in prompt:
            shown_apart = difference(prompt, name[:1000]) if isinstance(name, str) else ""
            remedy = f"write it as it stands there{shown_apart}"
            raise RequestError(f"subject: {shown(name)} does not occur in the prompt {prompt!r}; {remedy}")
    return requests


_TEXTS = {"prompts": "prompt", "rephrase_prompts": "rephrase_prompt"}
_TEXTS |= {name: name for name in ("target_new", "ground_truth", "target_neg", "subject")}


def tidy_arguments(arguments: dict[str, Any]) -> None:
    """Make the texts among the arguments of EasyEdit's calls ``tidied``, in place; wrong ones stay, for the
    error.

    Args:
        arguments: names to values, with further ones under ``kwargs``.
    """
    if isinstance(arguments.get("requests"), list):
        arguments["requests"] = tidied_all(arguments["requests"])
    further = arguments.get("kwargs", {})
    places = {name: part for part in (arguments, further) for name in part}
    for name, section in (("locality_inputs", "locality"), ("portability_inputs", "portability")):
        if isinstance(arguments.get(name), dict):
            arguments[name] = tidied({section: arguments[name]})[section]
    given = {name: places[name][name] for name in _TEXTS if places.get(name, {}).get(name) is not None}
    columns = {name: [value] if isinstance(value, str) else value for name, value in given.items()}
    if not all(isinstance(column, list) for column in columns.values()):
        return
    if len({len(column) for column in columns.values()}) != 1:
        return
    rows = [dict(zip((_TEXTS[name] for name in columns), row)) for row in zip(*columns.values())]
    rows = tidied_all(rows)
    for name, value in given.items():
        texts = [row[_TEXTS[name]] for row in rows]
        places[name][name] = texts[0] if isinstance(value, str) else texts


def _as_list(value: Texts | None, name: str, count: int | None = None) -> list | None:
    """A text becomes a list of one; a list must have ``count`` entries."""
    if value is None:
        return None
    if isinstance(value, (dict, bytes)) or not isinstance(value, (str, Iterable)):
        raise RequestError(f"{name} must be a text or a list of texts, not {shown(value)}")
    values = [value] if isinstance(value, str) else list(value)
    if count is not None and len(values) != count:
        raise RequestError(f"{name}: {len(values)} given for {count} prompts; give one per prompt")
    return values


def _repeated(loc_prompts: Texts | None, count: int) -> list | None:
    values = _as_list(loc_prompts, "loc_prompts")
    if values is not None and 0 < len(values) < count:
        values = (values * math.ceil(count / len(values)))[:count]
        random.shuffle(values)
    return _as_list(values, "loc_prompts", count)


def _pairs(inputs, name: str, count: int) -> list[dict]:
    """{"prompt", "ground_truth"} of every request for one kind of locality or portability."""
    if not isinstance(inputs, dict) or "prompt" not in inputs or "ground_truth" not in inputs:
        raise RequestError(f"{name} must be a dictionary with 'prompt' and 'ground_truth'")
    lists = [_as_list(inputs[field], f"{name}[{field!r}]", count) for field in ("prompt", "ground_truth")]
    if None in lists:
        raise RequestError(f"{name}: 'prompt' and 'ground_truth' must be texts or lists, not None")
    return [{"prompt": prompt, "ground_truth": truth} for prompt, truth in zip(*lists)]
