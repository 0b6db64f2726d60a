"""Which neurons FiNE trains: those that contribute most to the tokens of the object (paper, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...arch.view import ModelView
from ...attribution import contribution_scores
from ...edits.request import EditRequest
from ...errors import HparamsError
from ...utils.fingerprint import key_fingerprint
from .rows import Row, padded, rows_of


@dataclass(frozen=True)
class Neurons:
    """The N neurons of one request, token by token, in descending order of contribution; CPU.

    Attributes:
        layers, units: int64 [N]; a neuron may occur once for each token.
        token_ids: int64 [N], the token for which the neuron was chosen.
        scores: [N] its contribution to that token, NaN for neurons drawn at random.
    """

    layers: Tensor
    units: Tensor
    token_ids: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.layers)

    def once(self) -> Neurons:
        """Every neuron only where it occurs first."""
        first: dict[tuple[int, int], int] = {}
        for place, neuron in enumerate(zip(self.layers.tolist(), self.units.tolist())):
            first.setdefault(neuron, place)
        index = torch.tensor(list(first.values()))
        return Neurons(self.layers[index], self.units[index], self.token_ids[index], self.scores[index])


def locate(view: ModelView, tok, requests: list[EditRequest], hparams) -> list[Neurons]:
    """Locate the neurons of every request on the present weights.

    ``c = q_i (W_u W_down)_{t,i}`` (Eq. 3) of every neuron of the searched layers, for every token t of the
    object, from one forward pass and one product per layer; the ``neuron_num`` highest of each token. t is
    the model's own prediction at each position of the new object (``locate_on: prediction``), or the old
    object's token (``ground_truth``).

    Args:
        view, tok: model and tokenizer.
        requests: n prepared requests (``edits.request.prepare``).
        hparams: ``FiNEHyperParams``.

    Returns:
        n Neurons.

    Raises:
        HparamsError: a layer that the model does not have, no layer left, or fewer neurons than neuron_num.
        RequestError: ``ground_truth`` for a request without one; an object without tokens.
    """
    by_prediction = hparams.locate_on == "prediction"
    layers = hparams.searched_layers(view.n_layers)
    available = len(layers) * view.d_ff
    if hparams.neuron_num > available:
        raise HparamsError(
            f"field 'neuron_num': {len(layers)} layers have {available} neurons, got {hparams.neuron_num}"
        )
    field = "target_new" if by_prediction else "ground_truth"
    rows = rows_of(tok, requests, hparams, view.model.config.model_type, field)
    if hparams.random:
        neurons = [_drawn(request, row, layers, view.d_ff, hparams) for request, row in zip(requests, rows)]
    else:
        neurons = _highest(view, rows, layers, by_prediction, hparams.neuron_num)
    return [located.once() for located in neurons] if hparams.repeated_neurons == "once" else neurons


def _highest(
    view: ModelView, rows: list[Row], layers: list[int], by_prediction: bool, count: int
) -> list[Neurons]:
    contributions = contribution_scores(view, padded(rows, view.input_device), layers, by_prediction)
    # Select within each layer first, so that the scores of all layers are not copied side by side.
    per_layer = min(count, view.d_ff)
    best = [contributions.scores[layer].topk(per_layer, dim=1) for layer in layers]
    values = torch.cat([layer.values.cpu() for layer in best], dim=1)
    units = torch.cat([layer.indices.cpu() for layer in best], dim=1)
    layer_of = torch.tensor(layers).repeat_interleave(per_layer)
    scores, place = values.topk(count, dim=1)  # [R, k]
    units, tokens = units.gather(1, place), contributions.token_ids[:, None].expand_as(place)
    neurons = []
    for number in range(len(rows)):
        of_request = contributions.owner == number
        columns = (layer_of[place], units, tokens, scores)
        neurons.append(Neurons(*(column[of_request].flatten() for column in columns)))
    return neurons


def _drawn(request: EditRequest, row: Row, layers: list[int], d_ff: int, hparams) -> Neurons:
    """Random neurons, different for every token; they depend on seed and request, not on the batch."""
    key = {"seed": hparams.seed, "prompt": request.text, "answer": row.target}
    generator = torch.Generator().manual_seed(int(key_fingerprint(key), 16) >> 1)
    total, count = len(layers) * d_ff, hparams.neuron_num
    drawn = torch.cat([torch.randperm(total, generator=generator)[:count] for _ in row.target])
    tokens = torch.tensor(row.target).repeat_interleave(count)
    scores = torch.full((len(drawn),), torch.nan)
    return Neurons(torch.tensor(layers)[drawn // d_ff], drawn % d_ff, tokens, scores)
