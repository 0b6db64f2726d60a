"""The cells of the bench: a run for each method, data set and seed, each in a folder of its own."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..hyperparameters.variant import Variant, as_file_name
from ..lifelong import EASYEDIT_PREFIX
from ..lifelong.easyedit_adapters import ONE_PROMPT_AT_A_TIME
from ..lifelong.run_folder import RunFolder
from ..registry import get_method
from .records import REAL_WORLD, Source

CHECKPOINTS = (10, 100, 300, 1000)
MEASURED = (
    *("evaluation.immediate=false", "evaluation.exact_match=false", "evaluation.whole_answers=true"),
    *("evaluation.first_token=300", "evaluation.retained=500", "evaluation.perplexity=150"),
    *("evaluation.answers=60", "runner.report=false", "runner.guard_every=null"),
)
"""Settings of every run: what is measured, always on all edits so far."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        method: of the registry, or EasyEdit's own as ``EasyEdit:GRACE``.
        changes: settings that make a variant of it, such as ``method.mask_stage=solve``.
        data: name of the data set.
        edits: number of sequential edits; the first ones of the data set in the order of the seed.
        batch_size: edits that are made together.
        seed: of the order, and of the run.
    """

    method: str
    changes: tuple[str, ...]
    data: str
    edits: int
    batch_size: int
    seed: int

    @classmethod
    def of(cls, text: str, data: str, edits: int, batch_size: int, seed: int) -> "Cell":
        """From the text of a ``Variant``. Methods that take one edit at a time have batches of one."""
        variant = Variant.of(text)
        method = variant.method
        batchable = not method.startswith(EASYEDIT_PREFIX) and get_method(method).batchable
        return cls(method, variant.changes, data, edits, batch_size if batchable else 1, seed)

    @property
    def label(self) -> str:
        return Variant(self.method, self.changes).label

    @property
    def measured_alone(self) -> bool:
        """Whether a run measures prompt by prompt, so that it cannot take over another's measurement."""
        return self.method in {EASYEDIT_PREFIX + name for name in ONE_PROMPT_AT_A_TIME}

    @property
    def name(self) -> str:
        """Of its folder and its file of rows."""
        numbers = f"{self.edits}", f"b{self.batch_size}", f"s{self.seed}"
        return as_file_name(self.data, self.method, *self.changes, *numbers)

    @property
    def method_settings(self) -> list[str]:
        """The settings of ``python -m easyedit_neuron`` that choose the method and its variant."""
        if self.method.startswith(EASYEDIT_PREFIX):
            name = self.method.removeprefix(EASYEDIT_PREFIX)
            return ["method=easyedit", f"method.alg={name}", *self.changes]
        return [f"method={self.method.lower()}", *self.changes]

    def settings(self, source: Source, model: str, folder: Path) -> list[str]:
        """The settings of ``python -m easyedit_neuron``."""
        data = ["data=real-world", "runner.order=shuffled"]
        if source.name != REAL_WORLD:
            file = source.ordered(self.seed)
            data = ["data=file", f"data.path={file}", "data.rephrasings=all", "data.invalid=skip"]
        data += [f"data.retained={source.retained}"] if source.retained else []
        data += [f"data.text={source.text}"] if source.text else []
        checkpoints = ",".join(str(count) for count in CHECKPOINTS if count < self.edits)
        numbers = [f"edits={self.edits}", f"batch_size={self.batch_size}", f"seed={self.seed}"]
        run = [f"runner.checkpoints=[{checkpoints}]", f"output_dir={folder}"]
        return [*self.method_settings, f"model={model}", *data, *numbers, *MEASURED, *run]


def run_cell(
    cell: Cell, source: Source, model: str, out: Path, others: Sequence[Cell], more: Sequence[str] = ()
) -> Path | None:
    """Run a cell, or the rest of it; its folder, or None where it ended in an error.

    What ``others``, cells of the same edits, have measured of the untouched model is taken over;
    ``more`` are settings of every cell.
    """
    folder = out / "runs" / cell.name
    if not RunFolder(folder).summary.is_file():
        alike = (other for other in others if other != cell and other.measured_alone == cell.measured_alone)
        measured = (out / "runs" / other.name for other in alike)
        untouched = next((path for path in measured if RunFolder(path).summary.is_file()), None)
        settings = cell.settings(source, model, folder)
        settings += [*more, *([f"runner.untouched={untouched}"] if untouched else [])]
        command = [sys.executable, "-m", "easyedit_neuron", *settings]
        if subprocess.run(command, check=False).returncode:
            return None
    return folder
