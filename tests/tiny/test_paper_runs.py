"""The papers' tables, made at a small size on the shipped model: one of each protocol; all with
EASYEDIT_NEURON_LONG=1."""

import dataclasses
import os
import re

import pytest

from easyedit_neuron.cli import main
from easyedit_neuron.cli.commands import paper
from easyedit_neuron.lifelong import EASYEDIT_PREFIX
from easyedit_neuron.papers.entry import entries
from helpers.long import LONG

ALWAYS = ("nmke-table-5", "fine-table-2", "fine-table-8")
RUN = {name: item for name, item in entries().items() if item.protocol != "none"}


def ours(item):
    """Labels of methods that run without EasyEdit."""
    return [
        label
        for label, text in item.methods.items()
        if text is not None and not text.startswith(EASYEDIT_PREFIX)
    ]


def mmlu(folder):
    """A folder with questions of the four subjects that a table compares."""
    for subject in ("biology", "chemistry"):
        for level in ("college", "high_school"):
            path = folder / "mmlu" / "test" / f"{level}_{subject}_test.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            questions = [f"{level} {subject} {i}?,Liro,Geir,Baimo,Tinde,{i % 4}" for i in range(15)]
            path.write_text("\n".join(questions))
    return folder


def words(item, folder, edits):
    places = {name: mmlu(folder.parent / "data") if name == "mmlu" else "tiny-world" for name in item.data}
    data = [f"data.{name}={place}" for name, place in places.items()]
    methods = [f"methods={','.join(ours(item))}"] if item.methods else []
    # What lm-eval measures is measured on other models than this one, which knows nothing of it.
    ability = ["evaluation.ability=[]"] if item.protocol == "sequential" else []
    return [
        "paper", "run", item.name, "model=tiny-llama", *data, *methods, f"edits={edits}", *ability,
        f"output_dir={folder}",
    ]  # fmt: skip


def in_a_small_model(item):
    """Layers that the papers name, taken at 4 layers: the same runs, in layers that there are."""

    def smaller(text):
        return re.sub(r"(layers?=\[?)([\d,]+)", lambda m: m[1] + ",".join(layers(m[2].split(","))), text)

    def layers(numbers):
        return sorted({str(int(number) % 3) for number in numbers})

    arguments, texts = list(item.arguments), {}
    for option in ("--layers", "--layer"):
        if option in arguments:
            start = arguments.index(option) + 1
            end = next(
                (i for i in range(start, len(arguments)) if arguments[i].startswith("--")), len(arguments)
            )
            arguments[start:end] = layers(arguments[start:end])
    for label, text in item.methods.items():
        texts[label] = None if text is None else smaller(text)
    return dataclasses.replace(item, methods=texts, arguments=arguments)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else LONG) for name in sorted(RUN)]
)
def test_a_table_is_made(name, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(RUN, name, in_a_small_model(RUN[name]))
    item = RUN[name]
    monkeypatch.setattr(paper, "entry", RUN.__getitem__)
    assert main(words(item, tmp_path / "out", 2)) == 0
    said = capfd.readouterr().out
    if item.protocol == "study":
        pages = [line for line in said.splitlines() if line.endswith((".html", ".csv"))]
        assert pages and all(os.path.getsize(page) > 20 for page in pages)
        return
    table = (tmp_path / "out" / f"{name}.md").read_text()
    assert "Another model than the paper's" in table and "difference |" not in table
    for label in ours(item):
        lines = [line for line in table.splitlines() if line.startswith(f"| {label} | 2 |")]
        assert len(lines) == len(item.data), label
        if "rel" in item.columns:
            cell = lines[0].split(" | ")[2 + list(item.columns).index("rel")]
            assert 0 <= float(cell.split(" ")[0]) <= item.scale
