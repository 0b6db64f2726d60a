"""The hyperparameter page of the documentation, from the fields and their help texts.

python -m easyedit_neuron.hyperparameters.reference > docs/reference/hyperparameters.md
"""

import dataclasses
import sys
import types
import typing

from ..registry import methods
from .typecheck import Range

HEAD = """# Hyperparameters

All fields of the hyperparameter files `hparams/<METHOD>/<model>.yaml`, which are also the settings
`method.FIELD=...` of the [command](command-line.md). This page is generated from the help texts of the
fields by `python -m easyedit_neuron.hyperparameters.reference`; do not edit it by hand. A field without a
default must be in the file. A section lists the fields that a class adds, or to which it gives another
default or other choices; the sentence below its title names the sections whose fields it has as well."""


def reference() -> str:
    """The page as Markdown."""
    # Methods of other packages may be registered too; the page is about this one's.
    package = __package__.partition(".")[0]
    classes: list[type] = [
        spec.load_hparams() for spec in methods() if spec.hparams.startswith(f"{package}.")
    ]
    users: dict[type, list[str]] = {
        parent: [_title(cls) for cls in classes if issubclass(cls, parent)]
        for cls in classes
        for parent in cls.__mro__[1:]
        if dataclasses.is_dataclass(parent) and _own_fields(parent)
    }
    shared = sorted((parent for parent in users if len(users[parent]) > 1), key=lambda cls: -len(users[cls]))
    sections = [_section(parent, shared, users[parent]) for parent in shared]
    return "\n\n".join([HEAD, *sections, *(_section(cls, shared, []) for cls in classes)]) + "\n"


def _own_fields(cls: type) -> list[str]:
    """Names of the fields that the body of ``cls`` declares, in its order."""
    fields = {field.name for field in dataclasses.fields(cls)}
    return [name for name in cls.__dict__.get("__annotations__", {}) if name in fields]


def _title(cls: type) -> str:
    return getattr(cls, "ALG_NAME", "") or f"Shared: {cls.__name__}"


def _section(cls: type, shared: list[type], users: list[str]) -> str:
    """The fields of a class and of the classes above it that have no section of their own."""
    parents = [
        f"[{_title(parent)}](#{_anchor(_title(parent))})" for parent in cls.__mro__[1:] if parent in shared
    ]
    lead = [f"{', '.join(users)}."] if users else []
    if parents:
        lead.append(f"Besides: {', '.join(parents)}.")
    own = [parent for parent in cls.__mro__ if dataclasses.is_dataclass(parent)]
    own = [parent for parent in own if parent is cls or parent not in shared]
    names = dict.fromkeys(name for parent in own for name in _own_fields(parent))
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    lines = [
        f"## {_title(cls)}",
        "",
        " ".join(lead),
        "",
        "| field | values | default | |",
        "|---|---|---|---|",
    ]
    presets = [] if cls in shared else _presets(cls)
    for name in names:
        text = fields[name].metadata["help"].replace("|", "\\|")
        values = _values(hints[name], fields[name].metadata["range"])
        lines.append(f"| `{name}` | {values} | {_default(fields[name])} | {text} |")
    return "\n".join([*lines, *presets])


def _presets(cls: type) -> list[str]:
    lines = [
        f"| `{name}` | {preset.source} | "
        + ", ".join(f"`{field}: {_yaml(value)}`" for field, value in preset.values.items())
        + " |"
        for name, preset in getattr(cls, "PRESETS", {}).items()
    ]
    return (
        ["", "Presets, `method.preset=NAME`:", "", "| name | from | sets |", "|---|---|---|", *lines]
        if lines
        else []
    )


def _anchor(title: str) -> str:
    """The anchor that Markdown viewers give to a heading of words and colons."""
    return title.lower().replace(":", "").replace(" ", "-")


def _values(hint: typing.Any, limits: Range) -> str:
    """A type as a reader of YAML knows it, with the range of its numbers."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{_yaml(value)}`" for value in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _values(part, limits) for part in parts)
    if origin in (list, tuple):
        return f"list of {_values(parts[0], limits)}"
    if origin is dict:
        return "mapping"
    if hint in (int, float):
        return f"{'integer' if hint is int else 'number'} {limits}"
    return {bool: "true, false", str: "text"}.get(hint, str(hint))


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{_yaml(field.default_factory())}`"
    return "" if field.default is dataclasses.MISSING else f"`{_yaml(field.default)}`"


def _yaml(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml(entry) for entry in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value) or "''"


if __name__ == "__main__":
    sys.stdout.write(reference())
