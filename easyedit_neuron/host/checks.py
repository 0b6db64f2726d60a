"""What both editors check before any work, so that a mistake is one clear error and changes nothing."""

import logging
from collections.abc import Iterable
from typing import Any

from ..arch.chat import prompt_tokenizer
from ..arch.load_model import target_device
from ..arch.vocabulary import check_vocabulary
from ..edits import request as request_checks
from ..errors import HostError, HparamsError, RequestError
from ..evaluation.sections import plain_requests, sections
from ..utils.shown import shown
from ..utils.spelling import tidied_all

LOG = logging.getLogger(__name__)
REQUESTS = "requests must be a non-empty list of dictionaries with prompt and target_new"
_has_warned = False


def warn_of_single_edits(sequential_edit: bool) -> None:
    """Say once in a process that edits which are not sequential are measured and put back, as EasyEdit does:
    the model that an editor returns is then the unedited one."""
    global _has_warned
    if not sequential_edit and not _has_warned:
        _has_warned = True
        LOG.warning(
            "each edit is measured and then put back: the returned model is the unedited one. "
            "sequential_edit=True keeps the edits"
        )


def check_hparams(hparams) -> None:
    """Check the device and the input files that the method will read, before a model is loaded."""
    target_device(getattr(hparams, "device", None))
    if hasattr(hparams, "check_inputs"):
        hparams.check_inputs()


def check_single(hparams) -> None:
    """``HparamsError`` unless ``batch_size`` is 1, for calls that make one edit at a time."""
    size = getattr(hparams, "batch_size", 1)
    if size != 1:
        problem = (
            f"edit() makes one edit at a time and needs 1, not {size}; set it to 1, or call batch_edit()"
        )
        raise HparamsError(f"field 'batch_size': {problem}")


def check_count(name: str, value: Any) -> None:
    """``HostError`` unless a keyword argument is a whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
        raise HostError(f"{name} must be a whole number from 1 on, not {shown(value)}")


def check_kind(name: str, value: Any, kind: type | tuple[type, ...]) -> None:
    """``HostError`` unless a keyword argument is None or of this type."""
    if value is not None and not isinstance(value, kind):
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise HostError(f"{name} must be of type {names}, not {shown(value)}")


def check_batchable(method, hparams) -> int:
    """``batch_size`` of the hyperparameters; ``HostError`` where the method edits one fact at a time."""
    if not method.batchable:
        raise HostError(f"method {hparams.alg_name!r} edits one fact at a time; use edit()")
    size = getattr(hparams, "batch_size", None)
    if not isinstance(size, int) or size < 1:
        raise HparamsError(
            f"field 'batch_size': batch_edit() needs a whole number from 1 on, not {shown(size)}"
        )
    return size


def check_requests(hparams, requests: Iterable[Any], model, tok) -> list[dict]:
    """The requests as dictionaries, ``tidied``; those of methods that edit by subject are checked."""
    if requests is None or isinstance(requests, (str, dict)) or not isinstance(requests, Iterable):
        kind = "None" if requests is None else f"a {type(requests).__name__}"
        raise RequestError(f"{REQUESTS}, not {kind}; data.load(FILE) reads a file")
    requests = list(requests)
    if not requests:
        raise RequestError(REQUESTS)
    for number, request in enumerate(requests):
        if not isinstance(request, dict) and not hasattr(request, "raw"):  # an ``EditRequest`` has it
            raise RequestError(f"{REQUESTS}; number {number} is {shown(request)}")
    requests = tidied_all(plain_requests(requests))
    if getattr(hparams, "NEEDS_SUBJECT", False):
        texts = [request.text + request.target_new for request in request_checks.prepare(requests)]
    else:
        texts = [
            section.prompts[0] + " " + section.answers[0]
            for section in sections(requests)
            if section.is_rewrite
        ]
    check_vocabulary(model, prompt_tokenizer(tok, hparams), texts)
    return requests
