"""The tier on SmolLM2-135M-Instruct: it runs where ``easyedit-neuron model get`` has fetched the model."""

import os
from pathlib import Path

import pytest

from easyedit_neuron import resources

NAME = "smollm2-135m-instruct"
HERE = Path(__file__).parent
COMMAND = f"easyedit-neuron model get {NAME}"
# Tests may point the cache elsewhere later; the model is where it is now.
FOLDER = Path(resources.model_path(NAME))


def pytest_collection_modifyitems(items):
    if not FOLDER.is_dir():
        for item in items:
            if HERE in Path(item.path).parents:
                item.add_marker(pytest.mark.skip(reason=f"{NAME} is not here: {COMMAND}"))


def pytest_terminal_summary(terminalreporter):
    if not FOLDER.is_dir():
        terminalreporter.write_line(f"tests/real was skipped: {NAME} is not here ({COMMAND})")


@pytest.fixture(scope="package")
def smollm2():
    """(model, tokenizer), loaded once; tests leave the weights as they found them."""
    from types import SimpleNamespace

    import torch

    from easyedit_neuron.arch.load_model import load_model

    threads = torch.get_num_threads()
    # Unlike the tiny models, this one gains by threads; but with more of them than cores, those of the
    # tests' processes wait for each other.
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    model, tok, _ = load_model(SimpleNamespace(model_name=NAME, device="cpu"))
    yield model, tok
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def stats_dir(tmp_path_factory):
    """Statistics of a short text, shared by the tier: what an edit does hardly depends on them."""
    return tmp_path_factory.mktemp("stats")
