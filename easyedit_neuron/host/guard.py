"""The built-in editor's checks in front of the calls of EasyEdit's editor, in memory, for our methods only.

EasyEdit loads the model and measures every request before a method is called for the first time, and in a
sequence it has made all earlier edits when it comes to a bad request.
"""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from .. import registry
from ..arch.chat import easyedit_measures
from .checks import check_hparams, check_requests, check_single, warn_of_single_edits
from .model_name_check import check_model_name
from .prepare import prepare_requests, tidy_arguments

LOG = logging.getLogger(__name__)

_SINGLE_CALLS = ("edit", "generate_edit", "edit_requests")
_CHECKED_CALLS = ("__init__", *_SINGLE_CALLS, "batch_edit", "normal_edit")


def guard(base_editor: type) -> None:
    """Put the checks in front of the calls of EasyEdit's ``BaseEditor``; idempotent."""
    for call in _CHECKED_CALLS:
        original = vars(base_editor).get(call)
        if original is not None and not getattr(original, "checked_by_easyedit_neuron", False):
            setattr(base_editor, call, _checked(original, call))


def _checked(original: Callable, call: str) -> Callable:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def checked(self, *args, **kwargs):
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            return original(self, *args, **kwargs)  # the original's error says what is wrong
        arguments = bound.arguments
        hparams = arguments.get("hparams", getattr(self, "hparams", None))
        alg_name = getattr(hparams, "alg_name", None)
        if any(alg_name in spec.names for spec in registry.methods(plugin=True)):
            if call == "__init__":
                _check_before_loading(hparams)
            else:
                tidy_arguments(arguments)
                _check_edit(call, self, hparams, {**arguments, **arguments.get("kwargs", {})})
            with easyedit_measures():
                return original(*bound.args, **bound.kwargs)
        return original(*bound.args, **bound.kwargs)

    checked.checked_by_easyedit_neuron = True
    return checked


def _check_before_loading(hparams) -> None:
    check_model_name(getattr(hparams, "model_name", None))
    check_hparams(hparams)
    for name, here in (("bf16", "bfloat16"), ("load_in_4bit", "in 4 bits")):
        if getattr(hparams, name, False):
            LOG.warning(
                "field %r: EasyEdit ignores it and loads the model in %s; the built-in editor loads %s",
                name,
                "float16" if getattr(hparams, "fp16", False) else "float32",
                here,
            )


def _check_edit(call: str, editor, hparams, arguments: dict[str, Any]) -> None:
    if call in _SINGLE_CALLS:
        check_single(hparams)
    if call != "normal_edit":  # which always puts back
        warn_of_single_edits(bool(arguments.get("sequential_edit", False)))
    if call == "edit_requests":
        requests = arguments["requests"]
    elif getattr(hparams, "NEEDS_SUBJECT", False) and "requests" not in arguments:
        texts = arguments["prompts"], arguments["target_new"]
        requests = prepare_requests(*texts, subject=arguments.get("subject"))
    else:
        return
    check_requests(hparams, requests, editor.model, editor.tok)
