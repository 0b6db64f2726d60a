"""The package as a whole: a light import, package data, the shape of the code."""

import ast
import configparser
import subprocess
import sys
import time
from pathlib import Path

import pytest

import easyedit_neuron
from easyedit_neuron import resources

ROOT = Path(easyedit_neuron.__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "easyedit_neuron").rglob("*.py"))


def test_import_is_light_and_offline():
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('network touched')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "import easyedit_neuron\n"
        "heavy = {'torch', 'transformers', 'peft', 'easyeditor', 'hydra', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert time.perf_counter() - start < 4


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="NMKEHyperParam"):
        easyedit_neuron.NMKEHyperParam


def test_lazy_names_resolve_to_the_registry():
    from easyedit_neuron.registry import get_method

    assert easyedit_neuron.get_method is get_method
    assert {"NMKEHyperParams", "apply_nmke_to_model", "BaseEditor"} <= set(dir(easyedit_neuron))


def test_every_shipped_file_is_package_data():
    if not (ROOT / "setup.cfg").is_file():  # an installed wheel: being able to see the files is the proof
        assert resources.shipped_hparams()
        return
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = [
        line for line in config["options.package_data"]["easyedit_neuron"].split("\n") if line.strip()
    ]
    package = ROOT / "easyedit_neuron"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    for folder in ("hparams", "conf", "assets"):
        # os.walk semantics with links followed by hand: rglob does not enter linked folders on every Python.
        base = (package / folder).resolve()
        shipped = {package / folder / path.relative_to(base) for path in base.rglob("*") if path.is_file()}
        assert shipped <= packed, sorted(map(str, shipped - packed))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_house_rules(path):
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) <= 450
    assert "torch.load" not in source and "TODO" not in source
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert "print" not in names and "pickle" not in imported
    assert ast.get_docstring(tree), "a module says what it is for"
