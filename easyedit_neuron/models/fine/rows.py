"""FiNE's token rows: prompt and object of every request."""

from dataclasses import dataclass

from ...arch.tokens import target_token_ids, token_ids
from ...attribution import TargetTokens
from ...edits.request import EditRequest
from ...errors import HparamsError, RequestError


@dataclass(frozen=True)
class Row:
    """Token ids of a request's prompt and object, and its name for errors."""

    prompt: list[int]
    target: list[int]
    name: str


def rows_of(
    tok, requests: list[EditRequest], hparams, model_type: str, field: str = "target_new"
) -> list[Row]:
    """Tokenise the requests.

    Args:
        tok: tokenizer, not changed.
        requests: n edits.
        hparams: ``FiNEHyperParams``: ``add_eos``, ``eos_before_prompt``.
        model_type: ``config.model_type``.
        field: ``target_new``, or ``ground_truth`` (the old object).

    Raises:
        RequestError: a prompt or an object without tokens, or ``field: ground_truth`` and no old object.
        HparamsError: an end-of-text token is to be added, and the tokenizer has none.
    """
    eos_first = model_type == "gptj" if hparams.eos_before_prompt is None else hparams.eos_before_prompt
    for name, is_set in (("add_eos", hparams.add_eos), ("eos_before_prompt", eos_first)):
        if is_set and tok.eos_token_id is None:
            raise HparamsError(f"field '{name}': the tokenizer has no end-of-text token; set it to false")
    eos, rows = [tok.eos_token_id], []
    for request in requests:
        text = getattr(request, field)
        if text is None:
            raise RequestError(f"request {request.index}: locate_on {field!r} needs field {field!r}")
        prompt = (eos if eos_first else []) + token_ids(tok, request.text)
        if not prompt:
            raise RequestError(
                f"request {request.index}: prompt {request.text!r} has no tokens; give it at least one word"
            )
        target = target_token_ids(tok, text) + (eos if hparams.add_eos else [])
        rows.append(Row(prompt, target, f"request {request.index} ({request.text!r} -> {text.strip()!r})"))
    return rows


def padded(rows: list[Row], device) -> TargetTokens:
    """Prompts and whole objects as one batch; the repetition penalty is computed after the object."""
    return TargetTokens.of([row.prompt for row in rows], [row.target for row in rows], device, whole=True)
