"""The trackers by name, and what each needs."""

import importlib
import importlib.util
import re
from collections.abc import Sequence

from ...errors import HparamsError
from ...utils.shown import shown
from ...utils.suggest import did_you_mean
from .callback import RunCallback

_HERE = __package__
TRACKERS = {
    "csv": f"{_HERE}.csv_tracker:CSVTracker",
    "tensorboard": f"{_HERE}.tensorboard_tracker:TensorBoardTracker",
    "wandb": f"{_HERE}.wandb_tracker:WandbTracker",
    "mlflow": f"{_HERE}.mlflow_tracker:MLflowTracker",
}
"""Name -> class. All but ``csv`` need the package of their name, which is also the name of the extra."""


def check_callbacks(names: Sequence[str], source: str) -> None:
    """``HparamsError`` for a name that is no tracker, a package that is missing, or a name given twice."""
    for position, name in enumerate(names):
        if name in names[:position]:
            raise HparamsError(f"{source}: {shown(name)} is there twice; leave one out")
        if name in TRACKERS:
            if name != "csv" and importlib.util.find_spec(name) is None:
                remedy = f"pip install 'easyedit-neuron[{name}]'"
                raise HparamsError(f"{source}: {name} needs the package {name}, which is missing: {remedy}")
        elif not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            own = "package.module:Class names a RunCallback of yours."
            raise HparamsError(
                f"{source}: unknown tracker {shown(name)}: {did_you_mean(name, TRACKERS)} {own}"
            )


def make_callbacks(names: Sequence[str], source: str) -> list[RunCallback]:
    """The callbacks of these names; ``HparamsError`` as ``check_callbacks``, and for a class that cannot be
    loaded."""
    check_callbacks(names, source)
    return [_make(TRACKERS.get(name, name), source) for name in names]


def _make(target: str, source: str) -> RunCallback:
    module, _, attribute = target.partition(":")
    try:
        callback = getattr(importlib.import_module(module), attribute)()
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise HparamsError(f"{source}: {target} cannot be loaded: {reason}") from problem
    if not isinstance(callback, RunCallback):
        raise HparamsError(
            f"{source}: {target} is no RunCallback; derive it from easyedit_neuron.RunCallback"
        )
    return callback
