"""EasyEdit's editor looks before it leaps, for our methods only: the checks of the built-in editor in front
of its calls.

EasyEdit loads the model and measures every request before a method is called for the first time, and in a
sequence it has made all earlier edits when it comes to a bad request. So the checks are put in front of the
calls themselves: in memory, as the registration is, with arguments and results as they are; for EasyEdit's
    own methods nothing is looked at.
"""

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from .. import registry
from .checks import check_hparams, check_requests, check_single
from .model_name_check import check_route
from .prepare import prepare_requests

LOG = logging.getLogger(__name__)


def guard(base_editor: type) -> None:
    """Put the checks in front of the calls of EasyEdit's ``BaseEditor``; idempotent."""
    for name, check in _CHECKS.items():
        original = vars(base_editor).get(name)
        if original is not None and not getattr(original, "checked_by_easyedit_neuron", False):
            setattr(base_editor, name, _checked(original, check))


def _checked(original: Callable, check: Callable[[Any, Any, dict[str, Any]], None]) -> Callable:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def checked(self, *args, **kwargs):
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            return original(self, *args, **kwargs)  # which says what is wrong
        hparams = given.get("hparams", getattr(self, "hparams", None))
        if _is_ours(hparams):
            check(self, hparams, {**given, **given.get("kwargs", {})})
        return original(self, *args, **kwargs)

    checked.checked_by_easyedit_neuron = True
    return checked


def _is_ours(hparams) -> bool:
    name = getattr(hparams, "alg_name", None)
    return any(name in spec.names for spec in registry.methods(plugin=True))


def _before_loading(editor, hparams, given) -> None:
    check_route(getattr(hparams, "model_name", None))
    check_hparams(hparams)
    if getattr(hparams, "bf16", False):
        LOG.warning(
            "field 'bf16': EasyEdit knows fp16 only and loads the model in %s; the built-in editor loads it in bfloat16",
            "float16" if getattr(hparams, "fp16", False) else "float32",
        )


def _single(editor, hparams, given) -> None:
    check_single(hparams)
    _batch(editor, hparams, given)


def _batch(editor, hparams, given) -> None:
    if getattr(hparams, "NEEDS_SUBJECT", False) and "requests" not in given:
        requests = prepare_requests(given["prompts"], given["target_new"], subject=given.get("subject"))
        check_requests(hparams, requests, editor.model, editor.tok)


def _ready_requests(editor, hparams, given) -> None:
    check_single(hparams)
    check_requests(hparams, given["requests"], editor.model, editor.tok)


_CHECKS = {
    "__init__": _before_loading,
    "edit": _single,
    "generate_edit": _single,
    "edit_requests": _ready_requests,
    "batch_edit": _batch,
    "normal_edit": _batch,
}
