"""The README: what it names exists, and the order of its sections."""

import ast
import re

import pytest

import easyedit_neuron
from easyedit_neuron import resources
from helpers.pages import REPOSITORY

README = REPOSITORY / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
EXAMPLES = [path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "examples").glob("*.py"))]


@pytest.mark.parametrize("block", BLOCKS + EXAMPLES)
def test_python_blocks(block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "easyedit_neuron":
            for name in node.names:
                modules = (name.name, f"{name.name}.py")
                assert name.name in easyedit_neuron.__all__ or any(
                    (resources.PACKAGE_DIR / file).exists() for file in modules
                )
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("NMKE/"):
            assert node.value in resources.shipped_hparams()


def test_sections():
    assert re.findall(r"^## (.*)$", TEXT, re.M) == [
        "Install",
        "Edit a fact",
        "Methods",
        "If you use EasyEdit",
        "From the command line",
        "Results",
        "Documentation",
        "Citation",
        "Licence",
    ]


def test_every_method_for_easyedit_has_a_page():
    """Whoever adds a method writes ``docs/methods/<method>.md`` and links it in the README."""
    pages = set(re.findall(r"docs/methods/(\w+)\.md", TEXT))
    assert pages == {spec.name.lower() for spec in easyedit_neuron.registry.methods(plugin=True)} - {"dummy"}


def test_paths_and_targets():
    for path in re.findall(r"`((?:easyedit_neuron|examples)/[\w/.]+)`", TEXT):
        assert (REPOSITORY / path).exists(), path
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", TEXT, re.M):
        assert f"\n{target}:" in makefile, target
