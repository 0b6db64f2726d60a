"""The double of EasyEdit (``double/easyeditor``): in a process of its own, or in this one beside the real
one."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

DOUBLE = Path(__file__).resolve().parent / "double"

ABSENT_PACKAGES = """
import zhipuai, rouge.metrics
from timm.models import Block, register_model
from timm.layers import *
@register_model
def kept(): return 'kept'
@zhipuai.configured(1, two=2)
def configured(): return 'configured'
class Net(Block):
    size: rouge.Size | None = None
def late(): return zhipuai.Client(api_key='x')
try:
    import surely_not_there
except ImportError:
    surely_not_there = None
"""


def write(folder, extra=""):
    """Copy the double below ``folder``; ``extra`` is put in front of its editor module."""
    shutil.copytree(
        DOUBLE / "easyeditor", Path(folder) / "easyeditor", ignore=shutil.ignore_patterns("__pycache__")
    )
    editor = Path(folder) / "easyeditor/editors/editor.py"
    editor.write_text(extra + editor.read_text())
    return Path(folder)


def load_double():
    """The double imported in this process with our methods registered as at any import of EasyEdit; ``import
    easyeditor`` finds afterwards what it would have found before."""
    from easyedit_neuron.host import register

    def loaded():
        return [name for name in sys.modules if name.partition(".")[0] == "easyeditor"]

    hidden = {name: sys.modules.pop(name) for name in loaded()}
    sys.path.insert(0, str(DOUBLE))
    try:
        register()
        return importlib.import_module("easyeditor")
    finally:
        sys.path.remove(str(DOUBLE))
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(hidden)
        register()


def run(code, home=None, importable=None, cwd=None, **variables):
    """Run code in a fresh process; returns its standard output. ``home``: EASYEDIT_HOME; ``importable``: put
    on the path."""
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("EASYEDIT_HOME", "EASYEDIT_NEURON_HOST", "PYTHONPATH")
    }
    path = [str(REPOSITORY), str(REPOSITORY / "tests")] + ([str(importable)] if importable else [])
    environment.update(
        variables, PYTHONPATH=os.pathsep.join(path), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1"
    )
    if home:
        environment["EASYEDIT_HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
