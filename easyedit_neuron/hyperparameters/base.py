"""Base class of all hyperparameters: the methods of EasyEdit's ``HyperParams``, with checking.

EasyEdit never looks at the type of the object: it reads ``EASYEDIT_FIELDS`` and hands the rest to the method.
Here a misspelt, missing or ill-typed field is an error before a model is loaded: a field that is silently
ignored is a wrong experiment.
"""

from __future__ import annotations

import copy
import dataclasses
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from .. import resources
from ..errors import HparamsError
from ..utils.plain_trees import parse_json, parse_yaml
from ..utils.shown import shown
from ..utils.suggest import did_you_mean
from .options import SEED, Options, doc
from .preset import Preset

EASYEDIT_FIELDS = ("alg_name", "model_name", "device", "model_parallel", "max_length", "batch_size")
"""Fields that EasyEdit's editors read from any hyperparameters without asking whether they exist."""


@dataclass
class HyperParams(Options):
    """Base of hyperparameter dataclasses; annotate every field and document it in ``metadata["help"]``.

    A subclass sets ``ALG_NAME`` and perhaps ``ALG_ALIASES``, other spellings that a file may use, and
    ``PRESETS``, published settings by name.
    ``alg_name`` is checked against them and stored as ``ALG_NAME``. Every construction (also
    ``dataclasses.replace``) checks the types and then calls ``validate``.
    """

    ALG_NAME: ClassVar[str] = ""
    ALG_ALIASES: ClassVar[tuple[str, ...]] = ()
    PRESETS: ClassVar[dict[str, Preset]] = {}

    def __post_init__(self) -> None:
        self._convert_types()
        self._check_alg_name()
        model_name: Any = getattr(self, "model_name", None)
        if isinstance(model_name, str):
            self.model_name = resources.model_path(model_name)
        self.validate()

    @classmethod
    def from_hparams(cls, hparams_name_or_path: str | Path) -> HyperParams:
        """Read a YAML or JSON file.

        Args:
            hparams_name_or_path: a path with or without ``.yaml``, or a shipped name such as
                ``"NMKE/tiny-llama"``. A file below the working directory wins over a shipped one.

        Raises:
            HparamsError: neither exists, the file is no mapping, or ``from_dict`` refuses its values.
        """
        path = find_hparams(hparams_name_or_path)
        return cls.from_dict(read_hparams(path), source=path)

    @classmethod
    def from_json(cls, fpath: str | Path) -> HyperParams:
        """Read a JSON file (EasyEdit's method of that name), with the same checks as ``from_hparams``."""
        path = Path(fpath)
        if not path.is_file():
            raise HparamsError(f"no hyperparameter file {str(path)!r}")
        return cls.from_dict(_parse(path, parse_json), source=path)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str | Path | None = None) -> HyperParams:
        """Build from a mapping of field names to values; error messages name ``source`` (a file)."""
        try:
            return cls._build(values)
        except HparamsError as problem:
            if source is None:
                raise
            raise HparamsError(f"{source}: {problem}") from None

    @classmethod
    def _build(cls, values: dict[str, Any]) -> HyperParams:
        if not isinstance(values, dict):
            raise HparamsError(f"must be a mapping of field names to values, not {shown(values)}")
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for name in values:
            if name not in fields:
                raise HparamsError(
                    f"unknown field {shown(name)} for {cls.__name__}: {did_you_mean(name, fields)}"
                )
        missing = [
            f"'{name}'"
            for name, field in fields.items()
            if name not in values and field.default is field.default_factory is dataclasses.MISSING
        ]
        if missing:
            plural = "s" if len(missing) > 1 else ""
            raise HparamsError(f"missing field{plural} {', '.join(missing)} for {cls.__name__}: add it")
        return cls(**values)

    def override(self, changes: dict[str, Any], source: str | None = None) -> HyperParams:
        """A checked copy with some fields changed; the object itself is unchanged.

        ``preset`` among the changes names one of ``PRESETS``, whose values come before the other changes.
        """
        if not isinstance(changes, dict):
            raise HparamsError(f"changes must be a mapping of field names to values, not {shown(changes)}")
        changes = dict(changes)
        name = changes.pop("preset", None)
        values = {**self.to_dict(), **(self._preset(name, source) if name is not None else {}), **changes}
        return type(self).from_dict(values, source=source)

    @classmethod
    def _preset(cls, name: Any, source: str | None) -> Mapping[str, Any]:
        if name in cls.PRESETS:
            return cls.PRESETS[name].values
        hint = did_you_mean(name, cls.PRESETS) if cls.PRESETS else f"{cls.ALG_NAME} has none; leave it out"
        problem = f"field 'preset': unknown preset {shown(name)}: {hint}"
        raise HparamsError(problem if source is None else f"{source}: {problem}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python values (a deep copy).

        Every edit's record holds such a dictionary. A model in memory, ``model_name = (model, tokenizer)``,
        is therefore replaced by the path that it was loaded from.
        """
        name = getattr(self, "model_name", None)
        plain = copy.copy(self)
        if isinstance(name, (tuple, list)) and name:
            config = getattr(name[0], "config", None)
            plain.model_name = getattr(config, "_name_or_path", "") or "in memory"
        return dataclasses.asdict(plain)

    @staticmethod
    def construct_float_from_scientific_notation(config: dict[str, Any]) -> dict[str, Any]:
        """Convert a mapping's numeric strings to floats, in place; EasyEdit's loaders call it."""
        for key, value in config.items():
            if isinstance(value, str):
                try:
                    config[key] = float(value)
                except ValueError:
                    continue
        return config

    def _check_alg_name(self) -> None:
        alg_name = getattr(self, "alg_name", None)
        if not self.ALG_NAME or alg_name is None:
            return
        if alg_name not in (self.ALG_NAME, *self.ALG_ALIASES):
            raise HparamsError(
                f"field 'alg_name': {type(self).__name__} is for {self.ALG_NAME!r}, the value is "
                f"{shown(alg_name)}; load the file with the class of that method, or correct alg_name"
            )
        self.alg_name = self.ALG_NAME


MODULE_FIELDS = (
    "rewrite_module_tmp",
    "layer_module_tmp",
    "mlp_module_tmp",
    "attn_module_tmp",
    "ln_f_module",
    "lm_head_module",
    "pre_ffn_norm_tmp",
    "post_ffn_norm_tmp",
    "attn_branch_tmp",
    "norm",
    "parallel_residual",
)


def _module(part: str):
    return doc(f"{part}; unset: from the architecture table", None)


@dataclass(kw_only=True)
class ModelHyperParams(HyperParams):
    """Model, device and module names, with EasyEdit's field names.

    ``NEEDS_SUBJECT``: the method refuses a request without a subject. Editors check it before the first edit.
    """

    NEEDS_SUBJECT: ClassVar[bool] = True

    alg_name: str = doc("name of the method")
    model_name: str = doc("path or hub name of the model; 'tiny-llama' is the one that ships")
    device: int | str = doc("'cpu', 'cuda:0', or an integer for that CUDA device", 0, least=0)
    model_parallel: bool = doc("load with device_map='auto'", False)
    fp16: bool = doc("load the model in float16", False)
    bf16: bool = doc("load the model in bfloat16 (built-in host)", False)
    load_in_4bit: bool = doc(
        "load in 4 bits what is not edited (bitsandbytes, NF4; built-in host); 'layers' must name the edited",
        False,
    )
    max_length: int = doc("longest prompt in tokens, evaluation only", 40, least=1)
    batch_size: int = doc("requests that are edited together", 1, least=1)
    seed: int = doc("seed of everything random in the method", 0, **SEED)
    use_chat_template: bool = doc(
        "edit and measure inside the tokenizer's chat template: the prompt is what the user says, the target "
        "what the assistant answers",
        False,
    )

    rewrite_module_tmp: str | None = _module("template of the FFN's down projection")
    layer_module_tmp: str | None = _module("template of a layer")
    mlp_module_tmp: str | None = _module("template of the FFN")
    attn_module_tmp: str | None = _module("template of the attention")
    ln_f_module: str | None = _module("final norm")
    lm_head_module: str | None = _module("unembedding")
    pre_ffn_norm_tmp: str | None = _module("template of the norm in front of the FFN")
    post_ffn_norm_tmp: str | None = _module("template of a norm behind the FFN, where there is any")
    attn_branch_tmp: str | None = _module(
        "template of the module whose output attention adds to the residual stream, where it is another"
    )
    norm: Literal["rms", "rms_unit_offset", "layer", "layer_unit_offset"] | None = _module(
        "kind of the final norm: rms times weight, rms times 1 + weight, LayerNorm times either"
    )
    parallel_residual: bool | None = _module(
        "whether attention and FFN read the same input and are added together"
    )

    def check_inputs(self) -> None:
        """Check that the files the method will read exist; called before a model is loaded. Default: none.

        Raises:
            NeuronEditError: names the field and the remedy.
        """

    def module_overrides(self) -> dict[str, str | bool]:
        """The module names that were set by hand, for ``ModelView.of``."""
        return {name: getattr(self, name) for name in MODULE_FIELDS if getattr(self, name) is not None}


@dataclass(kw_only=True)
class NamedProjections(ModelHyperParams):
    """Of methods that read other matrices than the down projection: their names, where no table has them."""

    projections: dict[str, str] | None = doc(
        "modules that you name yourself, as in {q_proj: 'transformer.blocks.{}.attn.Wqkv[1/3]'}; the part in "
        "brackets selects rows of a fused weight and may also be [1/3 by head], [q of qkv] or [0:4096]",
        None,
    )

    def module_overrides(self) -> dict[str, Any]:
        """The module names that were set by hand, for ``ModelView.of``."""
        projections = {"projections": self.projections} if self.projections else {}
        return {**super().module_overrides(), **projections}


_LATER_FIELDS = ("use_chat_template", "load_in_4bit", "mom2_file", "nullspace_file", "mom2_cut")


def distinguishing(values: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters as part of a key: what was saved before there was a field stays valid, so that it
    stands there only where it is set."""
    return {name: value for name, value in values.items() if value or name not in _LATER_FIELDS}


def find_hparams(name_or_path: str | Path) -> Path:
    """The file that ``from_hparams`` reads for a path or shipped name; ``HparamsError`` without one."""
    name = str(name_or_path)
    file_name = name if name.endswith((".yaml", ".yml", ".json")) else name + ".yaml"
    path = Path(file_name).expanduser()
    if path.is_file():
        return path
    try:
        # "hparams/NMKE/tiny-llama" is the documented spelling; it works in any working directory.
        return resources.hparams_path(name.replace("\\", "/").removeprefix("hparams/"))
    except HparamsError as problem:
        raise HparamsError(
            f"no hyperparameter file {file_name!r} in the working directory, and {problem}"
        ) from None


def read_hparams(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file; ``HparamsError`` if it cannot be read or is no mapping."""
    path = Path(path)
    values = _parse(path, parse_json if path.suffix == ".json" else _load_yaml)
    for key in values:
        if not isinstance(key, str):
            raise HparamsError(f"{path}: field names must be strings, found {shown(key)}")
    return values


def _parse(path: Path, parser: typing.Callable[[str], Any]) -> dict[str, Any]:
    try:
        values = parser(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise HparamsError(f"{path}: cannot be read: {problem}") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise HparamsError(f"{path}: must be a mapping of field names to values, found {kind}")
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping with two equal keys, of which plain YAML silently takes the second."""

    def construct_mapping(self, node, deep=False):
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                problem = f"a {type(key).__name__} cannot be a field's name"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in keys:
                problem = f"field {shown(key)} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep=deep)


def _load_yaml(text: str) -> Any:
    return parse_yaml(text, _UniqueKeyLoader)
