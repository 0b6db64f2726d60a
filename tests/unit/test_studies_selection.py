"""Sweeps as panels and a table, and what every study writes."""

import csv

import pytest

from easyedit_neuron.studies import selection
from easyedit_neuron.studies.output import Result, Table, cells, page
from easyedit_neuron.studies.plots import Histogram, Lines, Marks, Scatter, Stacked
from helpers.run_folders import run_folder

pytest.importorskip("matplotlib")


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_panel_and_rows_for_every_sweep(tmp_path, capsys):
    for number, (neurons, ratio) in enumerate(
        (("general", "entropy"), ("both", "fixed"), ("both", "entropy"))
    ):
        run_folder(
            tmp_path / "fig6" / str(number),
            edits=10,
            hparams={"neurons": neurons, "ratio": ratio, "gamma": 3.0},
        )
    run_folder(
        tmp_path / "gamma" / "0",
        edits=10,
        hparams={"neurons": "both", "ratio": "entropy", "gamma": 10.0},
        density=0.4,
    )
    centre = run_folder(
        tmp_path / "centre", edits=10, hparams={"neurons": "both", "ratio": "entropy", "gamma": 3.0}
    )
    out = tmp_path / "out"
    assert selection.main([str(tmp_path / "fig6"), "--out", str(out)]) == 0
    assert [row["setting"] for row in read(out / "selection.csv")] == [
        "neurons both, ratio entropy",
        "neurons both, ratio fixed",
        "neurons general, ratio entropy",
    ]
    assert capsys.readouterr().out.split() == [
        str(out / name) for name in ("selection.csv", "selection.png", "selection.html")
    ]
    assert selection.main([str(tmp_path / "gamma"), "--centre", str(centre), "--out", str(out)]) == 0
    rows = read(out / "selection.csv")
    assert [(row["setting"], row["density"]) for row in rows] == [("gamma 3.0", "0.2"), ("gamma 10.0", "0.4")]
    assert all(row["edits"] == "10" and 0 < float(row["rel"]) <= 1 for row in rows)
    assert (out / "selection.png").read_bytes()[:4] == b"\x89PNG"
    text = (out / "selection.html").read_text()
    assert "<svg" in text and "gamma 10.0" in text and "<script" not in text


def test_runs_with_other_seeds_are_one_setting(tmp_path, capsys):
    for gamma, densities in ((3.0, (0.2, 0.3)), (10.0, (0.4, 0.4))):
        for seed, density in enumerate(densities):
            run_folder(
                tmp_path / "gamma" / f"{gamma}-{seed}",
                edits=10,
                seed=seed,
                hparams={"gamma": gamma},
                density=density,
            )
    sweep = selection.read_sweep(tmp_path / "gamma")
    assert [len(setting.runs) for setting in sweep.settings] == [2, 2] and sweep.repeated
    assert selection.main([str(tmp_path / "gamma"), "--out", str(tmp_path / "out")]) == 0
    rows = read(tmp_path / "out" / "selection.csv")
    assert [(row["setting"], row["runs"]) for row in rows] == [("gamma 3.0", "2"), ("gamma 10.0", "2")]
    assert [float(row["density"]) for row in rows] == pytest.approx([0.25, 0.4])
    assert [float(row["density_std"]) for row in rows] == pytest.approx([0.1 / 2**0.5, 0.0])
    assert "standard deviation" in (tmp_path / "out" / "selection.html").read_text()

    run_folder(tmp_path / "gamma" / "more", edits=10, seed=2, hparams={"gamma": 3.0})
    capsys.readouterr()
    assert selection.main([str(tmp_path / "gamma"), "--out", str(tmp_path / "out")]) == 2
    assert "gamma 10.0 was measured with (seed, data.skip)" in capsys.readouterr().err


def test_other_folders_are_refused(tmp_path, capsys):
    run_folder(tmp_path / "same" / "0", edits=10)
    run_folder(tmp_path / "methods" / "0", edits=10)
    run_folder(tmp_path / "methods" / "1", edits=20)
    run_folder(tmp_path / "running" / "0", edits=20, done=10)
    for name, words in (
        ("same", "1 with no such difference"),
        ("methods", "also differ in edits"),
        ("running", "unfinished"),
        ("none", "no such folder"),
    ):
        assert selection.main([str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


ROWS = [{"name": "a|b", "value": 0.5, "note": "<b>"}, {"name": "c", "value": None, "more": 3}]


def test_tables_for_people():
    assert cells(ROWS) == [
        ["name", "value", "note", "more"],
        ["a|b", "0.500", "<b>", "-"],
        ["c", "-", "-", "3"],
    ]


def test_pages_hold_every_plot_and_number_and_are_the_same_every_time():
    values, errors = {"x": [0.1, -0.2], "y": [None, 0.3]}, {"x": [0.1, 0.1]}
    plots = [
        Stacked("Stacked", [0, 1], {"x": [0.25, 0.5], "y": [0.5, 0.25]}, "layer", "share"),
        Lines("Lines", {"x": ([0, 1], [1.0, None])}, "layer", "value"),
        Lines("Logarithmic", {"x": ([1, 100], [1.0, 3.0])}, "reach", "damage", "xy"),
        Marks("Marks", ["one", "two"], values, "", "drop", errors),
        Histogram("Lengths", {"x": [1.0, 1.0], "y": [1.0, 100.0]}, "length", "rows", log=True),
        Histogram("Equal lengths", {"x": [2.0, 2.0]}, "length", "rows"),
        Scatter("Plane", [(0, 0)], [(1, 1)], ("base", "x"), 1, (0, 1, 0, 1)),
    ]
    tables = [
        Table("t", "Open", ROWS),
        Table("u", "Folded", ROWS, folded=True),
        Table("v", "Raw", ROWS, raw=True),
    ]
    result = Result("study", "A study & more", "First.\n\nSecond.", plots, tables)
    text = page(result)
    assert (
        text == page(result)
        and text.count("<svg") == 7
        and "A study &amp; more" in text
        and "<p>Second.</p>" in text
    )
    assert (
        text.count("&lt;b&gt;") == 2
        and text.count("<details>") == 1
        and "Raw" not in text
        and "mathdefault" not in text
    )
    # the bars of the second part begin where those of the first end
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    plots[0].draw(axes)
    assert [(bar.get_y(), bar.get_height()) for bar in axes.patches] == [
        (0, 0.25),
        (0, 0.5),
        (0.25, 0.5),
        (0.5, 0.25),
    ]
