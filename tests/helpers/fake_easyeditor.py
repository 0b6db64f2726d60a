"""A package laid out like EasyEdit's, small and without dependencies, and a process to try it in."""
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

FILES = {
    "__init__.py": "from .editors import *\nfrom .util import *\n",
    "util/__init__.py": "from .hparams import *\n",
    "util/hparams.py": "class HyperParams: pass\n",
    "util/alg_dict.py": "def apply_x(): return 'x'\nALG_DICT = {'X': apply_x}\n",
    "editors/__init__.py": "from .editor import *\n",
    "editors/editor.py": "from .batch_editor import BatchEditor\nfrom ..util.alg_dict import *\nclass BaseEditor: pass\n",
    "editors/batch_editor.py": """from enum import Enum
class BatchEditor(Enum):
    X = 'X'
    @staticmethod
    def is_batchable_method(alg_name):
        return alg_name == BatchEditor.X.value
""",
}

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
    """Write the package below ``folder``; ``extra`` is put in front of its editor module."""
    for name, text in FILES.items():
        path = Path(folder) / "easyeditor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(extra + text if name == "editors/editor.py" else text)
    return Path(folder)


def run(code, home=None, importable=None, cwd=None, **variables):
    """Run code in a fresh process; returns its standard output. ``home``: EASYEDIT_HOME; ``importable``: put on the path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("EASYEDIT_HOME", "EASYEDIT_NEURON_HOST", "PYTHONPATH")}
    path = [str(REPOSITORY), str(REPOSITORY / "tests")] + ([str(importable)] if importable else [])
    environment.update(variables, PYTHONPATH=os.pathsep.join(path), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    if home:
        environment["EASYEDIT_HOME"] = str(home)
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
