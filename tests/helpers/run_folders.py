"""Run folders as the lifelong runner writes them, with made-up numbers that fall as those of a real run
do."""

import json
import random
from pathlib import Path

from easyedit_neuron.lifelong.results import examples
from easyedit_neuron.lifelong.run_folder import RunFolder, as_json, csv_row
from easyedit_neuron.lifelong.stream import cut
from easyedit_neuron.utils.lists import evenly

CHECKPOINTS = [10, 100, 500, 1000, 1500, 2000, 2500, 3000, 5000]
STAGES = {"target": 0.4, "keys": 0.05, "solve": 0.02, "write": 0.01}


def run_folder(
    folder: Path,
    method: str = "NMKE",
    edits: int = 200,
    *,
    half: float = 2000.0,
    done: int | None = None,
    seed: int = 0,
    layers: tuple[str, ...] = ("4",),
    density: float = 0.2,
    unmasked: bool = False,
    stages=STAGES,
    prompt: str = "The mother tongue of person {} is",
    failed=(),
    reason: str = "EditError: diverged",
    hparams: dict | None = None,
    leave_out: tuple[str, ...] = (),
    answers: int = 0,
) -> Path:
    """Writes a folder; ``half`` is after how many edits half of a score is lost, ``done`` makes an unfinished
    run of it, ``answers`` is of how many edits the answers are kept."""
    files, numbers = RunFolder(folder), random.Random(f"{method} {seed} {edits}")
    folder.mkdir(parents=True)
    settings = {
        "model": {"name": "tiny-llama", "path": None},
        "data": {"path": "tiny-world"},
        "evaluation": {"batch_size": 64},
        "output_dir": str(folder),
        "method_name": method,
        "method": {},
        "edits": edits,
        "batch_size": 1,
        "seed": seed,
    }
    identity = {
        "settings": settings,
        "hparams": {"alg_name": method, "seed": seed, "v_lr": 0.5, **(hparams or {})},
        "data": {},
        "versions": {"torch": "2.13.0"},
    }
    command = f"python -m easyedit_neuron method={method}"
    files.run.write_text(as_json({"format": 1, "identity": identity, "model": {}, "command": command}))
    count = edits if done is None else done
    lines = [
        _edit(i, numbers, prompt, half, count, i in failed, reason, layers, density, stages)
        for i in range(count)
    ]
    points = [0, *(point for point in cut(CHECKPOINTS, edits) if point <= count)]
    checkpoints = [
        _checkpoint(n, numbers, half, layers, density, failed, leave_out, stages, unmasked) for n in points
    ]
    for line in evenly(lines, answers):
        line["answers"] = _answers(line)
    if done is not None:
        for line in lines:
            line["final"] = None
    files.write_edits(lines)
    files.write_checkpoints(checkpoints)
    if done is None:
        files.summary.write_text(json.dumps(_summary(settings, identity, lines, checkpoints)))
    return folder


def _score(n: float, half: float, best: float = 0.99) -> float:
    return best / (1 + (n / half) ** 1.5)


def _edit(i, numbers, prompt, half, count, failed, reason, layers, density, stages) -> dict:
    def scores(rewrite):
        return {
            "rewrite_acc": [rewrite],
            "rephrase_acc": [rewrite * 0.9],
            "locality": {"neighborhood_acc": [0.9]},
            "portability": {},
        }

    soon, late = (numbers.random() < _score(i, 4 * half), numbers.random() < _score(count - i, half))
    return {
        "edit": i,
        "record": i,
        "batch": i,
        "status": "failed" if failed else "ok",
        "reason": reason if failed else None,
        "request": {"prompt": prompt.format(i), "subject": f"person {i}", "target_new": "French"},
        "superseded_by": None,
        "before": scores(0.0),
        "immediate": scores(float(soon)),
        "final": scores(float(late)),
        "layers": {layer: {"density": density, "leakage": 1e-5, "delivered": 0.9} for layer in layers},
        "seconds": sum(stages.values()) * (1 + 0.2 * numbers.random() + i / 20000),
        "stages_of_batch": stages,
    }


def _answers(line) -> dict:
    """What a model says that answers as the line's scores are; every third neighbor is changed."""
    request, right = line["request"], line["final"]["rewrite_acc"] == [1.0]
    now = f"{request['target_new']}." if right else "Dutch."
    return {
        "rewrite": {"prompt": request["prompt"], "before": "Danish.", "final": now},
        "rephrase": {"prompt": f"Again: {request['prompt']}", "before": "Danish.", "final": now},
        "neighbor": {
            "prompt": f"Beside: {request['prompt']}",
            "before": "Polish.",
            "final": "Polish." if line["edit"] % 3 else "Greek.",
        },
    }


def _checkpoint(n, numbers, half, layers, density, failed, leave_out, stages, unmasked) -> dict:
    def noise(value):
        return value * (1 + 0.02 * (numbers.random() - 0.5))

    rel = noise(_score(n, half)) if n else 0.02
    soon = noise(_score(n, 4 * half)) if n else None
    final = {
        "rewrite_acc": rel,
        "rephrase_acc": rel * 0.9,
        "rewrite_generation_exact_match": rel * 0.95,
        "rephrase_generation_exact_match": rel * 0.8,
        "loc": noise(_score(n, half * 0.8)),
        "locality": {
            "neighborhood_acc": noise(_score(n, half)),
            "same_subject_acc": noise(_score(n, half, 0.6)),
        },
        "port": rel * 0.4,
        "portability": {"one_hop_acc": rel * 0.4},
        "retained": noise(_score(n, half, 1.0)) if n else 1.0,
        "retained_facts": 598,
        "retained_asked": 600,
        "fluency": 5.9 - 2 * n / (n + 4 * half),
        "perplexity": 4.2 * (1 + n / half) ** 2,
    }
    immediate = (
        {}
        if soon is None
        else {
            "rewrite_acc": soon,
            "rephrase_acc": soon * 0.92,
            "loc": noise(_score(n, half)),
            "port": soon * 0.4,
            "locality": final["locality"],
            "portability": final["portability"],
        }
    )
    for name in leave_out:
        final.pop(name, None)
    drift = (
        {
            name if not name.isdigit() else f"model.layers.{name}.mlp.down_proj.weight": {
                "wasserstein": [1e-4 * n**0.5, 2e-5],
                "cosine": [1 - 1e-4 * n**0.7, 0.01],
                "l2": [1e-3 * n**0.6 * (1 + i / 5), 1e-3],
                "wasserstein_norms": 1e-4 * n**0.5,
            }
            for i, name in enumerate(layers)
        }
        if n
        else {}
    )
    layer_values = (
        {
            layer: {
                "density": 1.0 if unmasked else density * (1 + i / 10),
                "leakage": 1e-6 * n,
                "delivered": 0.9,
                "overlap": None if unmasked else min(1.0, 1.5 * density),
                "touched": None if unmasked else min(1.0, density * (1 + n / 400)),
            }
            for i, layer in enumerate(layers)
        }
        if n
        else {}
    )
    seconds = {"load": 1.5, "measure before": 6.0}
    if n:
        seconds |= {
            "edit": sum(stages.values()) * n * 1.1,
            "measure immediately": 0.02 * n,
            "measure checkpoints": 0.03 * n,
            "save": 0.002 * n,
        }
    return {
        "edits": n,
        "failed": len([i for i in failed if i < n]),
        "superseded": 0,
        "final": final,
        "immediate": immediate,
        "by_kind": {
            "locality": {"final": final["locality"], "immediate": {}},
            "portability": {"final": {}, "immediate": {}},
        },
        "drift": drift,
        "layers": layer_values,
        "seconds": seconds,
        "stages": {name: spent * n for name, spent in stages.items()} if n else {},
        "evaluation_share": 0.18,
        "memory": {"rss_peak_mib": 700 + n / 20, "cuda_peak_mib": None},
    }


def _summary(settings, identity, lines, checkpoints) -> dict:
    last = checkpoints[-1]
    results = {"before": checkpoints[0]["final"], "immediate": last["immediate"], "final": last["final"]}
    return {
        "method": settings["method_name"],
        "model": "tiny-llama",
        "data": {"path": "tiny-world", "shape": None},
        "edits": len(lines),
        "failed": last["failed"],
        "duplicates": 3,
        "contradictions": 0,
        "superseded": 0,
        "batch_size": 1,
        "seed": settings["seed"],
        "results": results,
        "examples": examples(lines),
        "drift": last["drift"],
        "layers": last["layers"],
        "checkpoints": [csv_row(checkpoint) for checkpoint in checkpoints],
        "seconds_per_edit": 0.5,
        "seconds_per_edit_first_batch": 2.0,
        "seconds": last["seconds"],
        "stages": last["stages"],
        "evaluation_share": 0.18,
        "memory": last["memory"],
        "resumed": 0,
        "hparams": identity["hparams"],
        "settings": settings,
        "versions": identity["versions"],
    }
