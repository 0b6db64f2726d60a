"""Which neurons FiNE trains: those that contribute most to the tokens of the object (paper, Algorithm 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...arch.view import ModelView
from ...attribution import contribution_scores
from ...edits.request import EditRequest
from ...errors import HparamsError
from ...utils.fingerprint import key_fingerprint
from .rows import Places, Row, rows_of


@dataclass(frozen=True)
class Neurons:
    """The N neurons of one request, token by token, the highest contribution first; CPU.

    Attributes:
        layers, units: int64 [N]; a neuron may stand there once for each token.
        token_ids: int64 [N], the token that the neuron was chosen for.
        scores: [N] its contribution to that token, NaN where neurons were drawn at random.
    """

    layers: Tensor
    units: Tensor
    token_ids: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.layers)

    def once(self) -> "Neurons":
        """Every neuron where it stands first."""
        seen: dict[tuple[int, int], int] = {}
        for number, place in enumerate(zip(self.layers.tolist(), self.units.tolist())):
            seen.setdefault(place, number)
        first = torch.tensor(list(seen.values()))
        return Neurons(self.layers[first], self.units[first], self.token_ids[first], self.scores[first])


def locate(view: ModelView, tok, requests: list[EditRequest], hparams) -> list[Neurons]:
    """Neurons of every request, found on the weights as they are.

    ``c = q_i (W_u W_down)_{t,i}`` (Eq. 3) of every neuron of the layers that are searched, for every token t
    of the object, from one forward pass and one product per layer; the ``neuron_num`` highest of each token.
    t is what the model itself says at each position of the new object (``locate_on: prediction``), or the old
    object's token (``ground_truth``).

    Args:
        view, tok: model and tokenizer.
        requests: n prepared requests (``requests.prepare``).
        hparams: ``FiNEHyperParams``.

    Returns:
        n Neurons.

    Raises:
        HparamsError: a layer that the model does not have, none left, or fewer neurons than asked for.
        RequestError: ``ground_truth`` for a request without one; an object without tokens.
    """
    predicted = hparams.locate_on == "prediction"
    layers = hparams.searched_layers(view.n_layers)
    available = len(layers) * view.d_ff
    if hparams.neuron_num > available:
        raise HparamsError(
            f"field 'neuron_num': {len(layers)} layers have {available} neurons, got {hparams.neuron_num}"
        )
    rows = rows_of(
        tok, requests, hparams, view.model.config.model_type, "target_new" if predicted else "ground_truth"
    )
    if hparams.random:
        found = [_drawn(request, row, layers, view.d_ff, hparams) for request, row in zip(requests, rows)]
    else:
        found = _highest(view, rows, layers, predicted, hparams.neuron_num)
    return [neurons.once() for neurons in found] if hparams.repeated_neurons == "once" else found


def _highest(
    view: ModelView, rows: list[Row], layers: list[int], predicted: bool, count: int
) -> list[Neurons]:
    made = contribution_scores(view, Places.of(rows, view.input_device).targets, layers, predicted)
    # the best of each layer first: all layers' scores next to each other would be held a second time
    best = [made.scores[layer].topk(min(count, view.d_ff), dim=1) for layer in layers]
    values = torch.cat([layer.values.cpu() for layer in best], dim=1)
    units = torch.cat([layer.indices.cpu() for layer in best], dim=1)
    owners = torch.tensor(layers).repeat_interleave(min(count, view.d_ff))
    scores, at = values.topk(count, dim=1)  # [R, k]
    units, tokens = units.gather(1, at), made.token_ids[:, None].expand_as(at)
    owned = [made.owner == number for number in range(len(rows))]
    return [Neurons(*(x[mine].flatten() for x in (owners[at], units, tokens, scores))) for mine in owned]


def _drawn(request: EditRequest, row: Row, layers: list[int], d_ff: int, hparams) -> Neurons:
    """Different neurons for every token; they depend on seed and request alone, not on the batch."""
    key = {"seed": hparams.seed, "prompt": request.text, "answer": row.answer}
    generator = torch.Generator().manual_seed(int(key_fingerprint(key), 16) >> 1)
    drawn = torch.cat(
        [torch.randperm(len(layers) * d_ff, generator=generator)[: hparams.neuron_num] for _ in row.answer]
    )
    tokens = torch.tensor(row.answer).repeat_interleave(hparams.neuron_num)
    return Neurons(
        torch.tensor(layers)[drawn // d_ff], drawn % d_ff, tokens, torch.full((len(drawn),), torch.nan)
    )
