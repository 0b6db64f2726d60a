"""The tier of the Triton kernels: on a GPU where there is one, else in Triton's interpreter; without Triton
it is left out."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    if importlib.util.find_spec("triton") is None:
        left_out = [item for item in items if HERE in item.path.parents]
        items[:] = [item for item in items if HERE not in item.path.parents]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter):
    if importlib.util.find_spec("triton") is None:
        terminalreporter.write_line("tests/gpu was left out: Triton is not here (pip install triton)")


@pytest.fixture
def device():
    """Where the kernels run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
