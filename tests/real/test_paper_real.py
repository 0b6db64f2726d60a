"""A table of each kind, made with the real model: few edits, all that a run does."""

import pytest

from easyedit_neuron.cli import main
from helpers.long import LONG


@LONG
@pytest.mark.parametrize(
    "name, data, methods",
    [
        ("nmke-table-11", "zsre", "AlphaEdit"),
        ("fine-table-9", "wikidata_recent", "Untouched,FiNE"),
        ("fine-table-8", "wikidata_counterfact", None),
    ],
)
def test_a_table_is_made(name, data, methods, tmp_path, capfd):
    words = ["paper", "run", name, "model=smollm2-135m-instruct", f"data.{data}=real-world", "edits=4"]
    words += [f"methods={methods}"] if methods else []
    assert main([*words, f"output_dir={tmp_path / 'out'}"]) == 0, capfd.readouterr().err
    if methods is None:
        assert (tmp_path / "out" / data / "meanings.csv").stat().st_size > 100
        return
    table = (tmp_path / "out" / f"{name}.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if line.startswith("|")]
    cells = {row[1]: row[3] for row in rows}  # method -> rel
    edited = float(cells[methods.rpartition(",")[2]].split(" ")[0])
    assert "Another model than the paper's" in table and edited > 0.5 * (100 if name == "fine-table-9" else 1)
    if "Untouched" in cells:
        assert float(cells["Untouched"].split(" ")[0]) < edited
