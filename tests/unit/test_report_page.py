"""The page: well-formed, complete, closed to the outside, reproducible, and safe from what a prompt wrote."""

import base64
import csv
import hashlib
import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from easyedit_neuron.errors import DataError
from easyedit_neuron.report import __main__ as command
from easyedit_neuron.report import figures
from easyedit_neuron.report.page import page
from easyedit_neuron.report.panel_plots import plot_of, run_styles
from easyedit_neuron.report.panels import Bars, sections
from easyedit_neuron.report.runs import read_runs
from easyedit_neuron.report.table import as_csv, number, shown
from helpers.run_folders import run_folder

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
HOSTILE = '</td><script>alert(1)</script> {} <img src=x onerror=alert(2)> & $x_1$ "quoted" \''


class Checker(HTMLParser):
    """Collects tags, ids and text, and fails where tags do not close in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.ids, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    run_folder(folder / "0", "MEMIT", 400, unmasked=True)
    run_folder(
        folder / "1",
        "NMKE",
        400,
        half=60,
        failed=tuple(range(3, 30)),
        prompt=HOSTILE,
        reason="Error: <b>bad</b>",
        hparams={"note": HOSTILE},
        layers=("3", "4"),
        answers=40,
    )
    run_folder(
        folder / "2",
        "<script>",
        400,
        done=250,
        leave_out=("fluency",),
        layers=("model.layers.0.mlp.<b>.weight",),
    )
    return read_runs([folder])


@pytest.fixture(scope="module")
def html(runs):
    return page(runs)


@pytest.fixture(scope="module")
def checked(html):
    return Checker(html)


def test_well_formed(html, checked):
    assert html.startswith("<!DOCTYPE html>") and checked.tags.count("h1") == 1
    drawn = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(drawn) > 30
    for svg in drawn:
        ElementTree.fromstring(svg)
    assert len(checked.ids) == len(set(checked.ids))
    targets = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', html))
    assert targets <= set(checked.ids)


def test_closed_to_the_outside(html, checked):
    """One script, this package's, is named by its hash in the policy; nothing else can run or be loaded."""
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert script == (Path(figures.__file__).parent / "answers.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|eval|fetch|import|http|\.on", script)
    assert checked.tags.count("script") == 1
    assert not {"iframe", "object", "embed", "link", "form", "base", "img"} & set(checked.tags)
    for _, name, value in checked.attributes:
        assert not name.startswith("on") and name != "src"
        if name in ("href", "xlink:href"):
            assert value.startswith("#")
    assert "@import" not in html and not re.findall(r"url\((?!#)", html)
    policy = [
        value
        for tag, name, value in checked.attributes
        if tag == "meta" and name == "content" and "default-src" in value
    ]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == [
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    ]
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", html))
    assert all(
        address.startswith("http://www.w3.org/") for address in addresses
    )  # names of the SVG namespaces


def test_hostile_texts_are_text(html, checked):
    text = "".join(checked.text)
    assert (
        "<script>alert(1)</script> 3 <img src=x onerror=alert(2)> & $x_1$" in text
        and "Error: <b>bad</b>" in text
    )
    # The page's own: the search, and the new object of each edit whose answers were kept.
    assert html.count("<script>") == 1 and checked.tags.count("b") == 40
    assert html.count("&lt;script&gt;alert(1)") > 40


def rows_of_answers(html):
    """Cells of the table of answers, as HTML."""
    (body,) = re.findall(r'<table class="answers">.*?<tbody>(.*?)</tbody>', html, re.S)
    return [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body)
    ]


def test_the_page_opens_with_the_edits_as_people_read_them(tmp_path):
    lines = {}
    folder = run_folder(tmp_path / "a", "MEMIT", 60, half=20, answers=30)
    for line in map(json.loads, (folder / "edits.jsonl").read_text().splitlines()):
        lines[line["edit"]] = line
    html = page(read_runs([folder]), plots=False)
    assert re.findall(r'<h2 id="(\w+)">', html)[:2] == ["answers", "results"]
    rows = rows_of_answers(html)
    assert [int(row[0]) - 1 for row in rows] == list(range(0, 60, 2))
    held = [row for row in rows if row[-1] == '<span class="right">✓ holds</span>']
    assert 0 < len(held) < 30 and f"{len(held)} of 30 edits hold (60 were made)." in html
    for number_, prompt, before, now, rephrased, neighbor, mark in rows:
        line = lines[int(number_) - 1]
        holds, changed = line["final"]["rewrite_acc"] == [1.0], line["edit"] % 3 == 0
        assert prompt == f"{line['request']['prompt']} <b>French</b>" and "Danish." in before
        right, wrong = '<span class="right">French.</span>', '<span class="wrong">✗ Dutch.</span>'
        assert now == (right if holds else wrong)
        assert "Again: " in rephrased and ("wrong" in rephrased) == (line["final"]["rephrase_acc"] != [1.0])
        assert "Beside: " in neighbor and "Polish." in neighbor and ("✗ Greek." in neighbor) == changed
        assert ("wrong" in neighbor) == changed and ("does not hold" in mark) == (not holds)


def test_answers_of_several_runs_stand_side_by_side(tmp_path):
    for name in ("MEMIT", "ROME"):
        run_folder(tmp_path / name, name, 6, answers=3)
    run_folder(tmp_path / "FT", "FT", 6)
    rows = rows_of_answers(page(read_runs([tmp_path]), plots=False))
    assert [row[:2] for row in rows] == [[str(n), name] for n in (1, 3, 5) for name in ("MEMIT", "ROME")]


def test_kinds_that_a_request_lacks_and_an_empty_answer(tmp_path):
    folder = run_folder(tmp_path / "a", "MEMIT", 1, answers=1)
    line = json.loads((folder / "edits.jsonl").read_text())
    line["answers"] = {"rewrite": line["answers"]["rewrite"] | {"final": ""}}
    (folder / "edits.jsonl").write_text(json.dumps(line) + "\n")
    (row,) = rows_of_answers(page(read_runs([folder]), plots=False))
    assert "(nothing)" in row[3] and row[4:6] == ["-", "-"]
    line["answers"]["rewrite"].pop("before")
    (folder / "edits.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match="edits.jsonl, line 1: not an edit of a run"):
        read_runs([folder])


def test_every_number_of_the_table_is_in_the_page(runs, html):
    cells = set(re.findall(r"<td[^>]*>([^<]*)</td>", html))
    for row in csv.DictReader(io.StringIO(as_csv(runs))):
        for name, value in row.items():
            if re.fullmatch(r"-?\d+", value):
                assert number(int(value)) in cells or value in cells, (name, value)
            elif re.fullmatch(r"-?[\d.]+(e-?\d+)?", value) and name not in (
                "seconds_evaluate",
                "seconds_total",
            ):
                assert number(float(value)) in cells, (name, value)
    for row in shown(runs):
        assert {cell for cell in row[1:] if cell[:1].isdigit()} <= cells


def test_every_point_that_is_drawn_stands_in_the_numbers_below(runs, html):
    figures = re.findall(r"<figure>.*?</figure>", html, re.S)
    panels = [panel for section in sections(runs) for panel in section.panels]
    assert len(figures) == len(panels)
    for figure, panel in zip(figures, panels):
        cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", figure)
        drawn = panel.parts.values() if isinstance(panel, Bars) else [series.y for series in panel.series]
        values = [value for part in drawn for value in part]
        assert {number(value) for value in values} <= set(cells), panel.title


def test_unfinished_failed_and_missing_are_shown(checked):
    text = "".join(checked.text)
    assert "Not finished, and shown as far as they are: <script> (unfinished: 250 of 400)" in text
    assert "no value: <script>" in text and "Peak memory of the GPU, MiB" in text
    assert "and 7 more, in edits.jsonl" in text
    assert "python -m easyedit_neuron method=MEMIT" in text


def test_the_same_bytes_for_the_same_runs(runs):
    assert page(runs[:1], plots=False) == page(runs[:1], plots=False)
    panels = sections(runs)[0].panels[:1] + sections(runs)[-1].panels[:1]
    plots = [plot_of(panel, run_styles(runs)) for panel in panels]
    assert [figures.svg(plot, "a") for plot in plots] == [figures.svg(plot, "a") for plot in plots]


def test_one_run(tmp_path):
    run_folder(tmp_path / "a", "NMKE", 5)
    text = page(read_runs([tmp_path / "a"]), plots=False)
    Checker(text)
    assert "script" not in text and 'id="answers"' not in text  # no answers were kept
    assert "<h1>Lifelong editing: NMKE</h1>" in text and "<svg" not in text and "matplotlib" in text


def test_a_run_that_has_only_begun(tmp_path):
    folder = run_folder(tmp_path / "a", "NMKE", 50, done=0)
    for name in ("edits.jsonl", "checkpoints.jsonl"):
        (folder / name).unlink()
    text = page(read_runs([folder]))
    Checker(text)
    assert "unfinished: 0 of 50" in text and "<figure>" not in text


# -- the command


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "available", lambda: False)  # the drawings are tested above
    folder = run_folder(tmp_path / "run", "NMKE", 12)
    assert command.main([str(folder), "--table", str(tmp_path / "t.csv")]) == 0
    shown_text = capsys.readouterr().out
    assert "NMKE" in shown_text and shown_text.endswith(f"\n{folder / 'report.html'}\n{tmp_path / 't.csv'}\n")
    Checker((folder / "report.html").read_text())
    assert (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: FOLDER"),
        (["nowhere"], "nowhere: there is no such folder"),
        (["run", "--table", "t.pdf"], "t.pdf: a table is written as"),
        (["run", "--out", "run/edits.jsonl/x.html"], "run/edits.jsonl"),
        (["run", "--wat"], "unrecognized arguments: --wat"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    run_folder(tmp_path / "run", "NMKE", 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("easyedit_neuron.report.page.page", lambda runs, plots: "")
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert error.startswith("easyedit_neuron.report: error: ") and message in error


def test_without_matplotlib(tmp_path, monkeypatch, capsys):
    folder = run_folder(tmp_path / "run", "NMKE", 12)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert command.main([str(folder), "--out", str(tmp_path / "page.html")]) == 0
    error = capsys.readouterr().err
    assert error == f"easyedit_neuron.report: without plots: {figures.INSTALL}\n" and "[report]" in error
    assert "<svg" not in (tmp_path / "page.html").read_text()
    with pytest.raises(SystemExit) as stop:
        command.main([str(folder), "--png", str(tmp_path / "png")])
    assert (
        stop.value.code == 2
        and capsys.readouterr().err == f"easyedit_neuron.report: error: {figures.INSTALL}\n"
    )
    assert not (tmp_path / "png").exists() and not (folder / "report.html").exists()
