"""Commands and names in the README and the examples exist."""

import ast
import re
from pathlib import Path

import pytest

import easyedit_neuron
from easyedit_neuron import resources
from easyedit_neuron.cli.app import group_options

README = Path(easyedit_neuron.__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.is_file() else ""
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
EXAMPLES = [path.read_text(encoding="utf-8") for path in sorted((README.parent / "examples").glob("*.py"))]


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


@pytest.mark.parametrize("command", re.findall(r"^python -m easyedit_neuron(.*?)(?:#.*)?$", TEXT, re.M))
def test_commands(command):
    options = group_options()
    for argument in command.split():
        name, _, value = argument.partition("=")
        if name in options:
            assert set(value.split(",")) <= set(options[name])


def test_paths_and_targets():
    if not TEXT:  # an installed wheel has no README beside it
        return
    for path in re.findall(r"`((?:easyedit_neuron|examples)/[\w/.]+)`", TEXT):
        assert (README.parent / path).exists(), path
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", TEXT):
        assert f"\n{target}:" in makefile, target
