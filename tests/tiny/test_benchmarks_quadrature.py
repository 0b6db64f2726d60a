"""The program that counts the points of integrated gradients: its measures by hand, and from end to end on
the shipped model."""

import json

import pytest
import torch

from benchmarks import quadrature


def test_measures_by_hand():
    reference = torch.tensor([[[3.0, 4.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    other = torch.tensor([[[3.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    assert float(quadrature.distance(reference, other)) == pytest.approx((16 + 9) ** 0.5 / 26**0.5)
    assert float(quadrature.agreement(reference, other)) == 0.5  # of the two highest, 0 and 1, it has 0


def test_it_runs(tmp_path, capsys):
    file = tmp_path / "result.json"
    assert (
        quadrature.main(
            [
                "--edits",
                "2",
                "--points",
                "2",
                "8",
                "--reference",
                "24",
                "--layers",
                "1",
                "3",
                "--json",
                str(file),
            ]
        )
        == 0
    )
    rows = {
        (row["rule"], row["points"], row["layer"]): row for row in json.loads(file.read_text())["results"]
    }
    assert len(rows) == 6
    for layer in (1, 3):
        riemann, two, eight = (rows[key + (layer,)] for key in (("right", 20), ("gauss", 2), ("gauss", 8)))
        assert eight["largest"] < min(two["largest"], riemann["largest"] / 10) and eight["agreement"] > 0.99
    assert capsys.readouterr().out.count("\n") == 8
