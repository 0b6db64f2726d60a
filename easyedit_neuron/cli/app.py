"""The Hydra application: compose, check, run; every foreseeable mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import difflib
import os
import re
import sys
from contextlib import contextmanager
from unittest import mock

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from .. import resources
from ..errors import NeuronEditError
from ..registry import methods
from . import settings as settings_module
from .settings import HAVE_THEIR_OWN_SETTING, Settings, read_hyperparameters, read_settings

BAD_INPUT = 2


def run_command_line(argv: list[str] | None = None) -> int:
    """Run with the given arguments (default: those of the process) and return the exit code."""
    settings_module.register_groups()
    application = hydra.main(version_base="1.3", config_path=str(resources.CONF_DIR), config_name="config")(_job)
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        with _hydra_process(arguments):
            application()
    except NeuronEditError as problem:
        return _fail(str(problem))
    except (HydraException, OmegaConfBaseException) as problem:
        return _fail(explain(problem))
    return 0


def _job(config: DictConfig) -> None:
    # Loading the model is slow, so what can be told from the settings alone is checked first.
    settings = read_settings(config)
    hparams, source = read_hyperparameters(settings)
    from .run import run

    run(settings, hparams, source, HydraConfig.get().runtime.output_dir, list(HydraConfig.get().overrides.task))


@contextmanager
def _hydra_process(arguments: list[str]):
    # HYDRA_FULL_ERROR lets exceptions through to us; without it Hydra prints some of them itself and exits.
    with mock.patch.object(sys, "argv", ["easyedit-neuron", *arguments]):
        with mock.patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}):
            yield


def _fail(message: str) -> int:
    sys.stderr.write(f"easyedit-neuron: error: {' '.join(message.split())}\n")
    return BAD_INPUT


def explain(problem: Exception) -> str:
    """One line for an error of Hydra's or OmegaConf's, with the nearest valid name."""
    text = str(problem)
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(r"Could not append.*?'([^']+)'", text)
    if unknown:
        return _unknown_setting(unknown.group(1))
    option = re.search(r"Could not find '(\w+)/([^']*)'", text)
    if option:
        group, name = option.groups()
        return f"unknown {group} {name!r}: {_nearest(name, group_options().get(group, []))}"
    return text.split("\nSee https://")[0]


def _unknown_setting(name: str) -> str:
    leaf = name.rpartition(".")[2]
    if name.startswith("method.") and leaf in HAVE_THEIR_OWN_SETTING:
        return f"{name!r} has a setting of its own: {HAVE_THEIR_OWN_SETTING[leaf]}=..."
    return f"unknown setting {name!r}: {_nearest(name, known_settings())}"


def _nearest(name: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [choice.lower() for choice in choices], n=1, cutoff=0.5)
    if close:
        found = next(choice for choice in choices if choice.lower() == close[0])
        return f"did you mean {found!r}?"
    # A setting that is no field of anything: the short list is the useful one.
    return f"known: {', '.join(sorted(choice for choice in choices if not choice.startswith('method.')))}"


def group_options() -> dict[str, list[str]]:
    """The options of every configuration group."""
    folders = {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in resources.CONF_DIR.iterdir()
               if folder.is_dir()}
    return {**folders, "method": [spec.name.lower() for spec in methods()], "model": settings_module.model_names()}


def known_settings() -> list[str]:
    """Dotted names of everything that can be given as ``name=value``, of all methods together."""
    names = set(group_options())
    for section in ("model", "data", "evaluation"):
        holder = Settings.__dataclass_fields__[section].type
        names |= {f"{section}.{field}" for field in getattr(settings_module, holder).__dataclass_fields__}
    names |= {"edits", "batch_size", "seed", "output_dir"}
    for spec in methods():
        names |= {f"method.{field}" for field in settings_module.method_fields(spec)}
    return sorted(names)
