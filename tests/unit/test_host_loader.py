"""The loader with a package laid out like EasyEdit: found, imported without its optional packages, and no
stand-in left."""

import pytest

from easyedit_neuron.errors import HostError
from easyedit_neuron.host.import_stubs import OPTIONAL_PACKAGES
from easyedit_neuron.host.loader import find_easyeditor
from helpers.fake_easyeditor import ABSENT_PACKAGES, run, write

FORCED = "stub=['zhipuai', 'rouge', 'timm']"


@pytest.fixture(autouse=True)
def no_home(monkeypatch):
    monkeypatch.delenv("EASYEDIT_HOME", raising=False)


def test_stand_ins_serve_the_import_and_vanish(tmp_path):
    out = run(
        f"""
import sys
path = list(sys.path)
from easyedit_neuron import host
from easyedit_neuron.errors import HostError
package = host.import_easyeditor({FORCED})
from easyeditor.editors import editor
assert editor.kept() == "kept" and editor.configured() == "configured" and editor.surely_not_there is None
assert not isinstance(3, editor.Block) and issubclass(editor.Net, editor.Block)
for late in (editor.late, editor.Net):
    try:
        late()
    except HostError as error:
        print(error)
assert sys.path == path
assert not [n for n in sys.modules if n.partition(".")[0] in ("zhipuai", "rouge", "timm")]
assert not [f for f in sys.meta_path if type(f).__module__.startswith("easyedit_neuron")]
from easyeditor.util.alg_dict import ALG_DICT
assert "NMKE" in ALG_DICT or not host.registration.available()
assert host.import_easyeditor() is package is sys.modules["easyeditor"]
try:
    host.import_easyeditor(home="elsewhere")
except HostError as error:
    print(error)
""",
        home=write(tmp_path, ABSENT_PACKAGES),
    )
    lines = out.splitlines()
    assert "zhipuai.Client" in lines[0] and "install zhipuai" in lines[0]
    assert "timm.models.Block" in lines[1] and "elsewhere" in lines[2] and len(lines) == 3


def test_an_installed_package_is_preferred_and_others_never_get_a_stand_in(tmp_path):
    """A third package that asks for an optional one during EasyEdit's import finds it missing."""
    (tmp_path / "third.py").write_text("try:\n    import rouge\nexcept ImportError:\n    rouge = None\n")
    (tmp_path / "zhipuai.py").write_text("version = 'real'\n")
    out = run(
        """
from easyedit_neuron import host
host.import_easyeditor(stub=["rouge"])
from easyeditor.editors import editor
import zhipuai
print(editor.third.rouge, editor.rouge.__name__, editor.zhipuai.version, editor.zhipuai is zhipuai)
""",
        home=write(tmp_path, "import third\nimport rouge, zhipuai\n"),
        importable=tmp_path,
    )
    assert out == "None rouge real True\n"


def test_a_failed_import_names_the_remedy_and_leaves_nothing(tmp_path):
    out = run(
        """
import sys
from easyedit_neuron import host
from easyedit_neuron.errors import HostError
try:
    host.import_easyeditor()
except HostError as error:
    print(error)
assert not [n for n in sys.modules if n.startswith("easyeditor")]
""",
        home=write(tmp_path, "import surely_not_there\n"),
    )
    assert "'surely_not_there' is missing" in out and "easyedit-neuron[easyedit]" in out


def test_where_easyedit_is_looked_for(tmp_path, monkeypatch):
    write(tmp_path)
    assert find_easyeditor(tmp_path) == find_easyeditor(tmp_path / "easyeditor") == tmp_path / "easyeditor"
    monkeypatch.setenv("EASYEDIT_HOME", str(tmp_path))
    assert find_easyeditor() == tmp_path / "easyeditor"
    monkeypatch.setenv("EASYEDIT_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(HostError, match="EASYEDIT_HOME=.*nowhere.*clone"):
        find_easyeditor()
    with pytest.raises(HostError, match="home=.*builtin"):
        find_easyeditor(tmp_path / "util")


def test_core_packages_never_have_stand_ins():
    assert not OPTIONAL_PACKAGES & {
        "torch",
        "transformers",
        "omegaconf",
        "scipy",
        "sklearn",
        "nltk",
        "numpy",
        "yaml",
        "tqdm",
    }
