"""The command for the papers' tables: what it runs, and what it prints beside the published numbers."""

import dataclasses
import json

import pytest

from easyedit_neuron import resources
from easyedit_neuron.cli import main
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.hyperparameters.variant import Variant
from easyedit_neuron.lifelong.run_folder import RunFolder
from easyedit_neuron.papers import comparing
from easyedit_neuron.papers.entry import Entry, Group, entries
from easyedit_neuron.papers.measures import of_record
from easyedit_neuron.papers.page import page
from easyedit_neuron.papers.running import Request, run
from easyedit_neuron.registry import get_method
from easyedit_neuron.studies.single_edits import record_row
from helpers.pages import REPOSITORY
from helpers.run_folders import run_folder

PUBLISHED = {"NMKE": [[0.9, 0.8, 0.7], [0.6, None, 0.5]]}
SEQUENTIAL = Entry(
    name="nmke-table-0",
    title="Two sizes",
    protocol="sequential",
    groups=[Group("zsre", "llama3-8b-instruct", PUBLISHED)],
    columns=["rel", "gen", "loc"],
    methods={"NMKE": "NMKE method.mask_stage=post", "PMET": None},
    steps=[10, 100],
)
SINGLE = Entry(
    name="fine-table-0",
    title="Each alone",
    protocol="single",
    groups=[
        Group(
            "wikidata_counterfact",
            "llama3-8b",
            {"FiNE": [[99.0, 50.0, 560.0]]},
            {"FiNE": [[0.25, 3.0, None]]},
        )
    ],
    columns=["rel", "saa", "fluency"],
    methods={"FiNE": "FiNE"},
    records=3,
    scale=100,
)


def request(entry, folder, model=None, **changes):
    model = model or entry.models[0]
    data = {name: f"/data/{name}.json" for name in entry.data}
    return Request(entry=entry, model=model, path=None, data=data, out=folder, **changes)


def commands(monkeypatch, of):
    ran = []

    class Done:
        returncode = 0

    monkeypatch.setattr("subprocess.run", lambda words, check: ran.append(words[2:]) or Done())
    assert run(of) == []
    return ran


def test_a_variant_is_a_method_and_its_settings():
    variant = Variant.of("FiNE method.neuron_num=5 method.layers=[1,2]")
    assert variant.fields() == {"neuron_num": 5, "layers": [1, 2]}
    assert (variant.label, variant.text) == (
        "FiNE (neuron_num=5, layers=[1,2])",
        "FiNE method.neuron_num=5 method.layers=[1,2]",
    )
    for text in ("FiNE 5", "FiNE --x"):
        with pytest.raises(HparamsError, match="is no setting"):
            Variant.of(text)
    with pytest.raises(HparamsError, match="'runner.order' is no hyperparameter"):
        Variant.of("FiNE runner.order=file").fields()


def test_a_sequential_table_is_one_run_per_method(tmp_path, monkeypatch):
    (words,) = commands(monkeypatch, request(SEQUENTIAL, tmp_path, edits=50, settings=["runner.x=1"]))
    assert words[:2] == ["easyedit_neuron", "method=nmke"]
    folder = tmp_path / "zsre-NMKE-method.mask_stage-post-50-s0"
    for setting in ("method.mask_stage=post", "model=llama3-8b-instruct", "edits=50",
                    "data.path=/data/zsre.json", "runner.checkpoints=[10]", "data.sample_seed=0",
                    "evaluation.fluency=0", "evaluation.ability=[]", "runner.x=1",
                    f"output_dir={folder}"):  # fmt: skip
        assert setting in words, setting
    assert request(SEQUENTIAL, tmp_path).steps("zsre") == [10, 100]
    assert request(SEQUENTIAL, tmp_path, edits=10).steps("zsre") == [10]


def test_single_edits_are_made_by_the_study(tmp_path, monkeypatch):
    (words,) = commands(monkeypatch, request(SINGLE, tmp_path))
    assert "easyedit_neuron.studies.single_edits" in words
    assert words[words.index("--edits") + 1] == "3" and words[words.index("--fluency") + 1] == "100"
    assert words[words.index("--methods") + 1] == "FiNE"


def test_published_numbers_stand_below_those_of_the_same_model(tmp_path):
    of = request(SEQUENTIAL, tmp_path, edits=10)
    folder = run_folder(of.run_folder("zsre", of.variants["NMKE"]), "NMKE", 10)
    kinds = {"locality": {"a_acc": [1.0], "b_acc": [0.0]}, "portability": {}}
    finals = [{"rewrite_acc": [rel], "rephrase_acc": [0.5], **kinds} for rel in (1.0, 0.5)]
    RunFolder(folder).write_final(10, [{"edit": i, "final": final} for i, final in enumerate(finals)])
    lines = comparing.comparison(of).splitlines()
    assert "| NMKE | 10 | 0.75 [0.5, 1] | 0.5 [0.5, 0.5] | 0.5 [0.5, 0.5] |" in lines
    assert "|   paper |  | 0.9 | 0.8 | 0.7 |" in lines
    assert "|   difference |  | -0.15 | -0.3 | -0.2 |" in lines
    other = comparing.comparison(request(SEQUENTIAL, tmp_path, model="llama3-8b", edits=10))
    assert "Another model" in other and "paper |" not in other


def test_what_a_paper_defines_and_does_not_print_stands_beside(tmp_path):
    entry = dataclasses.replace(SEQUENTIAL, beside=["rel_exact", "loc_exact"])
    of = request(entry, tmp_path, edits=10)
    folder = run_folder(of.run_folder("zsre", of.variants["NMKE"]), "NMKE", 10)
    final = {"rewrite_acc": [0.5], "rephrase_acc": [1.0], "locality": {"a_acc": [1.0]}, "portability": {}}
    RunFolder(folder).write_final(10, [{"edit": 0, "final": final}])
    lines = comparing.comparison(of).splitlines()
    assert "| method | edits | rel | gen | loc | rel_exact | loc_exact |" in lines
    assert "| NMKE | 10 | 0.5 [0.5, 0.5] | 1 [1, 1] | 1 [1, 1] | 0 [0, 0] | 1 [1, 1] |" in lines
    assert "|   paper |  | 0.9 | 0.8 | 0.7 | - | - |" in lines
    assert "|   difference |  | -0.4 | +0.2 | +0.3 | - | - |" in lines


def test_percentages_and_kinds_of_single_edits(tmp_path):
    of = request(SINGLE, tmp_path)
    rows = [
        {"rel": 1.0, "kinds": {"portability.Subject_Aliasing": saa}, "fluency": 5.5, "failed": False}
        for saa in (0.0, 1.0)
    ]
    file = of.rows_file("wikidata_counterfact", of.variants["FiNE"])
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = comparing.comparison(of).splitlines()
    assert "| FiNE | 2 | 100 [100, 100] | 50 [0, 100] | 550 [550, 550] |" in lines
    assert (
        "|   paper |  | 99 (0.25) | 50 (3) | 560 |" in lines
        and "|   difference |  | +1 | +0 | -10 |" in lines
    )


def test_columns_of_a_record():
    metrics = {
        "rewrite_acc": [0.5, 1.0],
        "locality": {"Relation_Specificity_acc": [1.0], "Forgetfulness_acc": [0.0, 0.5]},
        "portability": {"one_hop_acc": [0.25], "Subject_Aliasing_acc": []},
    }
    row = record_row(metrics)
    values = {column: of_record(row, column) for column in ("rel", "gen", "loc", "ra", "saa", "fa")}
    assert values == {"rel": 0.75, "gen": None, "loc": 0.625, "ra": 0.25, "saa": None, "fa": 0.25}


def test_list_and_show(capsys):
    assert main(["paper", "list"]) == 0
    listed = capsys.readouterr().out
    for name, item in entries().items():
        assert name in listed and item.title in listed
    assert main(["paper", "show", "nmke-table-1"]) == 0
    shown = capsys.readouterr().out
    assert "published, zsre, llama3-8b-instruct" in shown and "0.93" in shown and "sequential" in shown


@pytest.mark.parametrize(
    "words, said",
    [
        (["list", "rome"], "no paper 'rome'"),
        (["show"], "needs a name"),
        (["show", "nmke-table-99"], "no table or figure"),
        (["run", "nmke-table-1"], "model=NAME is missing"),
        (["run", "nmke-table-1", "model"], "'model' is no setting"),
        (["run", "nmke-table-1", "model=tiny-llama"], "needs its data: data.zsre=FILE data.counterfact=FILE"),
        (["run", "nmke-table-1", "model=tiny-llama", "data.path=x"], "has no data.path"),
        (
            ["run", "nmke-table-1", "model=tiny-llama", "data.zsre=tiny-world", "data.counterfact=no.json"],
            "no.json",
        ),
        (
            ["run", "nmke-table-1", "model=tiny-llama", "data.zsre=tiny-world", "data.counterfact=tiny-world",
             "methods=NMKO"], "no method 'NMKO'",
        ),
        (
            ["run", "nmke-table-1", "model=tiny-llama", "data.zsre=tiny-world", "data.counterfact=tiny-world",
             "edits=0"], "edits=0: must be a whole number of at least 1",
        ),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["paper", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_every_run_of_a_table_has_settings():
    """Each of our methods has a file for each model of each table, or is written down here as having none."""
    shipped, none_published = resources.shipped_hparams(), {"llama2-13b", "llama3.2-1b"}
    missing = set()
    for entry in entries().values():
        for text in filter(None, entry.methods.values()):
            method = Variant.of(text).method
            if method not in ("Untouched", "IKE") and not method.startswith("EasyEdit:"):
                names = (f"{get_method(method).name}/{model}" for model in entry.models)
                missing |= {name for name in names if name not in shipped}
    assert {name.split("/")[1] for name in missing} <= none_published, missing
    assert {name.split("/")[0] for name in missing} <= {"ROME", "MEMIT"}, missing


def test_the_page_is_that_of_the_entries():
    results = REPOSITORY / "docs" / "results"
    assert (results / "papers.md").read_text(encoding="utf-8") == page(results / "data" / "papers")
