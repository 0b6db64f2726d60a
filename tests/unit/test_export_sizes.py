"""Arguments of export and import, and the table of sizes."""

import pytest

from easyedit_neuron.cli.commands.common import select_edits
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.export import Size, size_table


def test_numbers_and_ranges():
    ids = [1, 2, 3, 5, 8, 9]  # 4, 6 and 7 were taken back
    assert select_edits(ids, None) == ids
    assert (
        select_edits(ids, "3") == [3]
        and select_edits(ids, "3,5-9") == [3, 5, 8, 9]
        and select_edits(ids, "8, 1-2,1") == [1, 2, 8]
    )
    for selection, words in (
        ("4", "no edit 4 is in the weights; there are 1 to 9"),
        ("6-7", "no edit 6-7"),
        ("10-12", "edit 10-12"),
        ("x", "'x' is no number or range"),
        ("3-", "'3-' is no number"),
        ("", "'' is no number"),
        ("²", "'²' is no number"),
        ("9" * 5000, "is no number or range"),
    ):
        with pytest.raises(NeuronEditError, match=words):
            select_edits(ids, selection)
    with pytest.raises(NeuronEditError, match="the log holds none"):
        select_edits([], "1")


def test_table_of_sizes():
    text = size_table(
        [
            Size("adapter", 2_500, 4, "rank 2, nothing lost"),
            Size("cut adapter", None, 4, "cannot be"),
            Size("unedited model", 10_000, 0),
        ]
    )
    assert text.splitlines() == [
        "form             bytes  per edit  of the model",
        "adapter          2,500       625        25.00%  rank 2, nothing lost",
        "cut adapter          -         -             -  cannot be",
        "unedited model  10,000                 100.00%",
    ]
