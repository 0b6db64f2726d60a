"""The Hydra application: compose the settings, check them, run.

Every foreseeable mistake is one line on stderr and exit code 2.
"""

import dataclasses
import os
import re
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from unittest import mock

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .. import resources
from ..errors import NeuronEditError
from ..registry import methods
from ..utils.schema import DAMAGE
from ..utils.suggest import did_you_mean
from . import settings as settings_module
from . import sweep
from .output import BAD_INPUT, fail
from .settings import SET_ELSEWHERE, read_hyperparameters, read_settings

QUIET_OPTION, QUIET_SETTING = "--quiet", "runner.quiet=true"  # Hydra has no options of an application's own


def run_command_line(arguments: list[str]) -> int:
    settings_module.register_groups(_swept_methods(arguments))
    configuration = {"config_path": str(resources.CONF_DIR), "config_name": "config"}
    application = hydra.main(version_base="1.3", **configuration)(_job)
    arguments = [QUIET_SETTING if argument == QUIET_OPTION else argument for argument in arguments]
    sweep.failed_jobs.clear()
    try:
        with _hydra_process(arguments):
            application()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except NeuronEditError as problem:
        return fail(str(problem))
    except (HydraException, OmegaConfBaseException) as problem:
        return fail(explain(problem, arguments))
    except DAMAGE as problem:
        # Hydra reads the arguments and makes the folder of the results before the job. What is raised inside
        # of the job is no matter of these.
        in_job = any(frame.f_code is _job.__code__ for frame, _ in walk_tb(problem.__traceback__))
        if in_job:
            raise
        denied = problem if isinstance(problem, OSError) else problem.__cause__ or problem.__context__
        if isinstance(denied, OSError):  # perhaps of the log file, of which logging makes a ValueError
            remedy = "output_dir=... names the folder for the results"
            return fail(f"{denied.filename or 'the results'}: {denied.strerror or denied}; {remedy}")
        reason = "they are nested too deeply" if isinstance(problem, RecursionError) else problem
        return fail(f"cannot read the arguments: {reason}. A setting is name=value, see --help")
    return BAD_INPUT if sweep.failed_jobs else 0


def _chosen_method(arguments: list[str]) -> str | None:
    """What follows ``method=``; several names, divided by commas, in a sweep."""
    values = [text.removeprefix("method=") for text in arguments if text.startswith("method=")]
    return values[-1] if values else None


def _swept_methods(arguments: list[str]) -> list[str]:
    names = (_chosen_method(arguments) or "").split(",")
    return names if len(names) > 1 else []


def _job(config: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    output_dir = hydra_config.runtime.output_dir
    try:
        # Loading the model is slow, so everything that the settings alone can tell is checked first.
        settings = read_settings(config)
        hparams, hparams_file = read_hyperparameters(settings)
        from .run import run

        run(settings, hparams, hparams_file, output_dir, list(hydra_config.overrides.task))
    except (NeuronEditError, OmegaConfBaseException) as problem:
        code = fail(str(problem))
        if hydra_config.mode == RunMode.MULTIRUN:
            # The other jobs of the sweep still run.
            sweep.note_failure(Path(output_dir), str(problem))
        else:
            # Hydra prints a line of its own about every exception of a job, but lets SystemExit pass.
            raise SystemExit(code) from None


@contextmanager
def _hydra_process(arguments: list[str]):
    # Without HYDRA_FULL_ERROR Hydra prints some exceptions itself and exits.
    with (
        mock.patch.object(sys, "argv", ["easyedit-neuron", *arguments]),
        mock.patch.dict(os.environ, {"HYDRA_FULL_ERROR": "1"}),
    ):
        yield


def explain(problem: Exception, arguments: list[str]) -> str:
    """An error of Hydra's or OmegaConf's in our words, with the nearest valid name."""
    text = str(problem).split("\nSee https://")[0]
    setting = re.search(r"Could not override '([^']+)'", text)
    if setting:
        return _unknown_setting(setting.group(1), arguments)
    option = re.search(r"Could not find '(\w+)/([^']*)'", text)
    if option:
        group, name = option.groups()
        return f"unknown {group} {name!r}: {did_you_mean(name, group_options().get(group, []))}"
    if isinstance(problem, OverrideParseException):
        return f"cannot read the argument {problem.override!r}: {_in_quotes(problem.override) or text}"
    return text


def _in_quotes(override: str) -> str | None:
    """How to write a setting whose value has blanks, letters beyond ASCII, or signs of Hydra's own grammar;
    None where quotes do not help."""
    name, equals, value = override.partition("=")
    value = value.strip("'\"")
    quoted = f"""{name}="{value.replace(chr(92), 2 * chr(92)).replace('"', chr(92) + '"')}\""""
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        return None
    reason = "blanks, letters beyond ASCII and signs such as = ( ) ~ need quotes inside of the shell's"
    return f"{reason}: {shlex.quote(quoted)}"


def _unknown_setting(name: str, arguments: list[str]) -> str:
    section, _, leaf = name.rpartition(".")
    if section == "method" and leaf in SET_ELSEWHERE:
        return f"{name!r} has a setting of its own: {SET_ELSEWHERE[leaf]}=..."
    chosen = _chosen_method(arguments)
    method = _default_method() if chosen is None else chosen
    names = setting_names(method)
    group, _, entry = section.partition(".")
    if entry in names.get(group, ()):
        return f"{name!r} adds to a mapping: +{name}=... or {section}={{{leaf}: ...}}"
    if section not in names:
        section, leaf = "", name
    place = f" of method {method}" if section == "method" else ""
    prefix = f"{section}." if section else ""
    choices = [prefix + choice for choice in names[section]]
    return f"unknown setting {name!r}{place}: {did_you_mean(prefix + leaf, choices)}"


def _default_method() -> str:
    defaults = OmegaConf.load(resources.CONF_DIR / "config.yaml").defaults
    return next(entry.method for entry in defaults if "method" in entry)


def group_options() -> dict[str, list[str]]:
    groups = [folder for folder in resources.CONF_DIR.iterdir() if folder.is_dir()]
    folders = {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in groups}
    names = [*(spec.name.lower() for spec in methods()), settings_module.EASYEDIT]
    return {**folders, "method": names, "model": settings_module.model_names()}


def setting_names(method: str) -> dict[str, list[str]]:
    """Everything that can be given as ``name=value``, by section; the section ``""`` is the top level."""
    sections = {
        name: [field.name for field in dataclasses.fields(section)]
        for name, section in settings_module.SECTIONS.items()
    }
    sections["method"] = ["alg"] if method == settings_module.EASYEDIT else []
    for spec in methods():
        if spec.name.lower() == method:
            sections["method"] = settings_module.method_fields(spec)
    return {"": [*sections, "edits", "batch_size", "seed", "run", "output_dir"], **sections}
