"""What both editors look at before any work, so that a mistake is one clear error and leaves no half edited
model."""

from collections.abc import Sequence
from typing import Any

from ..arch.tokens import check_vocabulary
from ..edits import request as request_checks
from ..errors import HparamsError, RequestError


def check_hparams(hparams) -> None:
    """Device and input files, before a model is loaded.

    Raises:
        NeuronEditError: there is no such device here, or a file that the method will read is missing.
    """
    from .load_model import target_device

    target_device(getattr(hparams, "device", None))
    if hasattr(hparams, "check_inputs"):
        hparams.check_inputs()


def check_single(hparams) -> None:
    """``HparamsError`` unless ``batch_size`` is 1, for calls that make one edit at a time."""
    size = getattr(hparams, "batch_size", 1)
    if size != 1:
        raise HparamsError(
            f"field 'batch_size': edit() makes one edit at a time and wants 1, not {size}; "
            "set it to 1, or call batch_edit()"
        )


def check_requests(hparams, requests: Sequence[Any], model, tok) -> list[dict]:
    """The requests as dictionaries, all of them checked; nothing is for methods that ask for no subject.

    Raises:
        NeuronEditError: names the request, the field and the remedy; or the tokenizer is not the model's.
    """
    if isinstance(requests, dict) or not len(requests):
        raise RequestError(
            "requests must be a non-empty list of dictionaries with prompt, target_new and subject"
        )
    requests = [request if isinstance(request, dict) else request.raw for request in requests]
    if getattr(hparams, "NEEDS_SUBJECT", False):
        check_vocabulary(model, tok, request_checks.prepare(requests))
    return requests
