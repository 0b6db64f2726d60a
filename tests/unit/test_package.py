"""The package as a whole: a light import, its public names, package data."""

import configparser
import subprocess
import sys
import time
from pathlib import Path

import pytest

import easyedit_neuron
from easyedit_neuron import resources

ROOT = Path(easyedit_neuron.__file__).resolve().parents[1]


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
        _ = easyedit_neuron.NMKEHyperParam


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
    for folder in ("hparams", "conf", "assets", "report", "papers"):
        # os.walk semantics with links followed by hand: rglob does not enter linked folders on every Python.
        base = (package / folder).resolve()
        data_files = [
            path for path in base.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
        ]
        shipped = {package / folder / path.relative_to(base) for path in data_files}
        assert shipped <= packed, sorted(map(str, shipped - packed))
