"""Every method, call, architecture and padding side through EasyEdit's own editor; the cells are in
helpers/matrix.py."""

import pytest

from helpers.matrix import CELLS, KINDS, METHODS, MORE_CELLS, check_cell, check_no_trace


@pytest.mark.parametrize("row, kind, side, call", CELLS + MORE_CELLS)
def test_cell(easyeditor, row, kind, side, call, folder, tmp_path):
    check_cell(easyeditor.BaseEditor, row, kind, side, call, folder, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", METHODS)
def test_an_edit_that_was_put_back_leaves_no_trace(easyeditor, row, kind, folder):
    check_no_trace(easyeditor.BaseEditor, row, kind, folder)
