"""Tiers by folder, a quiet and offline process, and the shipped model loaded once."""

import copy
import logging
import os
from pathlib import Path

# Before torch is imported anywhere: the tests' matrices are so small that a second thread mostly waits for
# the first, and on a busy machine it waits for everybody. OMP_NUM_THREADS=... in the environment still
# decides.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

TESTS_DIR = Path(__file__).resolve().parent
TIERS = ("unit", "tiny", "real", "easyedit", "gpu")


def pytest_configure(config):
    for tier in TIERS:
        config.addinivalue_line("markers", f"{tier}: tests below tests/{tier}")


def pytest_collection_modifyitems(items):
    for item in items:
        tier = Path(item.path).relative_to(TESTS_DIR).parts[0]
        if tier in TIERS:
            item.add_marker(getattr(pytest.mark, tier))


@pytest.fixture(autouse=True)
def _root_logger():
    """Programs called as functions configure logging, with handlers on a stream that the test closes."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    for handler in logging.root.handlers[:]:
        if type(handler) is logging.StreamHandler and handler not in handlers:
            logging.root.removeHandler(handler)
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def _shipped_model():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from easyedit_neuron import resources

    folder = resources.model_path("tiny-llama")
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def shipped_model(_shipped_model):
    """(model, tokenizer): deep copies of the shipped model, loaded from disk once per session."""
    return copy.deepcopy(_shipped_model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of the module's tests: models, and statistics of their first weights, which are measured
    once."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
