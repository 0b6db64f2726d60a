"""From the composed Hydra configuration to checked settings and hyperparameters."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath
from typing import Any, Literal

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from .. import resources
from ..data import SHAPES
from ..errors import HparamsError
from ..host.hparams import easyedit_hparams_file
from ..hyperparameters.base import HyperParams, find_hparams, read_hparams
from ..hyperparameters.options import SEED, doc
from ..lifelong import EASYEDIT_PREFIX
from ..lifelong.tracking.names import check_callbacks
from ..registry import MethodSpec, get_method, methods
from ..utils.shown import shown
from .commands import COMMANDS

MISSING = "???"
EASYEDIT = "easyedit"
"""The option of the group ``method`` for EasyEdit's own methods."""

SET_ELSEWHERE = {"alg_name": "method", "model_name": "model.path", "batch_size": "batch_size", "seed": "seed"}
"""Hyperparameter -> the setting that fills it, so that ``method.<field>`` is refused."""


def register_groups(swept: Sequence[str] = ()) -> None:
    """Tell Hydra the options of the groups ``method`` (the registry) and ``model`` (the shipped files).

    A method's fields are left missing: their values come from ``hparams/<METHOD>/<model>.yaml``.

    Args:
        swept: methods of a sweep. Hydra first reads the command with the default method in their place, which
            therefore takes their fields too; each job then reads it with its own.
    """
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("commands", lambda: "|".join(COMMANDS), replace=True)
    store = ConfigStore.instance()
    shared = [name for spec in methods() if spec.name.lower() in swept for name in method_fields(spec)]
    for spec in methods():
        names = method_fields(spec) + ([] if spec.name.lower() in swept else shared)
        node = {"name": spec.name, **dict.fromkeys(names, MISSING)}
        store.store(group="method", name=spec.name.lower(), node=node)
    store.store(group="method", name=EASYEDIT, node={"name": EASYEDIT, "alg": MISSING})
    for name in model_names():
        store.store(group="model", name=name, node={"name": name, "hparams": None, "path": None})


def run_folder(run: Any, day: str, time: str) -> str:
    """Where a run's files go by default: a named run to ``results/``, others to ``outputs/``.

    ``HparamsError`` for a name that leads out of ``results``.
    """
    if run is None:
        return f"outputs/{day}/{time}"
    path = PurePath(str(run).replace("\\", "/"))
    if not path.parts or ".." in path.parts or path.is_absolute() or not str(run).isprintable():
        problem = f"{shown(str(run))} is no name of a folder below results"
        raise HparamsError(f"setting 'run': {problem}; output_dir=... names any other folder")
    return f"results/{run}"


def method_fields(spec: MethodSpec) -> list[str]:
    """Hyperparameters of a method that can be given as ``method.<field>``, and ``preset`` where it has
    any."""
    hparams_class = spec.load_hparams()
    presets = ["preset"] if getattr(hparams_class, "PRESETS", None) else []
    return [*(item.name for item in fields(hparams_class) if item.name not in SET_ELSEWHERE), *presets]


def model_names() -> list[str]:
    """Models with at least one shipped hyperparameter file."""
    return sorted({name.split("/")[1] for name in resources.shipped_hparams()})


# The sections of the configuration. Their base class checks for unknown, missing and ill-typed fields.

_HELP = "see easyedit_neuron/conf"


def _number(default: Any, **bounds: float) -> Any:
    return doc(_HELP, default, **bounds)


@dataclass
class ModelSettings(HyperParams):
    """``model``: the hyperparameter file, and where the weights are (default: the file's model_name)."""

    name: str
    hparams: str | None = None
    path: str | None = None


@dataclass
class DataSettings(HyperParams):
    """``data``: the edits, and what is measured beside them."""

    path: str
    shape: str | None = None
    invalid: Literal["error", "skip"] = "error"
    rephrasings: Literal["first", "all"] = "first"
    part: Literal["all", "choose", "report"] = "all"
    skip: int = _number(0, least=0)
    sample_seed: int | None = _number(None, **SEED)
    retained: str | None = None
    text: str | None = None

    def validate(self) -> None:
        if self.path == MISSING:
            raise HparamsError("field 'path': give the JSON file with the edits, data.path=...")
        if self.shape is not None and self.shape not in SHAPES:
            raise HparamsError(f"field 'shape': unknown shape {self.shape!r}; known: {', '.join(SHAPES)}")


@dataclass
class EvaluationSettings(HyperParams):
    """``evaluation``: what is measured, and on how much."""

    batch_size: int = _number(64, least=1)
    immediate: bool = True
    exact_match: bool = True
    whole_answers: bool = False
    judge: str | None = None
    judge_model: str | None = None
    locality_in_chat: bool = False
    first_token: int = _number(0, least=0)
    answers: int = _number(100, least=0)
    retained: int | None = _number(None, least=1)
    fluency: int = _number(20, least=0)
    fluency_tokens: int = _number(50, least=1)
    perplexity: int = _number(500, least=0)
    ability: list[str] | None = None
    ability_checkpoints: list[int] | None = _number(None, least=1)
    ability_limit: int | None = _number(None, least=1)
    ability_batch_size: int = _number(64, least=1)
    ability_data: str | None = None
    ability_run_code: bool = False
    ability_max_new_tokens: int | None = _number(None, least=1)

    def validate(self) -> None:
        if (self.judge is None) != (self.judge_model is None):
            missing = "judge_model" if self.judge_model is None else "judge"
            raise HparamsError(
                f"field '{missing}': judge (an address) and judge_model go together; give both"
            )
        if self.judge is not None and not self.judge.startswith(("http://", "https://")):
            problem = f"{shown(self.judge)} is no address; as in http://127.0.0.1:8000/v1"
            raise HparamsError(f"field 'judge': {problem}")


@dataclass
class RunnerSettings(HyperParams):
    """``runner``: order of the edits, when to measure and save, what to do when an edit fails."""

    checkpoints: list[int] = doc(_HELP, factory=list, least=1)
    order: Literal["file", "shuffled"] = "file"
    on_failure: Literal["continue", "stop"] = "continue"
    guard_every: int | Literal["auto"] | None = _number("auto", least=1)
    guard_retained: float | None = _number(0.9, least=0, most=1)
    guard_perplexity: float | None = _number(1.1, above=0)
    guard_rel: float | None = _number(0.9, least=0, most=1)
    guard_action: Literal["warn", "stop", "roll_back"] = "warn"
    forecast_from: int | None = _number(100, least=1)
    save_every_edits: int | None = _number(None, least=1)
    save_every_minutes: float | None = _number(10.0, above=0)
    untouched: str | None = None
    callbacks: list[str] = doc(_HELP, factory=list)
    keep_weights: bool = True
    edit_log: bool = True
    report: bool = True
    quiet: bool = False

    def validate(self) -> None:
        check_callbacks(self.callbacks, "field 'callbacks'")


SECTIONS = {"model": ModelSettings, "data": DataSettings}
SECTIONS |= {"evaluation": EvaluationSettings, "runner": RunnerSettings}


@dataclass
class Settings(HyperParams):
    """The whole run; ``method`` holds the hyperparameters given on the command line."""

    model: ModelSettings
    data: DataSettings
    evaluation: EvaluationSettings
    output_dir: str
    method_name: str
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    run: str | None = None
    method: dict = field(default_factory=dict)
    edits: int | Literal["all"] = _number(100, least=1)
    batch_size: int = _number(1, least=1)
    seed: int = _number(0, **SEED)

    def validate(self) -> None:
        checkpoints = self.runner.checkpoints
        unknown = set(self.evaluation.ability_checkpoints or []) - set(checkpoints)
        if unknown:
            problem = f"{min(unknown)} is not among runner.checkpoints, which are {checkpoints}; add it there"
            raise HparamsError(f"field 'evaluation.ability_checkpoints': {problem}")


def read_settings(config: DictConfig) -> Settings:
    """Check the composed configuration; ``HparamsError`` names the setting."""
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    values.pop("hydra", None)
    for name, section in SECTIONS.items():
        if not isinstance(values.get(name), dict):
            raise HparamsError(f"setting '{name}': choose an option of the group, as in {name}=...")
        values[name] = section.from_dict(values[name], source=f"setting '{name}'")
    method = values.pop("method", None)
    if not isinstance(method, dict) or "name" not in method:
        raise HparamsError("setting 'method': choose an option of the group, as in method=nmke")
    values["method_name"] = method.pop("name")
    if values["method_name"] == EASYEDIT:
        alg = method.pop("alg", MISSING)
        if alg == MISSING:
            raise HparamsError("setting 'method.alg': name a method of EasyEdit's, as in method.alg=GRACE")
        values["method_name"] = EASYEDIT_PREFIX + alg
    values["method"] = {name: value for name, value in method.items() if value != MISSING}
    return Settings.from_dict(values, source="settings")


def read_hyperparameters(settings: Settings) -> tuple[HyperParams, Path]:
    """The hyperparameters of the run, and the file that they come from.

    The file is ``model.hparams`` or the shipped one of method and model; fields of the command line replace
    the file's.
    """
    hparams, path = _read_hyperparameters(settings)
    if settings.evaluation.locality_in_chat and not getattr(hparams, "use_chat_template", False):
        raise HparamsError(
            "setting 'evaluation.locality_in_chat': the edits are not made in the chat; add "
            "method.use_chat_template=true, or leave it out"
        )
    return hparams, path


def _read_hyperparameters(settings: Settings) -> tuple[Any, Path]:
    if settings.method_name.startswith(EASYEDIT_PREFIX):
        return _read_easyedit_hyperparameters(settings)
    for name in settings.method:
        if name in SET_ELSEWHERE:
            raise HparamsError(f"'method.{name}' has a setting of its own: {SET_ELSEWHERE[name]}=...")
    spec = get_method(settings.method_name)
    hparams_class = spec.load_hparams()
    path = _hparams_file(settings, spec)
    values = read_hparams(path)
    names = {item.name for item in fields(hparams_class)}
    values.update({name: getattr(settings, name) for name in ("batch_size", "seed") if name in names})
    if settings.model.path:
        values["model_name"] = settings.model.path
    # Checked twice, so that an error names the file or the command line.
    hparams = hparams_class.from_dict(values, source=path).override(settings.method, "setting 'method'")
    if getattr(hparams, "localize", None) == "shared" and hparams.localization_data is None:
        # KNE's shared ensemble is located on the run's own data unless other data is named.
        hparams = hparams.override({"localization_data": settings.data.path})
    return hparams, path


def _read_easyedit_hyperparameters(settings: Settings) -> tuple[Any, Path]:
    from ..lifelong.easyedit_method import EasyEditMethod  # imports EasyEdit

    alg = settings.method_name.removeprefix(EASYEDIT_PREFIX)
    method = EasyEditMethod(alg)
    changes = {"batch_size": settings.batch_size}
    if settings.model.hparams:
        path = Path(settings.model.hparams).expanduser()
    else:
        path, own = easyedit_hparams_file(alg, settings.model.name)
        changes |= own
    changes |= settings.method
    if settings.model.path:
        changes["model_name"] = settings.model.path
    return method.hyperparameters(path, changes), path


def _hparams_file(settings: Settings, spec: MethodSpec) -> Path:
    if settings.model.hparams:
        return find_hparams(settings.model.hparams)
    return shipped_hparams_file(spec, settings.model.name, "model.hparams=FILE reads your own")


def shipped_hparams_file(spec: MethodSpec, model: str, remedy: str) -> Path:
    """The shipped hyperparameters of a method for a model; ``HparamsError`` with ``remedy`` if there are
    none.

    A method of another package may share the files of one of ours.
    """
    shipped, names = resources.shipped_hparams(), (spec.name, *spec.load_hparams().ALG_ALIASES)
    for name in names:
        if f"{name}/{model}" in shipped:
            return resources.hparams_path(f"{name}/{model}")
    models = [file.split("/")[1] for file in shipped if file.split("/")[0] in names]
    others = f"only for: {', '.join(models) or 'none'}; {remedy}"
    raise HparamsError(f"no hyperparameters for {spec.name} on {model!r} are shipped, {others}")
