"""The final protocol: every request measured on the model as it is now, and means over requests.

EasyEdit measures each request right after its own edit; a fact overwritten by a later edit still counts
there. ``evaluate_all`` at the end of a run shows what is left.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from ..errors import RequestError
from .answers import judge_answers
from .batched import exact_match_by_generation
from .llm_judge import LLMJudge
from .quality import locality_meta, measure, predict_sections, prompt_tokenizer_of
from .sections import Section, plain_requests, sections

LocalityOutputs = dict[str, list[list[int]]]
"""{locality kind + "_output": token ids of every prompt} of one request on the untouched model"""


def evaluate_all(
    model,
    tok,
    requests: Sequence,
    reference: Sequence[LocalityOutputs] | None = None,
    batch_size: int = 64,
    hparams=None,
    exact_match: bool = False,
    whole_answers: bool = False,
    locality_in_chat: bool = False,
    judge: LLMJudge | None = None,
) -> list[dict]:
    """EasyEdit-shaped "post" metrics of every request on the present model, in shared batches.

    Args:
        model, tok: the model and its tokenizer; neither is changed.
        requests: EasyEdit's request dictionaries, or ``EditRequest`` objects.
        reference: ``locality_reference`` of the same requests, taken before the first edit; with it
            ``locality`` also holds ``<kind>_acc``.
        hparams: only ``use_chat_template`` and ``evaluation_type`` are read.
        exact_match: also greedy generation: ``rewrite_generation_exact_match`` and
            ``rephrase_generation_exact_match``.
        whole_answers: also whole greedy answers, ``rewrite_answer_says``, ``rewrite_answer_exact_match``,
            ``rewrite_text_exact_match``, and the same of ``rephrase``; see ``answers.Verdict``.
        judge: also ``rewrite_answer_judged`` and ``rephrase_answer_judged``, its grades of whole answers.
        locality_in_chat: with ``use_chat_template``, ask locality prompts inside the chat template too;
            ``reference`` must come from ``evaluate_all`` with this.

    Raises:
        RequestError: names the request's index and the field that is wrong.
    """
    requests = plain_requests(requests)
    if reference is not None and len(reference) != len(requests):
        raise RequestError(f"reference is of {len(reference)} requests but {len(requests)} are evaluated")
    results = measure(model, tok, requests, hparams, batch_size=batch_size, locality_in_chat=locality_in_chat)
    generated: list[Section] = []
    if exact_match or whole_answers or judge:
        generated = [section for section in sections(requests) if section.is_rewrite]
    prompts = [prompt for section in generated for prompt in section.prompts]
    targets = [answer for section in generated for answer in section.answers]
    prompt_tok = prompt_tokenizer_of(tok, hparams)
    if exact_match:
        matches = iter(exact_match_by_generation(model, prompt_tok, prompts, targets, batch_size))
        for section in generated:
            name = f"{section.name}_generation_exact_match"
            results[section.index][name] = [next(matches) for _ in section.prompts]
    if whole_answers or judge:
        old = [requests[section.index].get("ground_truth") for section in generated for _ in section.prompts]
        to_the_end = judge is not None
        verdicts = judge_answers(model, prompt_tok, prompts, targets, old, batch_size, to_the_end)
        measures: dict[str, list[float]] = {}
        if whole_answers:
            measures["answer_says"] = [verdict.says for verdict in verdicts]
            measures["answer_exact_match"] = [verdict.equals for verdict in verdicts]
            measures["text_exact_match"] = [verdict.text_equals for verdict in verdicts]
        if judge:
            answers = [verdict.answer for verdict in verdicts]
            measures["answer_judged"] = judge.grade(prompts, targets, answers)
        for name, values in measures.items():
            each = iter(values)
            for section in generated:
                results[section.index][f"{section.name}_{name}"] = [next(each) for _ in section.prompts]
    if reference is not None:
        for result, outputs in zip(results, reference):
            finalize_locality({"locality": outputs}, result)
    return results


def locality_reference(model, tok, requests: Sequence, batch_size: int = 64) -> list[LocalityOutputs]:
    """The untouched model's answers to every locality prompt: take them once, before the first edit."""
    local = [section for section in sections(plain_requests(requests)) if section.name == "locality"]
    reference: list[LocalityOutputs] = [{} for _ in requests]
    for section, predictions in zip(local, predict_sections(model, tok, local, batch_size=batch_size)):
        reference[section.index][f"{section.kind}_output"] = [p.predicted for p in predictions]
    return reference


def finalize_locality(pre: dict, post: dict) -> None:
    """Add ``<kind>_acc`` and its ``metric_meta`` to ``post["locality"]``: per prompt, the share of positions
    (0..1) whose token is the one in ``pre["locality"]``."""
    for name in [name for name in post["locality"] if name.endswith("_output")]:
        kind = name.removesuffix("_output")
        if name not in pre["locality"]:
            raise RequestError(f"locality.{kind}: no outputs from before the edit to compare with")
        post["locality"][f"{kind}_acc"] = _equal_shares(pre["locality"][name], post["locality"][name], kind)
        post.setdefault("metric_meta", {})[f"locality.{kind}"] = locality_meta(kind)


def _equal_shares(before: Sequence[list[int]], after: Sequence[list[int]], kind: str) -> list[float]:
    if len(before) != len(after):
        raise RequestError(f"locality.{kind}: {len(before)} outputs before the edit, {len(after)} after it")
    shares = []
    for old, new in zip(before, after):
        if len(old) != len(new):
            counts = f"{len(old)} tokens before the edit and {len(new)} after it"
            raise RequestError(f"locality.{kind}: an output has {counts}")
        shares.append(sum(a == b for a, b in zip(old, new)) / len(old) if old else math.nan)
    return shares


def summarize(metrics: Iterable[dict], phase: str = "post") -> dict:
    """Means over requests, under EasyEdit's names, of the request's own means; NaN values do not count.

    ``metrics`` are what an editor returns (dictionaries with ``pre``, ``post``, perhaps ``final``: ``phase``
    says which), or bare "post" dictionaries. What no request has is left out of ``{"rewrite_acc",
    "rephrase_acc", ..., "locality": {"<kind>_acc"}, "portability": {"<kind>_acc"}, "fluency"}``.
    """
    means: dict[tuple[str, str], list[float]] = {}
    for metric in metrics:
        for section, name, numbers in _averaged(metric.get(phase, metric)):
            numbers = numbers if isinstance(numbers, (list, tuple)) else [numbers]
            numbers = [float(number) for number in numbers if not math.isnan(number)]
            if numbers:
                means.setdefault((section, name), []).append(_mean(numbers))
    summary: dict = {name: _mean(values) for (section, name), values in means.items() if not section}
    for group in ("locality", "portability"):
        kinds = {name: _mean(means[section, name]) for section, name in sorted(means) if section == group}
        if kinds:
            summary[group] = kinds
    return summary


def _averaged(metric: dict) -> Iterator[tuple[str, str, float | Sequence[float]]]:
    """(section or "", name, numbers) of everything that a summary averages."""
    for name, value in metric.items():
        if name in ("locality", "portability"):
            yield from ((name, kind, numbers) for kind, numbers in value.items() if kind.endswith("_acc"))
        elif name == "fluency":
            yield "", name, value["ngram_entropy"]
        elif name.endswith(("_acc", "_ppl", "_exact_match", "_says", "_judged")):
            yield "", name, value


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
