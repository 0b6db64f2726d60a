"""The runs behind an entry: a command of ours for each data set and method, resumed by the same command."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .. import resources
from ..bench.cells import Cell
from ..data import load
from ..hyperparameters.variant import Variant
from ..lifelong.run_folder import RunFolder
from ..studies.edit_rows import rows_file
from .entry import Entry
from .measures import ABILITIES

FLUENCY_TOKENS = 100
_MEASURED = (
    *("evaluation.immediate=false", "evaluation.exact_match=false", "evaluation.perplexity=0"),
    *("evaluation.answers=0", "runner.report=false", "runner.guard_every=null", "runner.forecast_from=null"),
)


@cache
def _number_of_records(place: str) -> int:
    return len(load(place, invalid="skip"))


@dataclass(frozen=True)
class Request:
    """What a user asks of an entry.

    Attributes:
        entry: the table.
        model: name of a model with shipped settings.
        path: where it is, None for the checkpoint that the settings name.
        data: name of a data set -> file, or name of a shipped set.
        out: folder of the runs.
        methods: labels of the table to run; empty: all that have code.
        edits: at most so many, None for the paper's size.
        seed: of the order of sequential edits.
        settings: of every run of the runner.
    """

    entry: Entry
    model: str
    path: str | None
    data: dict[str, str]
    out: Path
    methods: Sequence[str] = ()
    edits: int | None = None
    seed: int = 0
    settings: Sequence[str] = field(default_factory=tuple)

    @property
    def variants(self) -> dict[str, Variant]:
        """Label -> method, of those that are run."""
        chosen = self.methods or list(self.entry.methods)
        texts = {label: self.entry.methods[label] for label in chosen}
        return {label: Variant.of(text) for label, text in texts.items() if text is not None}

    def size(self, data: str) -> int:
        """Number of edits of a run: the paper's, or all records where it does not say, at most ``edits``."""
        paper = self.entry.size
        if paper is None and self.edits is None:
            return _number_of_records(self.data[data])
        return min(size for size in (self.edits, paper) if size is not None)

    def steps(self, data: str) -> list[int]:
        """Numbers of edits after which all so far are measured; the last one is where the run ends."""
        size = self.size(data)
        return [*(step for step in self.entry.steps if step < size), size]

    def run_folder(self, data: str, variant: Variant, edits: int | None = None) -> Path:
        """Of a sequential run, by default of the whole size."""
        return self.out / f"{data}-{variant.file_name}-{edits or self.size(data)}-s{self.seed}"

    def rows_file(self, data: str, variant: Variant) -> Path:
        """Of single edits."""
        return rows_file(self.out / data, self.data[data], variant.text)


def run(request: Request) -> list[str]:
    """Make all runs that are not there yet; what has failed, one phrase each."""
    commands = {"sequential": _sequential, "single": _single, "study": _study}[request.entry.protocol](
        request
    )
    failed = []
    for label, arguments in commands:
        sys.stderr.write(f"{request.entry.name}: {label}\n")
        if subprocess.run([sys.executable, "-m", *arguments], check=False).returncode:
            failed.append(label)
    return failed


def _sequential(request: Request) -> list[tuple[str, list[str]]]:
    commands = []
    for data in request.entry.data:
        commands += _runs(request, data, request.size(data))
    return commands


def _runs(request: Request, data: str, edits: int) -> list[tuple[str, list[str]]]:
    """A run of each method that is not finished yet."""
    commands = []
    for label, variant in request.variants.items():
        folder = request.run_folder(data, variant, edits)
        if not RunFolder(folder).summary.is_file():
            arguments = ["easyedit_neuron", *_settings(request, data, variant, edits, folder)]
            commands.append((f"{data}, {label}", arguments))
    return commands


def _settings(request: Request, data: str, variant: Variant, edits: int, folder: Path) -> list[str]:
    batch, columns = request.entry.batch_size, request.entry.columns
    cell = Cell.of(variant.text, data, edits, batch, request.seed)
    place = request.data[data]
    source = ["data=file", f"data.path={place}", "data.invalid=skip"]
    if place in resources.SHIPPED_DATA:
        source = [f"data={place}"]
    abilities = [name for name in ABILITIES if name in columns]
    return [
        *cell.method_settings,
        f"model={request.model}",
        *([f"model.path={request.path}"] if request.path else []),
        *source,
        "data.retained=null",
        f"data.sample_seed={request.seed}",
        "runner.order=shuffled",
        f"edits={cell.edits}",
        f"batch_size={cell.batch_size}",
        f"seed={request.seed}",
        f"runner.checkpoints={[step for step in request.entry.steps if step < edits]}".replace(" ", ""),
        *_MEASURED,
        f"evaluation.fluency={20 if 'fluency' in columns else 0}",
        f"evaluation.ability=[{','.join(abilities)}]",
        *request.settings,
        f"output_dir={folder}",
    ]


def _single(request: Request) -> list[tuple[str, list[str]]]:
    """All methods in one process: those that search for the same z* search once."""
    texts, commands = [variant.text for variant in request.variants.values()], []
    for data in request.entry.data:
        arguments = ["easyedit_neuron.studies.single_edits", *_places(request, data)]
        arguments += ["--methods", *texts, "--perplexity", "0", "--out", str(request.out / data)]
        if "fluency" in request.entry.columns:
            arguments += ["--fluency", str(FLUENCY_TOKENS)]
        if "over_edited" in request.entry.columns:
            arguments.append("--over-editing")
        commands.append((data, arguments))
    return commands


def _study(request: Request) -> list[tuple[str, list[str]]]:
    """The study on each data set; one that compares runs has them made first, one of each size."""
    module = f"easyedit_neuron.studies.{request.entry.study}"
    takes = _options(module)
    commands: list[tuple[str, list[str]]] = []
    for data in request.entry.data:
        folders = []
        for edits in request.steps(data) if request.variants else []:
            commands += _runs(request, data, edits)
            folders += [str(request.run_folder(data, v, edits)) for v in request.variants.values()]
        options = {
            "--model": request.path or request.model,
            "--hparams": f"{request.entry.paper.upper()}/{request.model}",
            "--data": request.data[data],
        }
        if "--edits" in takes:
            options["--edits"] = str(request.size(data))
        given = [word for name, value in options.items() if name in takes for word in (name, value)]
        if request.path and "--hparams" in takes:
            given += ["--set", f"model_name={request.path}"]
        arguments = [module, *folders, *given, *request.entry.arguments, "--out", str(request.out / data)]
        commands.append((f"{data}, {request.entry.study}", arguments))
    return commands


def _options(module: str) -> set[str]:
    """Names of a study's options."""
    parser = argparse.ArgumentParser()
    importlib.import_module(module).main.__self__.add_arguments(parser)
    return {name for action in parser._actions for name in action.option_strings}


def _places(request: Request, data: str) -> list[str]:
    path = ["--model-path", request.path] if request.path else []
    place = ["--data", request.data[data], "--edits", str(request.size(data))]
    return ["--model", request.model, *path, *place]
