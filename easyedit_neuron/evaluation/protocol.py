"""The final protocol: every request measured on the model as it is now, and means over requests.

EasyEdit measures each request right after its own edit; a fact overwritten by a later edit still counts
there. :func:`evaluate_all` at the end of a run shows what is left.
"""

import math
from collections.abc import Iterable, Sequence

from ..errors import RequestError
from .batched import exact_match_by_generation
from .metric_meta import locality_meta
from .quality import check_evaluation_type, equal_share, fill, predict_sections, sections

#: {locality kind + "_output": token ids of every prompt} of one request on the untouched model
LocalityOutputs = dict[str, list[list[int]]]


def _raw(request) -> dict:
    """The user's dictionary, of a request or of a validated ``EditRequest``."""
    return request if isinstance(request, dict) else request.raw


def evaluate_all(
    model,
    tok,
    requests: Sequence,
    reference: Sequence[LocalityOutputs] | None = None,
    batch_size: int = 64,
    hparams=None,
    exact_match: bool = False,
) -> list[dict]:
    """EasyEdit-shaped "post" metrics of every request on the present model, in shared batches.

    Args:
        model, tok: the model and its tokenizer; neither is changed.
        requests: EasyEdit's request dictionaries, or ``EditRequest`` objects.
        reference: :func:`locality_reference` of the same requests, taken before the first edit; with it
            ``locality`` also holds ``<kind>_acc``.
        batch_size: prompts per forward pass.
        hparams: only ``use_chat_template`` and ``evaluation_type`` are read.
        exact_match: also greedy generation: ``rewrite_generation_exact_match`` and
            ``rephrase_generation_exact_match``.

    Returns:
        One dictionary per request, as :func:`.quality.compute_edit_quality` returns it.

    Raises:
        RequestError: names the request's index and the field that is wrong.
    """
    check_evaluation_type(hparams)
    requests = [_raw(request) for request in requests]
    if reference is not None and len(reference) != len(requests):
        raise RequestError(f"reference is of {len(reference)} requests but {len(requests)} are evaluated")
    found = _all_sections(requests)
    results: list[dict] = [{"locality": {}, "portability": {}} for _ in requests]
    entries = [entry for _, entry in found]
    for (i, (path, _)), predictions in zip(found, predict_sections(model, tok, entries, hparams, batch_size)):
        fill(results[i], path, predictions)
    if exact_match:
        _add_exact_match(model, tok, found, results, batch_size)
    if reference is not None:
        for result, outputs in zip(results, reference):
            finalize_locality({"locality": outputs}, result)
    return results


def locality_reference(model, tok, requests: Sequence, batch_size: int = 64) -> list[LocalityOutputs]:
    """The untouched model's answers to every locality prompt: take them once, before the first edit."""
    found = _all_sections([_raw(request) for request in requests], only="locality")
    reference: list[LocalityOutputs] = [{} for _ in requests]
    for (i, (path, _)), predictions in zip(
        found, predict_sections(model, tok, [e for _, e in found], None, batch_size)
    ):
        reference[i][f"{path[1]}_output"] = [list(p.predicted) for p in predictions]
    return reference


def finalize_locality(pre: dict, post: dict) -> None:
    """Add ``<kind>_acc`` and its ``metric_meta`` to ``post["locality"]``: equality with the outputs in
    ``pre["locality"]``.

    Raises:
        RequestError: ``pre`` lacks a kind that ``post`` has, or answers other prompts.
    """
    for name in [name for name in post["locality"] if name.endswith("_output")]:
        kind = name[: -len("_output")]
        if name not in pre["locality"]:
            raise RequestError(f"locality.{kind}: no outputs from before the edit to compare with")
        post["locality"][f"{kind}_acc"] = equal_share(pre["locality"][name], post["locality"][name], kind)
        post.setdefault("metric_meta", {})[f"locality.{kind}"] = locality_meta(kind)


def summarize(metrics: Iterable[dict], phase: str = "post") -> dict:
    """Means over requests, under EasyEdit's names.

    Args:
        metrics: what an editor returns (dictionaries with ``pre``, ``post``, perhaps ``final``), or bare
            "post" dictionaries.
        phase: which of them to average.

    Returns:
        ``{"rewrite_acc", "rephrase_acc", ..., "locality": {"<kind>_acc"}, "portability": {"<kind>_acc"},
        "fluency"}``, each a mean over the requests that have it of the request's own mean; what no request
        has is left out. NaN values do not count.
    """
    flat: dict[str, list[float]] = {}
    nested: dict[str, dict[str, list[float]]] = {"locality": {}, "portability": {}}
    for entry in metrics:
        entry = entry[phase] if phase in entry else entry
        for name, value in entry.items():
            if name in nested:
                for key, values in value.items():
                    if key.endswith("_acc"):
                        _collect(nested[name], key, values)
            elif name == "fluency":
                _collect(flat, name, value["ngram_entropy"])
            elif name.endswith(("_acc", "_ppl", "_exact_match")):
                _collect(flat, name, value)
    summary: dict = {name: _mean(values) for name, values in flat.items()}
    for name, kinds in nested.items():
        if kinds:
            summary[name] = {key: _mean(values) for key, values in sorted(kinds.items())}
    return summary


def _all_sections(requests: Sequence[dict], only: str | None = None) -> list:
    found = []
    for i, request in enumerate(requests):
        try:
            found += [(i, entry) for entry in sections(request) if only in (None, entry[0][0])]
        except RequestError as error:
            raise RequestError(f"request {i}: {error}") from None
    return found


def _add_exact_match(model, tok, found, results, batch_size: int) -> None:
    asked = [(i, path, pairs) for i, (path, pairs) in found if path[0] in ("rewrite", "rephrase")]
    prompts = [prompt for _, _, pairs in asked for prompt, _ in pairs]
    targets = [target for _, _, pairs in asked for _, target in pairs]
    hits = iter(exact_match_by_generation(model, tok, prompts, targets, batch_size))
    for i, path, pairs in asked:
        results[i][f"{path[0]}_generation_exact_match"] = [next(hits) for _ in pairs]


def _collect(into: dict[str, list[float]], key: str, value) -> None:
    values = value if isinstance(value, (list, tuple)) else [value]
    values = [float(v) for v in values if not math.isnan(v)]
    if values:
        into.setdefault(key, []).append(_mean(values))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
