"""Runs of the lifelong runner on a tiny model: in this process, or in children that are killed."""

import json
import multiprocessing
import os
import random
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy
import pytest
import torch

from easyedit_neuron import LastingHyperParams
from easyedit_neuron.cli import run as cli_run
from easyedit_neuron.cli.settings import (
    DataSettings,
    EvaluationSettings,
    ModelSettings,
    RunnerSettings,
    Settings,
)
from easyedit_neuron.editlog import EditLog
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.lifelong.engine import Engine
from easyedit_neuron.models.gate.gate_hparams import GateHyperParams
from easyedit_neuron.models.ike.ike_hparams import IKEHyperParams
from easyedit_neuron.registry import MethodSpec, register_method
from easyedit_neuron.utils import io
from helpers import contract
from helpers.dummy_method import DummyHyperParams, apply_dummy_to_model, register_dummy
from helpers.editing import make_hparams
from helpers.tiny_models import tiny_model

NAMES, PLACES = ("Anna Berg", "Peter Olsen", "Marie Lund"), ("Oslo", "Rome", "Paris", "London")
VERBS = ("lives in", "was born in", "works in", "plays in", "is the capital of")


@dataclass
class NoisyHyperParams(DummyHyperParams):
    ALG_NAME: ClassVar[str] = "Noisy"
    alg_name: str = "Noisy"


def apply_noisy_to_model(model, tok, requests, hparams, **options):
    """The dummy with noise from all three global generators; now and then it breaks the weights, or throws
    after it has changed them."""
    edited, originals = apply_dummy_to_model(model, tok, requests, hparams, **{**options, "records": None})
    (name,) = originals
    weight = model.get_parameter(name)
    with torch.no_grad():
        weight.add_(0.01 * torch.randn(weight.shape) + 0.001 * random.random() + 0.001 * numpy.random.rand())
        fate = random.random()
        if fate < 0.1:
            weight[0, 0] = float("nan")
        if 0.1 < fate < 0.2:
            model.get_parameter(name.replace(".1.", ".2.")).add_(1.0)  # a weight that it does not own up to
            raise RuntimeError("the noise was too loud")
    return edited, originals


def register():
    """Both methods; idempotent."""
    register_dummy()
    here = "helpers.lifelong_runs"
    register_method(
        MethodSpec("Noisy", f"{here}:apply_noisy_to_model", f"{here}:NoisyHyperParams", batchable=True)
    )


def make_world(folder: Path, count: int = 60, model_type: str = "llama") -> Path:
    """A tiny model on disk, ``count`` edits (some of the same facts), a fact beside them, text."""
    model, tok = tiny_model(model_type)
    model.save_pretrained(folder / "model")
    tok.save_pretrained(folder / "model")
    edits = []
    for i in range(count):
        person, verb = NAMES[i % 3], VERBS[i // 3 % 5]
        edits.append(
            {
                "subject": person,
                "prompt": f"{person} {verb}" + (f" year {i // 15}" if i % 2 else ""),
                "target_new": PLACES[i * i // 7 % 4],
                "ground_truth": "tennis",
                "rephrase_prompt": f"{verb} {person}",
                "locality": {"Forgetfulness": [{"prompt": f"{person} plays", "ground_truth": "tennis"}]},
                "portability": {
                    "Reasoning": [{"prompt": f"The country of {person}", "ground_truth": "Norway"}]
                },
            }
        )
    (folder / "edits.json").write_text(json.dumps(edits))
    fact = {
        "prompt": "Anna Berg was born in",
        "ground_truth": "Paris",
        "subject": "Anna Berg",
        "relation": "born",
    }
    (folder / "facts.json").write_text(json.dumps([fact]))
    (folder / "text.txt").write_text(
        "".join(f"{person} was born in Paris and plays tennis.\n" for person in NAMES * 9)
    )
    return folder


def settings_of(
    world: Path,
    out: Path,
    method: str = "Dummy",
    edits: int = 60,
    batch_size: int = 1,
    seed: int = 0,
    measure=None,
    **runner,
):
    """Settings of a run that measures little."""
    options = {"fluency": 1, "fluency_tokens": 5, "perplexity": 2, "exact_match": False, **(measure or {})}
    return Settings(
        model=ModelSettings("tiny", path=str(world / "model")),
        data=DataSettings(
            str(world / "edits.json"), retained=str(world / "facts.json"), text=str(world / "text.txt")
        ),
        evaluation=EvaluationSettings(**options),
        output_dir=str(out),
        method_name=method,
        edits=edits,
        batch_size=batch_size,
        seed=seed,
        runner=RunnerSettings(
            **{"checkpoints": [10, 25], "save_every_edits": 3, "quiet": True, "report": False, **runner}
        ),
    )


def hparams_of(world: Path, out: Path, settings: Settings, **changes):
    """Hyperparameters of the dummies, or of one of our own methods; statistics beside the run, so that every
    run measures its own."""
    if settings.method_name in ("Dummy", "Noisy"):
        cls = DummyHyperParams if settings.method_name == "Dummy" else NoisyHyperParams
        return cls(model_name=str(world / "model"), batch_size=settings.batch_size, **changes)
    fields = {
        "model_name": str(world / "model"),
        "v_num_grad_steps": 2,
        "stats_dir": str(out.parent / "stats"),
        **changes,
    }
    if settings.method_name == "IKE":
        fields = {"model_name": str(world / "model"), "device": "cpu", "batch_size": settings.batch_size}
        return IKEHyperParams(alg_name="IKE", **fields, **changes)
    if settings.method_name == "Lasting":
        return LastingHyperParams(alg_name="Lasting", batch_size=settings.batch_size, **fields)
    if settings.method_name == "Gate":
        options = {"layers": [1], "key_layer": 1, "batch_size": settings.batch_size, "device": "cpu"}
        return GateHyperParams(alg_name="Gate", **options, **fields)
    if settings.method_name in ("FiNE", "KNE", "PNKE"):
        fields = {"model_name": str(world / "model"), **changes}
        if settings.method_name != "FiNE":
            fields = {"stats_dir": str(out.parent / "stats"), **fields}
        return contract.settings(settings.method_name, world, batch_size=settings.batch_size, **fields)
    return make_hparams(settings.method_name, world, batch_size=settings.batch_size, **fields)


def start(world: Path, out: Path, changes=None, fault=None, limit=None, **options):
    """One attempt in this process; ``fault``: (function, number) of ``os`` at whose call of that number the
    process dies; ``limit``: bytes that a file may have. Exit code 2 and the message on stderr for an error
    that the package raises on purpose."""
    register()
    torch.set_num_threads(1)
    settings = settings_of(world, out, **options)
    if fault:
        _die_at(*fault)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return cli_run.run(
        settings, hparams_of(world, out, settings, **(changes or {})), Path("none"), str(out), []
    )


def start_again_after_interruption(world: Path, out: Path, monkeypatch, at: int, **options) -> list[int]:
    """A run that is interrupted before the edit of number ``at``, and begun again; the first numbers of the
    batches that were edited before."""
    edit_batch, before = Engine._edit_batch, []

    def dies(self, positions):
        if positions.start == at:
            raise KeyboardInterrupt
        before.append(positions.start)
        return edit_batch(self, positions)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_edit_batch", dies)
        with pytest.raises(KeyboardInterrupt):
            start(world, out, **options)
    start(world, out, **options)
    return before


def _die_at(name: str, number: int) -> None:
    real, calls = getattr(os, name), []

    def counted(*args):
        calls.append(args)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args)
        if len(calls) == -number:  # right after it
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(io.os, name, counted)


def _child(answer, *args, **options):
    io.STALE_SECONDS = 0.0  # nobody else writes here, so what is unfinished was left by a killed process
    try:
        start(*args, **options)
    except NeuronEditError as problem:
        answer.send(str(problem))
    else:
        answer.send("finished")


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["helpers.lifelong_runs"])


def warm_up() -> None:
    """Has the server of processes import everything once: a child is then there at once."""
    # a path by the environment: the server does not take over sys.path before its imports
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path)}):
        process = _CONTEXT.Process(target=register)
        process.start()
        process.join()


class Child:
    """``start`` in a process of its own."""

    def __init__(self, *args, **options):
        self._answer, child_end = _CONTEXT.Pipe(duplex=False)
        self.process = _CONTEXT.Process(target=_child, args=(child_end, *args), kwargs=options)
        self.process.start()
        child_end.close()

    def kill_after(self, seconds: float) -> None:
        """kill -9, unless it has ended by then."""
        self.process.join(seconds)
        self.process.kill()

    def end(self) -> str | None:
        """``finished``, the message of an error, or None for a process that was killed."""
        self.process.join()
        try:
            return self._answer.recv()
        except EOFError:
            return None


TIMES = ("seconds", "stages_of_batch", "stages", "memory", "evaluation_share")


def without_times(value):
    """JSON without what two equal runs may differ in."""
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def _entries(folder: Path) -> list[dict] | None:
    """The entries of a log without what hangs on times: hashes of lines and files."""
    if not folder.exists():
        return None
    log = EditLog(folder)
    log.verify()
    return [
        {name: value for name, value in entry.items() if name not in ("bytes", "sha256", "hash", "previous")}
        for entry in log.entries
    ]


def outcome(out: Path) -> dict:
    """Everything that two equal runs have in common."""
    return {
        "weights": (out / "weights.safetensors").read_bytes(),
        **{
            name: [without_times(json.loads(line)) for line in (out / name).read_text().splitlines()]
            for name in ("edits.jsonl", "checkpoints.jsonl")
        },
        "log": _entries(out / "log"),
        "results": json.loads((out / "summary.json").read_text())["results"],
        "files": sorted(str(path.relative_to(out)) for path in out.rglob("*")),
    }
