"""The scripts of ``examples/`` in this process, with hyperparameters that make them quick."""

import runpy
import sys
from pathlib import Path
from unittest import mock

import yaml

from easyedit_neuron import resources

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = {
    "v_num_grad_steps": 3,
    "mom2_n_samples": 300,
    "context_length": 0,
    "psem_size": 1,
    "epochs": 3,
    "num_steps": 3,
    "attribution_steps": 2,
    "ig_steps": 2,
}


def run(script, *arguments):
    """Run a script with command line arguments; relative paths are of the working directory."""
    with mock.patch.object(sys, "argv", [script, *map(str, arguments)]):
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")


def quick_file(source, folder, **changes):
    """A copy of a file of hyperparameters that takes few steps and texts; fields that it does not have are
    not added."""
    values = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    values |= {name: value for name, value in QUICK.items() if name in values} | changes
    path = Path(folder) / f"{values['alg_name']}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def quick(method, folder, **changes):
    """Of the shipped file for tiny-llama; statistics are kept in the folder."""
    source = resources.hparams_path(f"{method}/tiny-llama")
    stats = (
        {"stats_dir": str(Path(folder) / "stats")}
        if "mom2_dataset" in source.read_text(encoding="utf-8")
        else {}
    )
    return quick_file(source, folder, **stats, **changes)
