"""Runs that are followed: killed and continued, and what the trackers' own files say of them."""

import csv
import json
import math
import os
import random
import signal
from collections import defaultdict
from pathlib import Path

import numpy
import torch

from easyedit_neuron import RunCallback
from helpers import lifelong_runs

KILLED_AFTER = 10
RUN = dict(method="Dummy", edits=13, batch_size=2, checkpoints=[6], save_every_edits=4, guard_every=3)
"""The state of the killed run is from edit 6: it has two batches to make again."""


class Killer(RunCallback):
    """kill -9 right after the edit ``KILLED_AFTER`` was told, unless the run was continued."""

    def on_begin(self, run):
        self.is_new = not run.lines

    def on_edits(self, lines):
        if self.is_new and lines[-1]["edit"] + 1 == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)


class Noisy(RunCallback):
    """Draws from all global generators at every call, and writes down what it is told."""

    def __init__(self):
        self.told = []

    def _note(self, *what):
        random.random(), numpy.random.rand(), torch.randn(1)
        self.told.append(what)

    def on_begin(self, run):
        self._note("begin", len(run.lines), len(run.checkpoints), run.name, run.config["settings"]["edits"])

    def on_edits(self, lines):
        self._note("edits", [line["edit"] for line in lines])

    def on_guard(self, reading):
        self._note("guard", reading["edits"])

    def on_checkpoint(self, checkpoint):
        self._note("checkpoint", checkpoint["edits"])

    def on_end(self, summary, pictures):
        self._note("end", summary and summary["edits"], [path.name for path in pictures])


class Broken(RunCallback):
    """Fails at the second batch."""

    def on_edits(self, lines):
        if lines[0]["edit"]:
            raise OSError("http://me:secret@host is\ngone")


def _start(environment, world, out, options):
    os.environ.update(environment)
    lifelong_runs.start(world, out, **options)


def exit_code(environment, world, out, **options):
    """Of ``lifelong_runs.start`` in a process with these variables; -9: it was killed."""
    process = lifelong_runs._CONTEXT.Process(target=_start, args=(environment, world, out, options))
    process.start()
    process.join()
    return process.exitcode


def expected(out):
    """name -> {number of edits: value}: the numbers that the run's own files hold, by plain sums."""
    values = defaultdict(dict)
    lines = [json.loads(line) for line in (out / "edits.jsonl").read_text().splitlines()]
    for number in sorted({line["batch"] for line in lines}):
        batch = [line for line in lines if line["batch"] == number]
        edits = batch[-1]["edit"] + 1
        immediate = [line["immediate"] for line in batch]
        values["edit/rel"][edits] = _mean(_mean(metrics["rewrite_acc"]) for metrics in immediate)
        values["edit/gen"][edits] = _mean(_mean(metrics["rephrase_acc"]) for metrics in immediate)
        for name, group in (("loc", "locality"), ("portability", "portability")):
            kinds = [_mean(_mean(kind) for kind in metrics[group].values()) for metrics in immediate]
            values[f"edit/{name}"][edits] = _mean(kinds)
        values["edit/seconds"][edits] = batch[0]["seconds"]
        values["edit/failed"][edits] = sum(line["status"] == "failed" for line in batch)
    for row in csv.DictReader((out / "checkpoints.csv").open()):
        edits = int(row.pop("edits"))
        for name, value in row.items():
            if value:
                values[f"checkpoint/{name.replace(':', '/')}"][edits] = float(value)
    if (out / "guard.jsonl").is_file():
        for line in map(json.loads, (out / "guard.jsonl").read_text().splitlines()):
            edits, breaches = line.pop("edits"), line.pop("breaches")
            for name, value in {**line, "breaches": len(breaches)}.items():
                if value is not None:
                    values[f"guard/{name}"][edits] = value
    return dict(values)


def read_csv(out):
    values = defaultdict(dict)
    for row in csv.DictReader((out / "tracking" / "metrics.csv").open()):
        _put(values, row["metric"], int(row["edits"]), float(row["value"]))
    return dict(values), {}, None


def read_tensorboard(out):
    """Scalars by its own reader, which drops what a purge says; names of pictures with their sizes."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(
        str(out / "tracking" / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0}
    )
    events.Reload()
    values = defaultdict(dict)
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            _put(values, name, event.step, event.value)
    pictures = {name: events.Images(name)[-1] for name in events.Tags()["images"]}
    text = events.Tensors("config/text_summary")[-1].tensor_proto.string_val[0].decode()
    sizes = {name: (image.width, image.height) for name, image in pictures.items()}
    return dict(values), sizes, text


def read_wandb(out):
    """The history in the one offline file of the run."""
    from wandb.proto.wandb_internal_pb2 import Record

    number = json.loads((out / "tracking" / "wandb.json").read_text())["id"]
    (path,) = (out / "tracking" / "wandb").glob(f"offline-run-*/run-{number}.wandb")
    values, pictures, config = defaultdict(dict), {}, {}
    for content in leveldb_records(path.read_bytes()):
        record = Record.FromString(content)
        if record.HasField("run"):
            assert record.run.run_id == number
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if not record.HasField("history"):
            continue
        items = [
            (list(item.nested_key) or [item.key], json.loads(item.value_json)) for item in record.history.item
        ]
        step = next(value for keys, value in items if keys == ["_step"])
        for (name, *parts), value in items:
            if parts:  # of a picture
                pictures.setdefault(name, {})[parts[0]] = value
            elif not name.startswith("_"):
                _put(values, name, step, value)
    for picture in pictures.values():
        assert (path.parent / "files" / picture["path"]).stat().st_size == picture["size"]
    return dict(values), pictures, json.dumps(config)


def leveldb_records(content):
    """The records of a file in LevelDB's log format behind W&B's header of seven bytes."""
    assert content[:4] == b":W&B"
    position, part = 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        if kind == 0:
            return
        part += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, last
            yield part
            part = b""


def read_mlflow(out, uri):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    number = json.loads((out / "tracking" / "mlflow.json").read_text())["id"]
    experiment = client.get_experiment_by_name("easyedit-neuron")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == number and run.info.status == "FINISHED"
    values = defaultdict(dict)
    for name in run.data.metrics:
        for metric in client.get_metric_history(number, name):
            _put(values, name, metric.step, metric.value)
    pictures = {item.path.removesuffix(".png"): None for item in client.list_artifacts(number, "plots")}
    return dict(values), pictures, json.dumps(run.data.params)


def differences(values, truth, precision=0.0, but_for=()):
    """Names and steps at which the tracked values are not the run's, with both; ``but_for``: (name's
    beginning, step)."""
    unequal = []
    for name, steps in truth.items():
        if set(values.get(name, {})) != set(steps):
            unequal.append((name, sorted(values.get(name, {})), sorted(steps)))
            continue
        for step, value in steps.items():
            if not math.isclose(values[name][step], value, rel_tol=precision, abs_tol=precision) and not any(
                name.startswith(beginning) and step == at for beginning, at in but_for
            ):
                unequal.append((name, step, values[name][step], value))
    return unequal


def _put(values, name, step, value):
    assert step not in values[name], f"{name} has two values at {step}"
    values[name][step] = value


def _mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values)


def pictures_of(out: Path):
    return {f"plots/{path.stem}" for path in (out / "plots").glob("*.png")}
