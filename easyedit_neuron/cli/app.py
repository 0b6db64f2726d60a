"""The Hydra application: compose, check, run; every foreseeable mistake is one line on stderr and exit code
2."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from unittest import mock

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from .. import resources
from ..errors import NeuronEditError
from ..registry import methods
from . import settings as settings_module
from . import sweep
from .fail import BAD_INPUT, fail
from .settings import HAVE_THEIR_OWN_SETTING, read_hyperparameters, read_settings

QUIET = ("--quiet", "runner.quiet=true")  # Hydra knows no options of an application's own


def run_command_line(argv: list[str] | None = None) -> int:
    """Run with the given arguments (default: those of the process) and return the exit code."""
    settings_module.register_groups()
    application = hydra.main(version_base="1.3", config_path=str(resources.CONF_DIR), config_name="config")(
        _job
    )
    arguments = sys.argv[1:] if argv is None else list(argv)
    arguments = [QUIET[1] if argument == QUIET[0] else argument for argument in arguments]
    sweep.failed.clear()
    try:
        with _hydra_process(arguments):
            application()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except NeuronEditError as problem:
        return fail(str(problem))
    except (HydraException, OmegaConfBaseException) as problem:
        return fail(explain(problem, arguments))
    except (
        OSError
    ) as problem:  # Hydra makes the folder before the job, in which another file would be to blame
        if problem.filename is None or any(
            frame.f_code is _job.__code__ for frame, _ in walk_tb(problem.__traceback__)
        ):
            raise
        return fail(
            f"{problem.filename}: {problem.strerror}; output_dir=... names the folder for the results"
        )
    return BAD_INPUT if sweep.failed else 0


def _job(config: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    try:
        # Loading the model is slow, so what can be told from the settings alone is checked first.
        settings = read_settings(config)
        hparams, source = read_hyperparameters(settings)
        from .run import run

        run(settings, hparams, source, hydra_config.runtime.output_dir, list(hydra_config.overrides.task))
    except (NeuronEditError, OmegaConfBaseException) as problem:
        code = fail(str(problem))
        if hydra_config.mode == RunMode.MULTIRUN:
            # The other jobs of the sweep are run all the same.
            sweep.note_failure(Path(hydra_config.runtime.output_dir), str(problem))
        else:
            # Hydra prints a line of its own about every exception of a job, but lets SystemExit pass.
            raise SystemExit(code) from None


@contextmanager
def _hydra_process(arguments: list[str]):
    # HYDRA_FULL_ERROR lets exceptions through to us; without it Hydra prints some of them itself and exits.
    with mock.patch.object(sys, "argv", ["easyedit-neuron", *arguments]):
        with mock.patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}):
            yield


def explain(problem: Exception, arguments: list[str]) -> str:
    """What to say about an error of Hydra's or OmegaConf's for these arguments, with the nearest valid
    name."""
    text = str(problem).split("\nSee https://")[0]
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return _unknown_setting(unknown.group(1), arguments)
    option = re.search(r"Could not find '(\w+)/([^']*)'", text)
    if option:
        group, name = option.groups()
        choices = group_options().get(group, [])
        return f"unknown {group} {name!r}: {_nearest(name, choices) or 'known: ' + ', '.join(choices)}"
    if isinstance(problem, OverrideParseException):
        return f"cannot read the argument {problem.override!r}: {text}"
    return text


def _unknown_setting(name: str, arguments: list[str]) -> str:
    section, _, leaf = name.rpartition(".")
    if section == "method" and leaf in HAVE_THEIR_OWN_SETTING:
        return f"{name!r} has a setting of its own: {HAVE_THEIR_OWN_SETTING[leaf]}=..."
    method = next(
        (text.partition("=")[2] for text in reversed(arguments) if text.startswith("method=")), "nmke"
    )
    known = known_settings(method)
    group, _, entry = section.partition(".")
    if entry in known.get(group, ()):
        return f"{name!r} adds to a mapping: +{name}=... or {section}={{{leaf}: ...}}"
    if section not in known:
        section, leaf = "", name
    listed = "the fields that --cfg job shows" if section == "method" else ", ".join(known[section])
    place = f" of method {method}" if section == "method" else ""
    guess = _nearest(leaf, known[section], prefix=f"{section}." if section else "")
    return f"unknown setting {name!r}{place}: {guess or 'known: ' + listed}"


def _nearest(name: str, choices: list[str], prefix: str = "") -> str:
    lowered = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    return f"did you mean {prefix + lowered[close[0]]!r}?" if close else ""


def group_options() -> dict[str, list[str]]:
    """The options of every configuration group."""
    folders = {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in resources.CONF_DIR.iterdir()
        if folder.is_dir()
    }
    names = [*(spec.name.lower() for spec in methods()), settings_module.EASYEDIT]
    return {**folders, "method": names, "model": settings_module.model_names()}


def known_settings(method: str) -> dict[str, list[str]]:
    """Everything that can be given as ``name=value``, by section; the section ``""`` is the top level."""
    sections = {
        name: [field.name for field in dataclasses.fields(section)]
        for name, section in settings_module.SECTIONS.items()
    }
    spec = next((spec for spec in methods() if spec.name.lower() == method), None)
    sections["method"] = (
        settings_module.method_fields(spec) if spec else ["alg"] if method == settings_module.EASYEDIT else []
    )
    return {"": [*sections, "edits", "batch_size", "seed", "run", "output_dir"], **sections}
