"""The runs behind an entry: a command of ours for each data set and method, resumed by the same command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import resources
from ..bench.cells import Cell
from ..errors import NeuronEditError
from ..hyperparameters.variant import Variant
from ..lifelong.run_folder import RunFolder
from ..registry import get_method
from ..studies.single_edits import rows_file
from .entry import Entry
from .measures import ABILITIES

FLUENCY_TOKENS = 100
_MEASURED = (
    *("evaluation.immediate=false", "evaluation.exact_match=false", "evaluation.perplexity=0"),
    *("evaluation.answers=0", "runner.report=false", "runner.guard_every=null", "runner.forecast_from=null"),
)


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

    @property
    def size(self) -> int:
        """Number of edits of a run."""
        sizes = [size for size in (self.edits, self.entry.size) if size is not None]
        if not sizes:
            raise NeuronEditError(f"{self.entry.name}: the paper does not say how many edits: edits=N")
        return min(sizes)

    @property
    def steps(self) -> list[int]:
        """Numbers of edits after which all so far are measured; the last one is where the run ends."""
        return [*(step for step in self.entry.steps if step < self.size), self.size]

    def run_folder(self, data: str, variant: Variant) -> Path:
        """Of a sequential run."""
        return self.out / f"{data}-{variant.file_name}-{self.size}-s{self.seed}"

    def rows_file(self, data: str, variant: Variant) -> Path:
        """Of single edits."""
        return rows_file(self.out / data, self.data[data], variant.text)

    def checkpoint(self, variant: Variant) -> str | None:
        """The checkpoint that the shipped settings of the method and the model name."""
        name = f"{variant.method}/{self.model}"
        if name not in resources.shipped_hparams():
            return None
        return str(get_method(variant.method).load_hparams().from_hparams(name).model_name)


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
        for label, variant in request.variants.items():
            folder = request.run_folder(data, variant)
            if not RunFolder(folder).summary.is_file():
                arguments = ["easyedit_neuron", *_settings(request, data, variant, folder)]
                commands.append((f"{data}, {label}", arguments))
    return commands


def _settings(request: Request, data: str, variant: Variant, folder: Path) -> list[str]:
    batch, columns = request.entry.batch_size, request.entry.columns
    cell = Cell.of(variant.text, data, request.size, batch, request.seed)
    place = request.data[data]
    source = ["data=file", f"data.path={place}", "data.invalid=skip"]
    if place in ("real-world", "tiny-world"):
        source = [f"data={place}"]
    abilities = [name for name in ABILITIES if name in columns]
    return [
        *cell.method_settings,
        f"model={request.model}",
        *([f"model.path={request.path}"] if request.path else []),
        *source,
        "data.retained=null",
        "runner.order=shuffled",
        f"edits={request.size}",
        f"batch_size={cell.batch_size}",
        f"seed={request.seed}",
        f"runner.checkpoints={request.steps[:-1]}".replace(" ", ""),
        *_MEASURED,
        f"evaluation.fluency={20 if 'fluency' in columns else 0}",
        f"evaluation.ability=[{','.join(abilities)}]",
        *request.settings,
        f"output_dir={folder}",
    ]


def _single(request: Request) -> list[tuple[str, list[str]]]:
    commands = []
    for data in request.entry.data:
        for label, variant in request.variants.items():
            arguments = ["easyedit_neuron.studies.single_edits", *_places(request, data)]
            arguments += ["--methods", variant.text, "--perplexity", "0", "--out", str(request.out / data)]
            if "fluency" in request.entry.columns:
                arguments += ["--fluency", str(FLUENCY_TOKENS)]
            commands.append((f"{data}, {label}", arguments))
    return commands


def _study(request: Request) -> list[tuple[str, list[str]]]:
    commands = []
    for data in request.entry.data:
        arguments = [f"easyedit_neuron.studies.{request.entry.study}", *request.entry.arguments]
        arguments += [*_places(request, data), "--out", str(request.out / data)]
        commands.append((data, arguments))
    return commands


def _places(request: Request, data: str) -> list[str]:
    path = []
    if request.path:
        path = ["--model-path", request.path] if request.entry.protocol == "single" else []
    model = request.path if request.path and not path else request.model
    return ["--model", model, *path, "--data", request.data[data], "--edits", str(request.size)]
