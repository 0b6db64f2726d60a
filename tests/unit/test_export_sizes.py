"""Arguments of export and import, and the table of sizes."""

import pytest

from easyedit_neuron.cli.commands.common import select_edits
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.export import Size, size_table
from easyedit_neuron.export.estimate import LLAMA_3_8B, Touched, llama_3_8b, records, table


def test_numbers_and_ranges():
    ids = [1, 2, 3, 5, 8, 9]  # 4, 6 and 7 were taken back
    assert select_edits(ids, None) == ids
    assert (
        select_edits(ids, "3") == [3]
        and select_edits(ids, "3,5-9") == [3, 5, 8, 9]
        and select_edits(ids, "8, 1-2,1") == [1, 2, 8]
    )
    for wanted, words in (
        ("4", "no edit 4 is in the weights; there are 1 to 9"),
        ("6-7", "no edit 6-7"),
        ("10-12", "edit 10-12"),
        ("x", "'x' is no number or range"),
        ("3-", "'3-' is no number"),
        ("", "'' is no number"),
    ):
        with pytest.raises(NeuronEditError, match=words):
            select_edits(ids, wanted)
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


def test_estimates_by_hand():
    one = Touched((4, 10), rank=3, rows=4, columns=2)
    assert one.adapter() == 4 * 3 * 14
    assert (
        Touched((4, 10), rank=9, rows=4, columns=9).adapter() == 4 * 4 * 14
    )  # no more than the smaller side
    assert one.sparse(2) == 2 * (4 * 2 + 8)  # two columns of four 16-bit numbers, and their own numbers
    nmke = llama_3_8b("NMKE", 10)
    assert len(nmke) == 5 and sum(t.adapter() for t in nmke) == 5 * 4 * 10 * (4096 + 14336)
    assert sum(t.sparse(2) for t in llama_3_8b("MEMIT", 10)) == 5 * 4096 * (14336 * 2 + 8)  # every row
    kne = llama_3_8b("KNE", 1)
    assert sum(t.rows * t.shape[1] for t in kne) == pytest.approx(0.01 * LLAMA_3_8B["parameters"], rel=0.01)
    fine = llama_3_8b("FiNE", 100)
    assert len(fine) == 29 and sum(t.columns for t in fine) == pytest.approx(1000, rel=0.02)
    assert records("FiNE", 100) == 1000 * 4096 * 4
    assert records("KNE", 2) == pytest.approx(2 * 4 * 0.01 * LLAMA_3_8B["parameters"], rel=0.01)
    assert records("NMKE", 1) == 5 * (4 * (4096 + 14336 + 14336) + 14336)  # factors, key, mask
    assert "| whole model (bfloat16) | | | | 16,061 |" in table()
