"""From a record of each shape to a request, as EasyEdit's example scripts pass it to ``edit``.

Rules that the files themselves do not tell:

- an answer that is a list of aliases, or a list of such lists, stands for its first string;
- a locality or portability probe without an answer (empty list, blank string) is left out, and a kind without
  probes too;
- KnowEdit's portability kind ``Reasoning`` is called ``reasoning``, and the probes of the other shapes
  ``neighborhood`` and ``one_hop``: the names under which EasyEdit's examples report them;
- KnowEdit and zsRE rephrasings are used when the record has one (EasyEdit's KnowEdit example ignores them);
- of a record's paraphrases the first is the rephrasing (``load`` offers all of them), and the neighbourhood
  prompts of a ROME/MEMIT record all have the old object as their answer;
- the subject must stand in the prompt, letter by letter: EasyEdit refuses such requests as well.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..utils.spelling import difference, tidied
from .record import Record

_KNOWEDIT_KINDS = {"Reasoning": "reasoning"}


def detect_shape(path: Path, raw: Any) -> str:
    """Name of the shape that the keys of a record belong to."""
    keys = set(Record(path, 0, raw).raw)
    if "requested_rewrite" in keys:
        return "counterfact_nested"
    if {"src", "alt"} & keys:
        return "zsre"
    if {"locality_prompt", "locality_ground_truth"} & keys:
        return "counterfact"
    if {"locality", "portability", "concept"} & keys or {"prompt", "target_new"} <= keys:
        return "knowedit"
    raise DataError(
        f"{path}: record 0: unknown shape, the fields are {', '.join(sorted(map(str, keys))) or 'none'}; "
        f"known shapes: {', '.join(SHAPES)}"
    )


def from_counterfact(record: Record) -> dict[str, Any]:
    """EasyEdit's flat CounterFact."""
    request = _request(record, "prompt", "target_new", "ground_truth", "rephrase_prompt")
    if record.has("locality_prompt"):
        request["locality"]["neighborhood"] = _probe(record, "locality_prompt", "locality_ground_truth")
    if paraphrases := _paraphrases(record):
        request["paraphrase_prompts"] = paraphrases
    return request


def from_zsre(record: Record) -> dict[str, Any]:
    """MEND's zsRE, with or without the portability question."""
    request = _request(record, "src", "alt", "answers", "rephrase")
    if record.has("loc"):
        request["locality"]["neighborhood"] = _probe(record, "loc", "loc_ans")
    return _with_one_hop(request, record)


def from_counterfact_nested(record: Record) -> dict[str, Any]:
    """The record of ROME and MEMIT (``requested_rewrite``), with or without the portability question."""
    rewrite = record.child("requested_rewrite")
    subject, template = rewrite.string("subject"), rewrite.string("prompt")
    if template.count("{}") != 1:
        raise rewrite.error("prompt", f"must hold '{{}}' once, for the subject: {template!r}")
    truth = rewrite.child("target_true").string("str")
    request: dict[str, Any] = {"prompt": template.replace("{}", subject), "subject": subject}
    request |= {"target_new": rewrite.child("target_new").string("str"), "ground_truth": truth}
    request |= {"locality": {}, "portability": {}}
    if paraphrases := _paraphrases(record):
        request |= {"rephrase_prompt": paraphrases[0], "paraphrase_prompts": paraphrases}
    if record.has("neighborhood_prompts") and (neighbors := record.strings("neighborhood_prompts")):
        probes = {"prompt": list(neighbors), "ground_truth": [truth] * len(neighbors)}
        request["locality"]["neighborhood"] = probes
    return _with_one_hop(request, record)


def from_knowedit(record: Record) -> dict[str, Any]:
    """KnowEdit (ZsRE-test-all, wiki_counterfact, wiki_recent; WikiBio's field names too), real-world,
    tiny-world."""
    prompt, target = record.first_name("prompt", "text"), record.first_name("target_new", "labels")
    subject = record.first_name("subject", "concept")
    request = _request(record, prompt, target, "ground_truth", "rephrase_prompt", subject)
    if paraphrases := _paraphrases(record):
        request["paraphrase_prompts"] = paraphrases
    for section in ("locality", "portability"):
        kinds = record.child(section) if record.has(section) else None
        for kind in kinds.raw if kinds else ():
            pairs = []
            for position, probe in enumerate(kinds.children(kind)):
                prompt, answer = probe.first("prompt"), probe.first("ground_truth")
                if prompt is None:
                    raise kinds.error(f"{kind}[{position}].prompt", "is missing or empty")
                if answer is not None:
                    pairs.append((prompt, answer))
            if pairs:
                prompts, answers = map(list, zip(*pairs))
                probes = {"prompt": prompts, "ground_truth": answers}
                request[section][_KNOWEDIT_KINDS.get(kind, kind)] = probes
    return request


SHAPES: dict[str, Callable[[Record], dict[str, Any]]] = {
    "counterfact": from_counterfact,
    "counterfact_nested": from_counterfact_nested,
    "zsre": from_zsre,
    "knowedit": from_knowedit,
}
"""Converters by name of the shape."""


def _request(
    record: Record, prompt: str, target: str, truth: str, rephrase: str, subject: str = "subject"
) -> dict[str, Any]:
    """A request without probes from the fields of those names."""
    request: dict[str, Any] = {"prompt": record.string(prompt), "subject": record.string(subject)}
    request["target_new"] = record.first(target) or record.string(target)
    request |= {"ground_truth": record.first(truth), "locality": {}, "portability": {}}
    name, text = (tidied(request)[field] for field in ("subject", "prompt"))
    if name not in text:
        problem = f"{name!r} does not occur in the prompt {text!r}{difference(text, name)}"
        raise record.error(subject, problem)
    rephrased = record.first(rephrase)
    if rephrased is not None:
        request["rephrase_prompt"] = rephrased
    return request


def _paraphrases(record: Record) -> list[str]:
    return record.strings("paraphrase_prompts") if record.has("paraphrase_prompts") else []


def _probe(record: Record, prompt: str, answer: str) -> dict[str, str]:
    return {"prompt": record.string(prompt), "ground_truth": record.first(answer) or record.string(answer)}


def _with_one_hop(request: dict[str, Any], record: Record) -> dict[str, Any]:
    if record.has("portability"):
        request["portability"]["one_hop"] = _probe(record.child("portability"), "New Question", "New Answer")
    return request
