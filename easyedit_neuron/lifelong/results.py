"""The objects of ``edits.jsonl``, ``checkpoints.jsonl`` and ``summary.json``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..utils.lists import evenly
from .identity import versions
from .layer_statistics import MaskCounts, add_up, layer_means, layer_values, stage_seconds
from .measurer import intervals, means
from .method import BatchResult
from .run_folder import csv_row, finite, seconds_of_measuring
from .stream import Stream
from .tracking.callbacks import Callbacks

EXAMPLES = 4  # edits whose answers are in the summary

PROTOCOL = {
    "before": "the untouched model",
    "immediate": "each batch of edits measured right after it (EasyEdit's protocol)",
    "final": "all edits so far measured on the model as it is; of several edits of one fact (prompt and "
    "subject) the last",
    "intervals": "of the final means: 95% bootstrap over the edits",
    "failed": "an edit that failed was rolled back; it is measured like every other",
    "scorer": "*_acc: teacher-forced token accuracy on prompt + ' ' + target (EasyEdit's token_em); "
    "*_generation_exact_match: greedy generation writes the whole target",
    "answers": "*_answer_says: the greedy answer begins with the target and does not hold the old object; "
    "cut at the end-of-text token, a new line, the end of a sentence or 20 tokens more than the target has. "
    "*_answer_exact_match: it is the target alone; *_text_exact_match: the same, cut at the end of text only",
    "judged": "*_answer_judged: share of such answers that evaluation.judge_model grades right",
    "first_token_kl": "mean KL(before || now) of the first answered token on never edited facts, in nats",
    "locality": "share of predicted tokens equal to the untouched model's",
    "loc, port": "mean over edits of the mean over the edit's kinds of locality, portability",
    "retained": "share of never edited facts whose whole answer is still right, of those the untouched model "
    "answers right",
    "fluency": "n-gram entropy in bits (2- and 3-grams) of sampled continuations of the edit prompts",
    "ability": "lm-eval's tasks on the model in memory: metric, shots and documents stand beside each value "
    "(docs/guides/ability.md)",
    "perplexity": "exp of the mean negative log-likelihood per token of held-out text",
    "overlap": "neurons that two batches' masks share / mean size of the two, over all pairs of batches",
    "drift": "rows of every changed weight against the untouched model's",
}


def edit_lines(
    stream: Stream, positions: range, result: BatchResult, seconds: float, metrics: dict[str, list]
) -> list[dict[str, Any]]:
    """The objects of a batch for ``edits.jsonl``; ``metrics``: lists ``before`` and ``immediate``."""
    of_batch = {
        "batch": positions.start // stream.batch_size,
        "status": "ok" if result.failure is None else "failed",
        "reason": result.failure,
        "layers": layer_values(result.records),
        "seconds": seconds / len(positions),
        "stages_of_batch": stage_seconds(result.records),
    }
    lines = []
    for position, before, immediate in zip(positions, metrics["before"], metrics["immediate"]):
        line = {"edit": position, "record": stream.records[position], "request": stream.requests[position]}
        line["superseded_by"] = stream.superseded_at_end.get(position)
        line |= {"before": before, "immediate": immediate, "final": None}
        lines.append(finite(line | of_batch))
    return lines


def checkpoint_line(
    lines: list[dict], stream: Stream, masks: MaskCounts, final: dict, drift: dict, costs: dict
) -> dict[str, Any]:
    """One object of ``checkpoints.jsonl``; ``costs``: ``seconds`` of the run by part, and ``memory``.

    ``final``: means over the edits and side effects, on the model as it is now.
    """
    immediate, seconds = immediate_means(lines), costs["seconds"]
    first_of_batches = [line for line in lines if line["edit"] % stream.batch_size == 0]
    groups = {
        group: {"final": final.get(group, {}), "immediate": immediate.get(group, {})}
        for group in ("locality", "portability")
    }
    line = {"edits": len(lines), "failed": count_failed(lines)}
    line["superseded"] = len(stream.superseded(len(lines)))
    line |= {"final": final, "immediate": immediate, "by_kind": groups, "drift": drift}
    line |= {"layers": layer_means(lines, masks), "seconds": dict(seconds)}
    line["stages"] = add_up(line["stages_of_batch"] for line in first_of_batches)
    line["evaluation_share"] = seconds_of_measuring(seconds) / max(sum(seconds.values()), 1e-9)
    return finite(line | {"memory": costs["memory"]})


def immediate_means(lines: list[dict]) -> dict[str, Any]:
    """Means over edits in the immediate protocol; empty where it is not measured."""
    return means([line["immediate"] for line in lines if line["immediate"] is not None])


def count_failed(lines: list[dict]) -> int:
    return sum(line["status"] == "failed" for line in lines)


def examples(lines: list[dict]) -> list[dict[str, Any]]:
    """A few edits whose answers were kept, spread over the stream: number, new object and answers."""
    chosen = evenly([line for line in lines if line.get("answers")], EXAMPLES)
    return [
        {"edit": line["edit"], "target_new": line["request"]["target_new"], "answers": line["answers"]}
        for line in chosen
    ]


@dataclass(frozen=True)
class RunOrigin:
    """What a run was started with; ``hparams_file`` is where the hyperparameters were read, ``callbacks``
    are told what happens."""

    settings: Any
    hparams: Any
    hparams_file: Path
    command: str
    callbacks: Callbacks = field(default_factory=Callbacks)


@dataclass(frozen=True)
class RunResults:
    """What a finished run has; ``repeats`` are the numbers of duplicates and of contradictions, ``readings``
    the guard's."""

    lines: list[dict]
    checkpoints: list[dict]
    repeats: tuple[int, int]
    resumed: int
    fingerprints: dict[str, str]
    readings: list[dict] = field(default_factory=list)


def summarise(origin: RunOrigin, run: RunResults) -> dict[str, Any]:
    """The content of ``summary.json``: results, and what is needed to repeat the run."""
    settings, first, last = origin.settings, run.checkpoints[0], run.checkpoints[-1]
    results = {"before": first["final"], "immediate": last["immediate"], "final": last["final"]}
    # The first batch pays for what is done once (contexts, statistics that are not cached yet).
    later = [line["seconds"] for line in run.lines if line["batch"] > 0]
    later = later or [line["seconds"] for line in run.lines]
    summary = {"method": settings.method_name, "model": settings.model.path or settings.model.name}
    summary["data"] = {"path": settings.data.path, "shape": settings.data.shape}
    summary |= {"edits": len(run.lines), "failed": last["failed"]}
    summary |= {"duplicates": run.repeats[0], "contradictions": run.repeats[1]}
    summary |= {"superseded": last["superseded"], "batch_size": settings.batch_size, "seed": settings.seed}
    summary["results"] = {phase: values for phase, values in results.items() if values}
    summary["intervals"] = intervals([line["final"] for line in run.lines if line.get("final")])
    summary["examples"] = examples(run.lines)
    summary |= {name: last[name] for name in ("drift", "layers")}
    summary["checkpoints"] = [csv_row(checkpoint) for checkpoint in run.checkpoints]
    summary["seconds_per_edit"] = sum(later) / len(later)
    summary["seconds_per_edit_first_batch"] = run.lines[0]["seconds"]
    summary |= {name: last[name] for name in ("seconds", "stages", "evaluation_share", "memory")}
    if run.readings:
        breaches = [reading for reading in run.readings if reading["breaches"]]
        summary["guard"] = {"readings": len(run.readings), "breaches": breaches}
    summary |= {"resumed": run.resumed, "weights": run.fingerprints, "protocol": PROTOCOL}
    summary |= {"hparams_file": str(origin.hparams_file), "hparams": origin.hparams.to_dict()}
    return summary | {"settings": settings.to_dict(), "versions": versions(), "command": origin.command}
