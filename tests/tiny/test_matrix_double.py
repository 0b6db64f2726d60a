"""The seams of EasyEdit without EasyEdit: a part of the matrix (helpers/matrix.py) through the double, which
tests/easyedit/test_double.py compares with the real one."""

import pytest

from helpers.fake_easyeditor import load_double
from helpers.matrix import CALLS, METHODS, check_cell, check_no_trace

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def editor_class():
    return load_double().BaseEditor


SPREAD = [
    (row, kind, side, call)
    for row in METHODS
    for call, kind, side in zip(
        CALLS, ("llama", "gpt2", "qwen2", "llama", "gpt2", "qwen2", "llama", "gpt2"), ("left", "right") * 4
    )
]


@pytest.mark.parametrize("row, kind, side, call", SPREAD)
def test_cell(editor_class, row, kind, side, call, folder, here):
    check_cell(editor_class, row, kind, side, call, folder, here)


@pytest.mark.parametrize("row", METHODS)
def test_an_edit_that_was_put_back_leaves_no_trace(editor_class, row, folder):
    check_no_trace(editor_class, row, "llama", folder)
