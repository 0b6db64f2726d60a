"""Pages of the documentation: links, anchors, pictures, code, commands and settings exist."""

import ast
import dataclasses
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

from easyedit_neuron import resources
from easyedit_neuron.cli.app import group_options, setting_names
from easyedit_neuron.cli.commands import COMMANDS
from easyedit_neuron.hyperparameters.reference import reference
from easyedit_neuron.registry import get_method, methods
from helpers.pages import PAGES, REPOSITORY, anchors, blocks, commands, links, name_of

TEXTS = {name_of(page): page.read_text(encoding="utf-8") for page in PAGES}
COMMAND_LINES = sorted({(name, *words) for name, text in TEXTS.items() for words in commands(text)})
PYTHON_BLOCKS = [(name, block) for name, text in TEXTS.items() for block in blocks(text, "python")]
FIELDS = {field for spec in methods() for field in setting_names(spec.name.lower())["method"]}
PLACEHOLDER = re.compile(r"[A-Z](-[A-Z])?|1-N|FILE|DIR|NAME|FOLDER|FIELD|METHOD|\.\.\.|\$.*|.*/?\$\w+.*")
"""Values that stand for a reader's own."""
METHOD_PAGES = sorted(name for name in TEXTS if name.startswith("docs/methods/"))
EXAMPLE_METHODS = {"salient"}
"""Methods that the guides write."""


@pytest.mark.parametrize("name", TEXTS)
def test_links(name):
    for target in links(TEXTS[name]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (REPOSITORY / name).parent / path if path else REPOSITORY / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_every_page_can_be_reached():
    linked = {
        ((REPOSITORY / name).parent / target.partition("#")[0]).resolve()
        for name, text in TEXTS.items()
        for target in links(text)
    }
    unreachable = {name_of(page) for page in PAGES if page not in linked}
    assert unreachable <= {"README.md", "benchmarks/README.md"}


def test_every_picture_is_used():
    for picture in (REPOSITORY / "docs" / "img").glob("*.png"):
        assert any(f"img/{picture.name})" in text for text in TEXTS.values()), picture.name


def test_no_page_grows_without_bound():
    limits = {"README.md": 120, **{name: 100 for name in TEXTS if name.startswith("docs/methods/")}}
    for name, limit in limits.items():
        assert len(TEXTS[name].splitlines()) <= limit, name


def test_pages_that_the_code_names_exist():
    folders = ("easyedit_neuron", "hparams", "benchmarks", "examples", "tests")
    files = [file for folder in folders for file in (REPOSITORY / folder).rglob("*")]
    for file in [*files, REPOSITORY / "setup.cfg", REPOSITORY / "pyproject.toml"]:
        if file.suffix in {".py", ".yaml", ".cfg", ".toml", ".sh", ".ipynb"}:
            for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text(encoding="utf-8")):
                assert (REPOSITORY / page).is_file(), f"{file}: {page}"


def test_hyperparameter_reference_is_up_to_date():
    page = TEXTS["docs/reference/hyperparameters.md"]
    assert page == reference(), (
        "run: python -m easyedit_neuron.hyperparameters.reference > docs/reference/hyperparameters.md"
    )


def test_every_setting_is_in_the_reference():
    text = TEXTS["docs/reference/command-line.md"]
    for section, names in setting_names("nmke").items():
        if section not in ("", "method"):
            for name in names:
                assert name in ("name",) or re.search(rf"`(?:{section}\.)?{name}`", text), f"{section}.{name}"


@pytest.mark.parametrize("name", METHOD_PAGES)
def test_options_on_a_methods_page_are_fields(name):
    spec = get_method(Path(name).stem)
    options = TEXTS[name].partition("\n## Options")[2].partition("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`.*?) \|", options, re.M) for name in re.findall(r"`(\w+)`", row)
    }
    assert named and named <= {field.name for field in dataclasses.fields(spec.load_hparams())}


@pytest.mark.parametrize(("name", "block"), PYTHON_BLOCKS)
def test_python_blocks(name, block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "easyedit_neuron":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
        names = {spec.name for spec in methods()}
        if (
            isinstance(node, ast.Constant)
            and str(node.value).partition("/")[0] in names
            and "/" in node.value
        ):
            assert node.value in resources.shipped_hparams()


def test_code_spans_name_modules_that_exist():
    names = {name for text in TEXTS.values() for name in re.findall(r"`(easyedit_neuron(?:\.\w+)+)", text)}
    for name in names - {"easyedit_neuron.json", "easyedit_neuron.methods"}:  # a file, an entry-point group
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("line", COMMAND_LINES, ids=" ".join)
def test_commands(line):
    page, *words = line
    if words[0] == "python":
        program, rest = words[2], words[3:]
        spec = importlib.util.find_spec(program) if "NAME" not in program else None
        if spec is None:
            assert PLACEHOLDER.fullmatch(program.rpartition(".")[2]) or program.endswith("."), program
            return
        if spec.submodule_search_locations is not None:
            assert importlib.util.find_spec(f"{program}.__main__"), program
    else:
        program, rest = "easyedit_neuron", words[1:]
    if program != "easyedit_neuron":
        check_flags(program, rest)
    elif rest and re.fullmatch(r"[a-z]+", rest[0]):
        assert rest[0] in COMMANDS
        check_flags("easyedit_neuron.cli.commands", rest)
    else:
        check_settings(rest)


def check_flags(program, words):
    """Every ``--flag`` is written out in the program's module or one beside it, or made from a name there."""
    folder = Path(importlib.util.find_spec(program).origin).parent
    source = "".join(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name = word[2:].replace("-", "_")
            assert f'"{word}"' in source or f'"{name}"' in source or f"{name}=" in source, f"{program} {word}"


def check_settings(words):
    """Every ``name=value`` is a setting that there is, with a value that its group has."""
    options = group_options()
    settings = [word.partition("=")[::2] for word in words if "=" in word and not word.startswith("--")]
    chosen = [method for name, value in settings if name == "method" for method in value.split(",")]
    for name, value in settings:
        section, _, field = name.rpartition(".")
        if name.startswith(("hydra", "+")) or PLACEHOLDER.fullmatch(field):
            continue
        if name in options:
            values = {choice for choice in value.split(",") if not PLACEHOLDER.fullmatch(choice)}
            assert values <= {*options[name], *EXAMPLE_METHODS}, (name, value)
        if section == "method":
            for method in chosen:
                allowed = setting_names(method)["method"] if method in options["method"] else FIELDS
                assert field in allowed or method in EXAMPLE_METHODS, (method, name)
        else:
            assert field in setting_names("nmke").get(section, ()), name
