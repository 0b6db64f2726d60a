"""The tables of the papers: their form, names that exist here, and numbers typed again from the papers."""

import importlib.util
import re

import pytest
import yaml

from easyedit_neuron import resources
from easyedit_neuron.lifelong import EASYEDIT_PREFIX
from easyedit_neuron.papers.entry import entries
from easyedit_neuron.papers.measures import MEASURES, OF_RECORDS, OF_STUDIES
from easyedit_neuron.registry import get_method
from easyedit_neuron.studies.single_edits import UNTOUCHED

TABLES = resources.PACKAGE_DIR / "papers" / "tables"
PAPERS = ("nmke", "pnke", "fine", "kne")
PROTOCOLS = {"sequential", "single", "study", "none"}
NUMBERED = {  # paper -> numbers of its tables, of its experimental figures
    "nmke": (range(1, 12), [2, 4, 5, 6, 7, 8, 9, 10, 11]),
    "pnke": (range(1, 4), [1, 3, 4, 5, 6]),
    "fine": (range(1, 16), range(1, 10)),
    "kne": (range(1, 3), [2, 3, 4, 5]),
}
DATA = {"zsre", "counterfact", "wikidata_counterfact", "wikidata_recent", "knowedit_zsre", "mmlu"}
MODELS = {
    *("llama3-8b-instruct", "llama3-8b", "llama3.2-1b", "llama2-7b", "llama2-7b-chat", "llama2-13b"),
    *("gpt-j-6B", "gpt2-xl", "qwen2.5-7b"),
}
EASYEDIT_FIELDS = {
    "FT": {"objective_optimization"},
    "LoRA": {"lora_type"},
    **dict.fromkeys(("KN", "PMET", "WISE"), set()),
}
"""Methods of EasyEdit that the tables name -> the fields that they set."""
COLUMNS = set(MEASURES) - set(OF_STUDIES)


class UniqueKeys(yaml.SafeLoader):
    """YAML in which no mapping has a key twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice: {keys}"
        return super().construct_mapping(node, deep)


def read(paper):
    return yaml.load((TABLES / f"{paper}.yaml").read_text(encoding="utf-8"), UniqueKeys)


ENTRIES = {name: entry for paper in PAPERS for name, entry in read(paper).items()}
each_entry = pytest.mark.parametrize("name", ENTRIES)


def test_every_file_is_of_a_paper():
    assert {path.stem for path in TABLES.iterdir()} == set(PAPERS)
    for path in TABLES.iterdir():
        assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 120


def test_names_are_of_their_paper_and_unique():
    assert len(ENTRIES) == sum(len(read(paper)) for paper in PAPERS)
    for paper in PAPERS:
        for name in read(paper):
            assert re.fullmatch(rf"{paper}-(table|figure)-b?[1-9]\d?[a-e]?", name)
    assert entries().keys() == ENTRIES.keys()


@pytest.mark.parametrize("paper", PAPERS)
def test_no_table_or_figure_is_left_out(paper):
    for kind, numbers in zip(("table", "figure"), NUMBERED[paper]):
        names = [name for name in read(paper) if name.startswith(f"{paper}-{kind}-")]
        assert {int(re.search(r"\d+", name)[0]) for name in names} == set(numbers)


@each_entry
def test_form(name):
    entry = ENTRIES[name]
    protocol = entry["protocol"]
    assert protocol in PROTOCOLS
    assert entry["title"] and not entry["title"].endswith(".") and entry["notes"].endswith(".")
    assert all(isinstance(need, str) for need in entry["needs"])
    assert not any("," in label for label in entry.get("methods", ())), "the command divides labels by commas"
    if protocol == "none":
        assert entry["needs"], "what would be needed"
        return
    assert entry["scale"] in (1, 100) and entry["groups"]
    if protocol == "sequential":
        assert entry["steps"] == sorted(set(entry["steps"])) and "records" not in entry
    if protocol == "single":
        assert "steps" not in entry and (entry["records"] is None or entry["records"] > 0)
    if protocol in ("sequential", "single"):
        assert entry["batch_size"] >= 1 and entry["methods"]
        assert {*entry["columns"], *entry.get("beside", ())} <= COLUMNS
    if protocol == "study":
        assert importlib.util.find_spec(f"easyedit_neuron.studies.{entry['study']}")
        assert all(isinstance(argument, str) for argument in entry["arguments"])
        assert set(entry.get("columns", ())) <= set(OF_STUDIES)


@each_entry
def test_data_and_models_are_of_the_list(name):
    for group in ENTRIES[name]["groups"]:
        assert group["data"] in DATA and group["model"] in MODELS


@each_entry
def test_rows_have_the_columns_and_the_steps(name):
    entry = ENTRIES[name]
    rows_of_a_label = len(entry["steps"]) if entry["protocol"] == "sequential" else 1
    for group in entry["groups"]:
        published, half_widths = group.get("published", {}), group.get("half_widths", {})
        if entry["protocol"] in ("sequential", "single"):  # the rows of a study are no methods
            assert published.keys() <= entry["methods"].keys()
        for rows in (*published.values(), *half_widths.values()):
            assert len(rows) == rows_of_a_label
            assert all(len(row) == len(entry["columns"]) for row in rows)
            assert all(cell is None or cell >= 0 for row in rows for cell in row)
        if half_widths:
            assert published.keys() == half_widths.keys()
        for label, rows in half_widths.items():
            missing = [[cell is None for cell in row] for row in published[label]]
            assert missing == [[cell is None for cell in row] for row in rows]


@each_entry
def test_shares_are_on_the_scale(name):
    """At most 1, or at most 100 where they are percentages."""
    entry = ENTRIES[name]
    for group in entry["groups"]:
        for row in (row for rows in group.get("published", {}).values() for row in rows):
            for column, cell in zip(entry["columns"], row):
                assert column not in OF_RECORDS or cell is None or cell <= entry["scale"]


@each_entry
def test_methods_and_settings_exist(name):
    for text in (ENTRIES[name].get("methods") or {}).values():
        if text in (None, UNTOUCHED):
            continue
        method, *settings = text.split()
        values = dict(map(setting_of, settings))
        if method.startswith(EASYEDIT_PREFIX):
            assert values.keys() <= EASYEDIT_FIELDS[method.removeprefix(EASYEDIT_PREFIX)]
            continue
        assert get_method(method).name == method
        hparams_class = get_method(method).load_hparams()
        fields = hparams_class.__dataclass_fields__
        assert values.keys() <= fields.keys()
        required = {"layers": [0]} if "layers" in fields else {}
        hparams_class(alg_name=method, model_name="tiny-llama", **required | values)  # checks the values


def setting_of(text):
    field, equals, value = text.partition("=")
    assert equals and field.startswith("method.")
    return field.removeprefix("method."), yaml.safe_load(value)


@pytest.mark.parametrize(
    ("name", "group", "label", "row"),
    [
        ("nmke-table-1", 0, "AlphaEdit", [0.32, 0.28, 0.06]),
        ("nmke-table-1", 1, "NMKE", [0.98, 0.67, 0.38]),
        ("nmke-table-2", 0, "NMKE (MPC)", [None, 0.93, 0.83, 0.77]),
        ("nmke-table-6a", 0, "NMKE", [0.86, 0.74, 0.59, 0.53, 0.40, 0.62, 0.35, 0.24]),
        ("nmke-table-7", 0, "MEMIT", [0.00, 0.00, 0.01]),
        ("nmke-table-8", 0, "NMKE", [0.96, 0.90]),
        ("nmke-table-10", 0, "AlphaEdit layer 8", [0.4371, 0.6386, 0.0594, 1.2864, 0.4421]),
        ("nmke-table-11", 0, "AlphaEdit", [0.68, 0.58, 477]),
        ("pnke-table-1", 0, "PNKE", [0.605, 0.681, 0.647, 0.382, 0.231]),
        ("pnke-table-2", 0, "ROME", [0.0093, 0.0086, 0.02]),
        ("pnke-table-3", 0, "PNKE", [None, None, None, 0.510, 0.485, None, None]),
    ],
)
def test_numbers_of_the_last_row(name, group, label, row):
    assert ENTRIES[name]["groups"][group]["published"][label][-1] == row


@pytest.mark.parametrize(
    ("name", "group", "label", "row", "half_widths"),
    [
        ("fine-table-1", 0, "IKE", [100, 98, 59, 61.5, 60.6, 52.3, None], [0, 0.8, 6.1, 4.3, 1.3, 3.1, None]),
        (
            *("fine-table-2", 2, "FiNE w/o Loc."),
            *([100, 79, 21.5, 35.2, 84.1, 54.7, 556.9], [0, 2.1, 2.7, 2.8, 1, 2.9, 6.4]),
        ),
        (
            "fine-table-3",
            0,
            "FiNE 20",
            [100, 87.3, 29, 40.6, 92.9, 68.6, 541.5],
            [0, 1.5, 3.1, 3, 0.8, 2.7, 4.6],
        ),
        (
            "fine-table-9",
            1,
            "PMET",
            [97.4, 71, 35.1, 48.4, 67.2, 73.7, 575.7],
            [0.2, 2, 2.8, 1.7, 1.3, 2.2, 2.8],
        ),
        ("fine-table-10", 2, "ROME", [98.7, 46.4, 49.9, 56.2, 48.1, 545.8], [0.4, 4.2, 3.2, 1.7, 1.5, 5.9]),
        ("fine-table-11", 0, "FiNE 5", [85, 52.1, 20.9, 28.8, 86.2, 64.8], [2.2, 2.6, 2.9, 2.3, 0.9, 3]),
        (
            "fine-table-14",
            1,
            "MEMIT",
            [97.8, 68, 20.3, 24.2, 39.7, 30.6, 473.8],
            [1, 2.1, 3, 2.7, 1.3, 2.4, 9.4],
        ),
        ("fine-table-13", 1, "FiNE Any", [2.13, 28.82], None),
        ("fine-table-8", 2, "(iii) L19.U4942", [0.116], None),
        ("kne-table-1", 2, "KNE", [99.48, 63.36, 37.58, 581.49], None),
        ("kne-table-2", 3, "KNE", [99.90, 53.79, 78.60, 549.87], None),
    ],
)
def test_numbers_of_single_edits(name, group, label, row, half_widths):
    group = ENTRIES[name]["groups"][group]
    assert group["published"][label] == [row]
    assert group.get("half_widths", {}).get(label) == (half_widths and [half_widths])


def test_a_row_that_two_tables_share_is_the_same():
    first, second = (ENTRIES[f"nmke-table-{number}"]["groups"][0]["published"] for number in (1, 2))
    for label, other in (("AlphaEdit", "AlphaEdit"), ("NMKE", "NMKE (LPS)"), ("MEMIT", "MEMIT")):
        assert first[label][3:5] == [row[1:] for row in second[other]]
    on_chat, on_both = (ENTRIES[f"kne-table-{number}"]["groups"] for number in (1, 2))
    assert [group["published"]["KNE"] for group in on_chat] == [
        group["published"]["KNE"] for group in on_both if group["model"] == "llama2-7b-chat"
    ]
