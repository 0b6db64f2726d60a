"""docs/reference/architectures.md says what runs: every cell is an edit by a method of a model of a type."""

import pytest

from easyedit_neuron.arch.table import ARCHITECTURES
from helpers.architecture_page import COLUMNS, cell, rows
from helpers.long import LONG
from helpers.tiny_models import ALL_TYPES

ROWS = rows()
# Always: what is not a plain yes, and every type with a method, every method with types.
SHORT = {(model_type, method) for model_type, row in ROWS.items() for method in row if row[method] != "yes"}
SHORT |= {(model_type, COLUMNS[number % len(COLUMNS)]) for number, model_type in enumerate(ALL_TYPES)}
CELLS = [
    pytest.param(model_type, method, marks=() if (model_type, method) in SHORT else LONG)
    for model_type, row in ROWS.items()
    for method in row
]


def test_every_type_and_method_has_a_cell():
    assert set(ROWS) == set(ARCHITECTURES) and len(CELLS) == len(ROWS) * len(COLUMNS)


@pytest.mark.parametrize("model_type, method", CELLS)
def test_cell(model_type, method):
    assert ROWS[model_type][method] == cell(model_type, method)
