"""Sweeps of PNKE as a table and a plot."""

import json

from easyedit_neuron.studies import pnke


def run(folder, rel, density=0.1, **hparams):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({
        "hparams": {"alpha": 0.5, "gamma": 10.0, **hparams}, "layers": {"1": {"density": density}, "2": {"density": density}},
        "results": {"final": {"rewrite_acc": rel, "rephrase_acc": 0.5, "retained": None}}}))
    return folder


def test_one_panel_and_a_few_lines_for_every_sweep(tmp_path):
    for number, (alpha, rel) in enumerate(((1.0, 0.25), (0.0, 0.75))):
        run(tmp_path / "alpha" / str(number), rel, alpha=alpha)
    run(tmp_path / "gamma" / "0", 1.0, density=0.02, gamma=40.0)
    centre = run(tmp_path / "centre", 0.875)
    assert pnke.main([str(tmp_path / "alpha"), str(tmp_path / "gamma"), "--centre", str(centre), "--out", str(tmp_path / "made")]) == 0
    assert (tmp_path / "made.png").read_bytes()[:4] == b"\x89PNG"
    lines = (tmp_path / "made.md").read_text().splitlines()[2:]
    assert lines == ["| alpha | 0.0 | 10.0% | 0.750 | 0.500 | - |", "| alpha | 0.5 | 10.0% | 0.875 | 0.500 | - |",
                     "| alpha | 1.0 | 10.0% | 0.250 | 0.500 | - |", "| gamma | 10.0 | 10.0% | 0.875 | 0.500 | - |",
                     "| gamma | 40.0 | 2.0% | 1.000 | 0.500 | - |"]


def test_other_folders_are_refused(tmp_path, capsys):
    run(tmp_path / "same" / "0", 1.0)
    run(tmp_path / "two" / "0", 1.0)
    run(tmp_path / "two" / "1", 1.0, alpha=0.0, gamma=1.0)
    for name, words in (("same", "1 runs and none"), ("two", "['alpha', 'gamma']"), ("none", "differ in one option")):
        assert pnke.main([str(tmp_path / name), "--out", str(tmp_path / "made")]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "two" / "1" / "summary.json").write_text("{}")
    assert pnke.main([str(tmp_path / "two"), "--out", str(tmp_path / "made")]) == 2
    assert "no summary of a finished run" in capsys.readouterr().err and not (tmp_path / "made.png").exists()
