"""The shape of the code: ruff and mypy, sizes of files, and imports between folders that go one way."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import easyedit_neuron

PACKAGE = Path(easyedit_neuron.__file__).resolve().parent
ROOT = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From the foundation up. A folder imports folders of lower lines only, and so no two import each other.
LAYERS = (
    "errors",
    "utils",
    "resources registry",  # the registry names its methods by text, and imports none
    "hyperparameters",
    "arch",
    "attribution statistics data evaluation model_store",
    "edits",
    "masks optim",
    "locate_then_edit",
    "models",
    "host",
    "editlog",
    "export",
    "lifelong",
    "report tinyworld",
    "ability",
    "studies",
    "tuning bench",
    "papers",
    "serving",
    "cli",
)
LEVEL = {folder: level for level, line in enumerate(LAYERS) for folder in line.split()}
# Words that say nothing as the name of a value, an argument or a function.
NO_NAMES = {"found", "one", "made", "known", "kept", "mine", "told", "about", "some", "wanted"}


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "--quiet", "--output-format", "concise"], ["ruff", "format", "--check"], ["mypy"]],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_tools_find_nothing(command):
    """Their configuration is in ``pyproject.toml``."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("no pyproject.toml: the package is installed without its repository")
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: pip install -e '.[test]'")
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rules_of_the_package(path):
    """Short files that say what they hold, that print nothing, and that load no pickled objects."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) <= 400
    assert ast.get_docstring(tree), "a module says what it is for"
    # torch.load runs what a file says. EasyEdit's projections are read with it, weights only.
    loads = re.findall(r"torch\.load\(.*", source)
    allowed = ['torch.load(path, map_location="cpu", weights_only=True)'] if path.name == "given.py" else []
    assert loads == allowed and source.count("torch.load") == len(allowed) and "TODO" not in source
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not NO_NAMES & {name.strip("_") for name in bound_names(tree)}
    assert "print" not in names and not any("pickle" in target for target in imported_modules(path))


def test_every_folder_has_a_level():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert folders | modules == set(LEVEL)


def test_imports_between_folders_go_one_way():
    """At module level and inside of functions; what only a type checker reads does not count."""
    upward = set()
    for path in SOURCES:
        module = path.relative_to(PACKAGE).with_suffix("")
        for target in imported_modules(path):
            folder, _, name = target.removeprefix("easyedit_neuron.").partition(".")
            if target.startswith("easyedit_neuron.") and folder in LEVEL and module.parts[0] in LEVEL:
                same = folder == module.parts[0]
                if not same and LEVEL[folder] >= LEVEL[module.parts[0]]:
                    upward.add((".".join(module.parts), f"{folder}.{name}".rstrip(".")))
    assert not upward


def bound_names(tree):
    """Names that a module gives to values, arguments, attributes, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name


def imported_modules(path):
    """Full names of what a module of the package imports; ``from . import a`` counts as the module ``a``."""
    parents = ("easyedit_neuron", *path.relative_to(PACKAGE).parent.parts)
    for node in import_statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        base = parents[: len(parents) - node.level + 1] if node.level else ()
        base = ".".join((*base, node.module) if node.module else base)
        if base == "easyedit_neuron":
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield base


def import_statements(node):
    """All below ``node`` but those under ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from import_statements(child)
