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


@dataclass(frozen=True)
class Response:
    """What a neuron does at every token of a prompt.

    Attributes:
        edit: key of the edit's record; ``subject`` is that of its request.
        texts: the tokens as text.
        shares: the response at each, in units of that at the edited prompt.
    """

    edit: int
    subject: str
    texts: list[str]
    shares: list[float]


@torch.no_grad()
def responses(model, tok, records: Mapping[int, EditRecord], prompts: Sequence[str]) -> list[list[Response]]:
    """For each prompt the responses of all neurons of Lasting's edits, in the order of the records.

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
    result: list[list[Response]] = []
    layers = sorted({layer for _, _, layer, _, _ in neurons})
    for prompt in prompts:
        ids = token_ids(tok, prompt)
        texts = [tok.decode([number]) for number in ids]
        if layers:
            with Capture(view, layers, want={"key"}, stop_after=layers[-1]) as seen:
                view.model(input_ids=torch.tensor([ids], device=view.input_device), use_cache=False)
        of_prompt = []
        for number, subject, layer, units, response in neurons:
            activations = seen.key[layer][0, :, units].to("cpu", view.compute_dtype)
            shares = activations @ signs_of(activations) / response
            of_prompt.append(Response(number, subject, texts, shares.tolist()))
        result.append(of_prompt)
    return result


def firings(model, tok, records: Mapping[int, EditRecord], prompts: Sequence[str]) -> list[list[Firing]]:
    """For each prompt the neurons that respond to it, the strongest first; arguments as of ``responses``."""
    result: list[list[Firing]] = []
    for of_prompt in responses(model, tok, records, prompts):
        fired = []
        for response in of_prompt:
            place = max(range(len(response.shares)), key=lambda i, shares=response.shares: abs(shares[i]))
            share = response.shares[place]
            if abs(share) >= LEAST_SHARE:
                fired.append(Firing(response.edit, response.subject, place, response.texts[place], share))
        result.append(sorted(fired, key=lambda firing: -abs(firing.share)))
    return result
