"""Which edit's neuron answers a prompt, at which token, and how strongly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ...arch.capture import Capture
from ...arch.tokens import token_ids
from ...arch.widen import view_of_grown
from ...edits.record import EditRecord
from .neurons import signs_of

LEAST_SHARE = 0.05


@dataclass(frozen=True)
class Firing:
    """A response to a prompt.

    Attributes:
        edit: key of the edit's record; ``subject`` is that of its request.
        token: number of the token at which the response is largest, and ``text``, that token.
        share: the response in units of that at the edited prompt, which is 1.
    """

    edit: int
    subject: str
    token: int
    text: str
    share: float


@torch.no_grad()
def firings(model, tok, records: Mapping[int, EditRecord], prompts: Sequence[str]) -> list[list[Firing]]:
    """For each prompt the neurons of Lasting's edits that respond to it, the strongest first.

    Args:
        model, tok: the model with these edits.
        records: edits by any number, of other methods too; those have no neurons of their own.
        prompts: texts.
    """
    view = view_of_grown(model)
    neurons = [
        (number, request["subject"], layer, units, response)
        for number, record in records.items()
        for request, (layer, units), response in zip(
            record.requests, record.info.get("neurons", []), record.info.get("responses", [])
        )
    ]
    result: list[list[Firing]] = []
    layers = sorted({layer for _, _, layer, _, _ in neurons})
    for prompt in prompts:
        ids = token_ids(tok, prompt)
        fired = []
        if layers:
            with Capture(view, layers, want={"key"}, stop_after=layers[-1]) as seen:
                view.model(input_ids=torch.tensor([ids], device=view.input_device), use_cache=False)
        for number, subject, layer, units, response in neurons:
            activations = seen.key[layer][0, :, units].to("cpu", view.compute_dtype)
            shares = activations @ signs_of(activations) / response
            place = int(shares.abs().argmax())
            if abs(shares[place]) >= LEAST_SHARE:
                text = tok.decode([ids[place]])
                fired.append(Firing(number, subject, place, text, float(shares[place])))
        result.append(sorted(fired, key=lambda firing: -abs(firing.share)))
    return result
