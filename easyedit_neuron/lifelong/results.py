"""The summary of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .resume import versions
from .run_folder import csv_row

PROTOCOL = {
    "before": "the untouched model",
    "immediate": "each batch of edits measured right after it (EasyEdit's protocol)",
    "final": "all edits so far measured on the model as it is; of several edits of one fact (prompt and subject) the last",
    "failed": "an edit that failed was rolled back; it is measured like every other",
    "scorer": "*_acc: teacher-forced token accuracy on prompt + ' ' + target (EasyEdit's token_em); "
    "*_generation_exact_match: greedy generation writes the whole target",
    "locality": "share of predicted tokens equal to the untouched model's",
    "loc, port": "mean over edits of the mean over the edit's kinds of locality, portability",
    "retained": "share of never edited facts whose whole answer is still right, of those the untouched model answers right",
    "fluency": "n-gram entropy in bits (2- and 3-grams) of sampled continuations of the edit prompts",
    "ability": "lm-eval's tasks on the model in memory: metric, shots and documents stand beside each value (docs/guides/ability.md)",
    "perplexity": "exp of the mean negative log-likelihood per token of held-out text",
    "overlap": "neurons that two batches' masks share / mean size of the two, over all pairs of batches",
    "drift": "rows of every changed weight against the untouched model's",
}


def summarise(
    settings: Any,
    hparams: Any,
    source: Path,
    command: str,
    lines: list[dict],
    checkpoints: list[dict],
    repeats: tuple[int, int],
    resumed: int,
    fingerprints: dict[str, str],
) -> dict[str, Any]:
    """Everything about a run in one object: results, and what is needed to repeat it.

    Args:
        settings, hparams, source, command: as the command line gave them; ``source`` is the file of the
            hyperparameters.
        lines: of ``edits.jsonl``.
        checkpoints: of ``checkpoints.jsonl``, the untouched model first.
        repeats: duplicates, contradictions.
        resumed: how often the run was continued.
        fingerprints: parameter name -> fingerprint of the edited weight.
    """
    last = checkpoints[-1]
    results = {"before": checkpoints[0]["final"], "immediate": last["immediate"], "final": last["final"]}
    return {
        "method": settings.method_name,
        "model": settings.model.path or settings.model.name,
        "data": {"path": settings.data.path, "shape": settings.data.shape},
        "edits": len(lines),
        "failed": last["failed"],
        "duplicates": repeats[0],
        "contradictions": repeats[1],
        "superseded": last["superseded"],
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "results": {phase: found for phase, found in results.items() if found},
        "drift": last["drift"],
        "layers": last["layers"],
        "checkpoints": [csv_row(checkpoint) for checkpoint in checkpoints],
        **_edit_seconds(lines),
        "seconds": last["seconds"],
        "stages": last["stages"],
        "evaluation_share": last["evaluation_share"],
        "memory": last["memory"],
        "resumed": resumed,
        "weights": fingerprints,
        "protocol": PROTOCOL,
        "hparams_file": str(source),
        "hparams": hparams.to_dict(),
        "settings": settings.to_dict(),
        "versions": versions(),
        "command": command,
    }


def _edit_seconds(lines: list[dict]) -> dict[str, float]:
    # The first batch pays for what is done once (contexts, statistics that are not cached yet): it is kept
    # apart.
    later = [line["seconds"] for line in lines if line["batch"] > 0] or [line["seconds"] for line in lines]
    return {"seconds_per_edit": sum(later) / len(later), "seconds_per_edit_first_batch": lines[0]["seconds"]}
