"""The EasyEdit guide: its fields, files and code exist."""

import ast
import dataclasses
import re

import pytest

import easyedit_neuron
from easyedit_neuron import resources
from helpers.pages import REPOSITORY

TEXT = (REPOSITORY / "docs" / "guides" / "easyedit.md").read_text(encoding="utf-8")
REFERENCE = (REPOSITORY / "docs" / "reference" / "hyperparameters.md").read_text(encoding="utf-8")
HYPERPARAMETERS = TEXT.partition("\n## Hyperparameters")[2].partition("\n## ")[0]


def names_in(text):
    return set(re.findall(r"`(\w+)`", text))


@pytest.mark.parametrize("method", ["NMKE", "AlphaEdit", "MEMIT", "ROME", "FT"])
def test_every_field_is_on_the_page_or_in_the_reference(method):
    fields = {field.name for field in dataclasses.fields(getattr(easyedit_neuron, f"{method}HyperParams"))}
    assert fields <= names_in(HYPERPARAMETERS) | names_in(REFERENCE)


def test_every_field_on_the_page_is_one():
    classes = [
        getattr(easyedit_neuron, f"{method}HyperParams")
        for method in ("NMKE", "AlphaEdit", "MEMIT", "ROME", "FT")
    ]
    fields = {field.name for cls in classes for field in dataclasses.fields(cls)}
    values = {
        "NMKE",
        "AlphaEdit",
        "subject_last",
        "cpu",
        "all",
        "false",
        "true",
        "prompt_last",
        "promptz_last",
        "AlphaEditHyperParams",
        "MEMITHyperParams",
        "ROMEHyperParams",
        "FTHyperParams",
    }
    assert names_in(HYPERPARAMETERS) - fields <= values


def test_files_and_code():
    for path in re.findall(r"(?:examples|tests|docs)/[\w/]+\.(?:py|sh|md)", TEXT):
        assert (REPOSITORY / path).is_file(), path
    scripts = set(
        re.findall(r"`(run_\w+\.py|sweep\.sh)`", TEXT.partition("| ours |")[2].partition("\n\n")[0])
    ) - {"run_zsre_llama2.py", "run_knowedit_llama2.py", "run_AlphaEdit_editing.py", "run_wise_editing.py"}
    assert scripts == {
        path.name for path in (REPOSITORY / "examples").iterdir() if path.name.startswith(("run_", "sweep"))
    }
    for name in re.findall(r'"(\w+/[\w.-]+)"', "".join(re.findall(r"```python\n(.*?)```", TEXT, re.S))):
        assert name in resources.shipped_hparams()


def test_after_differs_from_before_in_two_lines():
    before, after = [block.splitlines() for block in re.findall(r"```python\n(.*?)```", TEXT, re.S)[:2]]
    for block in (before, after):
        ast.parse("\n".join(block))
    plain = {"from easyeditor import AlphaEditHyperParams, BaseEditor", "from easyeditor import BaseEditor"}
    added, removed = ([line for line in block if line not in plain] for block in (after, before))
    assert (
        len([line for line in added if line not in removed]) == 2
        and len([line for line in removed if line not in added]) == 1
    )
