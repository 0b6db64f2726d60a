"""Base class of all hyperparameters: the methods of EasyEdit's ``HyperParams``, with checking.

EasyEdit never looks at the type of the object it is given; it reads ``alg_name``, ``model_name``, ``device``,
``model_parallel``, ``max_length`` and ``batch_size`` and hands the rest to the method. Here a misspelt,
missing or ill-typed field is an error before a model is loaded, because a field that is silently ignored is a
wrong experiment.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from .. import resources
from ..errors import HparamsError
from ..utils.suggest import did_you_mean
from .options import Options

EASYEDIT_FIELDS = ("alg_name", "model_name", "device", "model_parallel", "max_length", "batch_size")
"""Fields that EasyEdit's editors read from any hyperparameters without asking whether they exist."""


@dataclass
class HyperParams(Options):
    """Subclass it as a dataclass; annotate every field and document it in ``field(metadata={"help": ...})``.

    A subclass sets ``ALG_NAME`` (and ``ALG_ALIASES``, other spellings that a file may use); ``alg_name`` is
    checked against it and stored in the first spelling. ``validate`` is the place for ranges and for rules
    between fields; it runs after the types were checked, on every construction (also
    ``dataclasses.replace``).
    """

    ALG_NAME: ClassVar[str] = ""
    ALG_ALIASES: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self._convert_types()
        self._check_alg_name()
        if isinstance(getattr(self, "model_name", None), str):
            self.model_name = resources.model_path(self.model_name)
        self.validate()

    # -- construction
    # ------------------------------------------------------------------------------------------------

    @classmethod
    def from_hparams(cls, hparams_name_or_path: str | Path) -> HyperParams:
        """Read a YAML or JSON file: a path with or without ``.yaml``, or a shipped name such as
        ``"NMKE/tiny-llama"``.

        A file below the working directory wins over a shipped one. Raises ``HparamsError`` when neither
        exists, when the file is no mapping, and for every problem that :meth:`from_dict` finds.
        """
        path = find_hparams(hparams_name_or_path)
        return cls.from_dict(read_hparams(path), source=path)

    @classmethod
    def from_json(cls, fpath: str | Path) -> HyperParams:
        """Read a JSON file (EasyEdit's method of that name), with the same checks as :meth:`from_hparams`."""
        path = Path(fpath)
        if not path.is_file():
            raise HparamsError(f"no hyperparameter file {str(path)!r}")
        return cls.from_dict(_parse(path, json.loads), source=path)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str | Path | None = None) -> HyperParams:
        """Build from a mapping of field names to values; ``source`` (a file) is named in error messages."""
        try:
            return cls._build(values)
        except HparamsError as problem:
            if source is None:
                raise
            raise HparamsError(f"{source}: {problem}") from None

    @classmethod
    def _build(cls, values: dict[str, Any]) -> HyperParams:
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for name in values:
            if name not in fields:
                raise HparamsError(f"unknown field '{name}' for {cls.__name__}: {did_you_mean(name, fields)}")
        required = [
            name
            for name, field in fields.items()
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ]
        missing = [name for name in required if name not in values]
        if missing:
            listed = ", ".join(f"'{name}'" for name in missing)
            raise HparamsError(
                f"missing field{'s' if len(missing) > 1 else ''} {listed} for {cls.__name__}: add it"
            )
        return cls(**values)

    def override(self, changes: dict[str, Any], source: str | None = None) -> HyperParams:
        """A checked copy with the given fields changed; the object itself stays as it is."""
        return type(self).from_dict({**self.to_dict(), **changes}, source=source)

    # -- EasyEdit's other methods
    # ------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python values (a deep copy). Of a model in memory, ``model_name = (model,
        tokenizer)``, only where it came from: every edit's record holds such a dictionary."""
        name = getattr(self, "model_name", None)
        plain = copy.copy(self)
        if isinstance(name, (tuple, list)) and name:
            config = getattr(name[0], "config", None)
            plain.model_name = getattr(config, "_name_or_path", "") or "in memory"
        return dataclasses.asdict(plain)

    @staticmethod
    def construct_float_from_scientific_notation(config: dict[str, Any]) -> dict[str, Any]:
        """Numeric strings of a mapping become floats, in place (EasyEdit's loaders call it on what YAML gave
        them)."""
        for key, value in config.items():
            if isinstance(value, str):
                try:
                    config[key] = float(value)
                except ValueError:
                    continue
        return config

    # -- checks
    # ------------------------------------------------------------------------------------------------------

    def _check_alg_name(self) -> None:
        given = getattr(self, "alg_name", None)
        if not self.ALG_NAME or given is None:
            return
        if given not in (self.ALG_NAME, *self.ALG_ALIASES):
            raise HparamsError(
                f"field 'alg_name': {type(self).__name__} is for {self.ALG_NAME!r}, the value is {given!r}; load the file with "
                f"the class of {given!r}, or correct alg_name"
            )
        self.alg_name = self.ALG_NAME


def find_hparams(name_or_path: str | Path) -> Path:
    """The file that ``from_hparams`` reads for a path or a shipped name; ``HparamsError`` when there is
    none."""
    given = str(name_or_path)
    suffixed = given if given.endswith((".yaml", ".yml", ".json")) else given + ".yaml"
    path = Path(suffixed).expanduser()
    if path.is_file():
        return path
    # "hparams/NMKE/tiny-llama" is the documented spelling in a checkout; it works in any working directory.
    shipped = given.replace("\\", "/")
    shipped = shipped[len("hparams/") :] if shipped.startswith("hparams/") else shipped
    try:
        return resources.hparams_path(shipped)
    except HparamsError as problem:
        raise HparamsError(
            f"no hyperparameter file {suffixed!r} in the working directory, and {problem}"
        ) from None


def read_hparams(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; ``HparamsError`` names the file when it is unreadable or no
    mapping."""
    path = Path(path)
    values = _parse(path, json.loads if path.suffix == ".json" else _load_yaml)
    bad = [key for key in values if not isinstance(key, str)]
    if bad:
        raise HparamsError(f"{path}: field names must be strings, found {bad[0]!r}")
    return values


def _parse(path: Path, parser: typing.Callable[[str], Any]) -> dict[str, Any]:
    try:
        values = parser(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as problem:
        raise HparamsError(f"{path}: cannot be read: {' '.join(str(problem).split())}") from None
    if not isinstance(values, dict):
        raise HparamsError(
            f"{path}: must be a mapping of field names to values, found {type(values).__name__}"
        )
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """Plain YAML lets the second of two equal keys win without a word."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"field {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_UniqueKeyLoader)
