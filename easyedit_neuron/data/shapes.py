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
from .benchmarks import from_cknowedit, from_halluedit, from_mquake, from_qaedit, from_ultraedit, refused
from .parts import neighborhood_of, paraphrases_of, probe_of, request_of, templated
from .record import Record

_KNOWEDIT_KINDS = {"Reasoning": "reasoning"}


def detect_shape(path: Path, raw: Any) -> str:
    """Name of the shape that the keys of a record belong to."""
    record = Record(path, 0, raw)
    keys = set(record.raw)
    if "requested_rewrite" in keys:
        return "mquake" if isinstance(raw["requested_rewrite"], list) else "counterfact_nested"
    if "ans" in keys and {"update", "prompt", "src"} & keys:
        return "ultraedit"
    if {"src", "alt"} & keys:
        return "zsre"
    if {"relation", "object"} <= keys:
        return "halluedit"
    if "target_old" in keys:
        return "cknowedit"
    if {"prompt", "target", "locality"} <= keys:
        return "qaedit"
    if {"locality_prompt", "locality_ground_truth"} & keys:
        return "counterfact"
    if {"locality", "portability", "concept"} & keys or {"prompt", "target_new"} <= keys:
        return "knowedit"
    if reason := refused(keys):
        raise DataError(f"{path}: {reason}")
    raise DataError(
        f"{path}: record 0: unknown shape, the fields are {', '.join(sorted(map(str, keys))) or 'none'}; "
        f"known shapes: {', '.join(SHAPES)}"
    )


def from_counterfact(record: Record) -> dict[str, Any]:
    """EasyEdit's flat CounterFact."""
    request = request_of(record, "prompt", "target_new", "ground_truth", "rephrase_prompt")
    if record.has("locality_prompt"):
        request["locality"]["neighborhood"] = probe_of(record, "locality_prompt", "locality_ground_truth")
    if paraphrases := paraphrases_of(record):
        request["paraphrase_prompts"] = paraphrases
    return request


def from_zsre(record: Record) -> dict[str, Any]:
    """MEND's zsRE, with or without the portability question."""
    request = request_of(record, "src", "alt", "answers", "rephrase")
    if record.has("loc"):
        request["locality"]["neighborhood"] = probe_of(record, "loc", "loc_ans")
    return _with_one_hop(request, record)


def from_counterfact_nested(record: Record) -> dict[str, Any]:
    """The record of ROME and MEMIT (``requested_rewrite``), with or without the portability question; AKEW's
    CounterFact and WikiUpdate."""
    rewrite = record.child("requested_rewrite")
    request = templated(rewrite)
    if "answer_new" in rewrite.raw:
        target, truth = rewrite.string("answer_new"), rewrite.first("answer_true")
    else:
        target = rewrite.child("target_new").string("str")
        truth = rewrite.child("target_true").string("str")
    request |= {"target_new": target, "ground_truth": truth, "locality": {}, "portability": {}}
    paraphrases = paraphrases_of(record)
    if paraphrases:
        request |= {"rephrase_prompt": paraphrases[0], "paraphrase_prompts": paraphrases}
    elif question := rewrite.first("question"):
        request["rephrase_prompt"] = question
    request["locality"] |= neighborhood_of(record)
    if record.has("neighborhood_prompts") and (neighbors := record.strings("neighborhood_prompts")):
        probes = {"prompt": list(neighbors), "ground_truth": [truth] * len(neighbors)}
        request["locality"]["neighborhood"] = probes
    return _with_one_hop(request, record)


def from_knowedit(record: Record) -> dict[str, Any]:
    """KnowEdit (ZsRE-test-all, wiki_counterfact, wiki_recent; WikiBio's field names too), real-world,
    tiny-world."""
    prompt, target = record.first_name("prompt", "text"), record.first_name("target_new", "labels")
    subject = record.first_name("subject", "concept")
    request = request_of(record, prompt, target, "ground_truth", "rephrase_prompt", subject)
    if paraphrases := paraphrases_of(record):
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


SHAPES: dict[str, Callable[[Record], dict[str, Any] | list[dict[str, Any]]]] = {
    "counterfact": from_counterfact,
    "counterfact_nested": from_counterfact_nested,
    "zsre": from_zsre,
    "knowedit": from_knowedit,
    "mquake": from_mquake,  # and those below: benchmarks.py
    "ultraedit": from_ultraedit,
    "halluedit": from_halluedit,
    "qaedit": from_qaedit,
    "cknowedit": from_cknowedit,
}
"""Converters by name of the shape; where a record holds several edits, the converter gives a list."""


def _with_one_hop(request: dict[str, Any], record: Record) -> dict[str, Any]:
    if record.has("portability"):
        request["portability"]["one_hop"] = probe_of(
            record.child("portability"), "New Question", "New Answer"
        )
    return request
