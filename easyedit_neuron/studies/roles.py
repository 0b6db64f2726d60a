"""Roles of neurons by layer: shares of general, specific and overlapping ones (NMKE, Fig. 8 and 11; PNKE,
Fig. 4).

    python -m easyedit_neuron.studies.roles --model tiny-llama --data tiny-world --edits 30 --out roles

For each request by itself, two definitions of two roles:

- NMKE (Eq. 4-8): a neuron is general when it scores positively on so many of the request's contexts that it
  is among the best rho_g, specific when its greatest score is among the best rho_s; scores are
  log-probability shifts.
- PNKE (Eq. 2 and 3): background when, over P_sem, its mean activation is above the 75th and its standard
  deviation below the 25th percentile; trigger when its activation and its attribution on P_spec are both
  above the 90th.

The thresholds of both are quantiles *of a layer*, so that the shares that they can give are fixed beforehand:
at most 25% background, at most 10% trigger, and about rho general and specific neurons in every layer,
whatever the layer does. ``scope: layer`` is that. With ``scope: model`` the same functions get the scores of
all layers next to each other, thresholds and entropies are the model's, and a layer can have more neurons of
a role than another. ``lift`` is the overlap over what two independent choices of these sizes would share,
``overlap / (first * second)``, both averaged over the requests; ``<column>_std`` is the standard deviation
over requests.

Activations (Fig. 8): ``|q|`` of the prompts' last tokens by layer, of the neurons in NMKE's mask and of the
    others, and the
standard deviation of q over the prompts.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import data
from ..arch.tokens import encode
from ..attribution import neuron_scores
from ..edits.request import EditRequest, prepare
from ..locate_then_edit.context_templates import contexts_of
from ..masks import ScoringContext, chosen_mask
from ..masks.registry import load as load_target
from ..models.nmke.nmke_mask import nmke_mask
from ..models.pnke.pnke_mask import CausalScores, background_neurons, trigger_neurons
from .command import Subject, hparams_of, layers_of, load, parser, run
from .output import Plot, Result, Table
from .plots import curves, marks, stacked
from .spread import deviation, mean

NAMES = {"NMKE": ("general", "specific"), "PNKE": ("background", "trigger")}
"""Definition -> its two roles."""

SCOPES = {"layer": "thresholds of each layer", "model": "thresholds of the whole model"}
Roles = tuple[Tensor, Tensor]
BATCH = 8
"""Requests whose prompts are scored together."""


def shares(first: Tensor, second: Tensor) -> dict[str, float]:
    """Shares of ``[n]`` neurons in one role alone, in both, in the other alone, in neither: they add up to
    1."""
    parts = (first & ~second, first & second, second & ~first, ~first & ~second)
    return dict(
        zip(("first", "overlap", "second", "neither"), (float(part.double().mean()) for part in parts))
    )


def in_scope(
    scope: str, scores: dict[int, Tensor | CausalScores], roles: Callable[..., Roles]
) -> dict[int, Roles]:
    """The roles of every layer's neurons, by thresholds of each layer, or of all layers' neurons together.

    Args:
        scope: ``layer`` or ``model``.
        scores: layer -> ``[B, d_ff]`` or ``CausalScores``.
        roles: scores -> two bool tensors, as long as the scores have neurons.
    """
    if scope == "layer":
        return {layer: roles(found) for layer, found in scores.items()}
    first, second = roles(_joined(list(scores.values())))
    each = len(first) // len(scores)
    return dict(zip(scores, zip(first.split(each), second.split(each))))


def _joined(scores: list) -> Tensor | CausalScores:
    if isinstance(scores[0], Tensor):
        return torch.cat([one.cpu() for one in scores], dim=1)
    names = ("specific", "semantic", "attribution")
    return CausalScores(*(torch.cat([getattr(one, name).cpu() for one in scores], dim=-1) for name in names))


class Definitions:
    """Both definitions on one model: ``scores`` of a request, and roles from them."""

    def __init__(self, subject: Subject, layers: list[int], nmke, pnke):
        self.subject, self.layers, self.pnke = subject, layers, pnke
        self.choices = {
            "NMKE": chosen_mask(nmke),
            "PNKE": chosen_mask(pnke.override({"strategy": "entropy"})),
        }
        self.contexts = {
            name: contexts_of(subject.model, subject.tok, one)
            for name, one in (("NMKE", nmke), ("PNKE", pnke))
        }

    def scores(self, definition: str, requests: list[EditRequest]) -> list[dict[int, Tensor | CausalScores]]:
        """Of every request: layer -> what its roles are made from. The prompts of all requests go through the
        model together."""
        view, tok, contexts = self.subject.view, self.subject.tok, self.contexts[definition]
        context = ScoringContext(view, tok, requests, contexts, self.layers)
        choice = self.choices[definition]
        options = choice.scores_options
        if definition == "PNKE":
            options = dataclasses.replace(options, psem_cache_dir=None)  # a look leaves no files
        found = load_target(choice.scores.function)(context, options)
        if definition == "NMKE":  # rows are prompts, request by request
            found = {layer: scores.chunk(len(requests)) for layer, scores in found.items()}
        return [{layer: each[number] for layer, each in found.items()} for number in range(len(requests))]

    def roles(self, definition: str, scores: Tensor | CausalScores) -> Roles:
        """General and specific, or background and trigger."""
        if definition == "NMKE":
            mask = nmke_mask(scores, self.choices["NMKE"].options)
            return mask.general, mask.specific
        p = self.pnke
        return (
            background_neurons(scores.semantic, p.background_activation, p.background_std, p.thresholds),
            trigger_neurons(
                scores.specific, scores.attribution, p.trigger_activation, p.trigger_attribution, p.thresholds
            ),
        )


def study(arguments: argparse.Namespace) -> Result:
    """Both definitions in both scopes, and the activations."""
    nmke, pnke = (
        hparams_of("NMKE", arguments.model, arguments.nmke),
        hparams_of("PNKE", arguments.model, arguments.pnke),
    )
    requests = prepare(data.load(arguments.data, size=arguments.edits))
    subject = load(arguments)
    layers = layers_of(subject.view, arguments.layers)
    definitions = Definitions(subject, layers, nmke, pnke)
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    selected: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(requests), BATCH):
        for definition in NAMES:
            for scores in definitions.scores(definition, requests[start : start + BATCH]):
                for scope in SCOPES:
                    roles = in_scope(scope, scores, lambda some: definitions.roles(definition, some))
                    for layer, pair in roles.items():
                        found.setdefault((definition, scope, layer), []).append(shares(*pair))
                        if (definition, scope) == ("NMKE", "layer"):
                            selected[layer].append((pair[0] | pair[1]).cpu())
    rows = [_row(*key, several) for key, several in sorted(found.items())]
    activity = activations(
        subject, requests, {layer: torch.stack(masks) for layer, masks in selected.items()}
    )
    return Result(
        "roles",
        f"Roles of neurons by layer: {arguments.model}, {len(requests)} requests of {arguments.data}",
        "Means and standard deviations over requests of the shares of a layer's neurons. Thresholds of each layer: the "
        "papers' definitions, whose quantiles fix how large a share can be. Thresholds of the whole model: the same "
        "with all layers' neurons together.",
        [*_pictures(rows), *_line_pictures(rows, activity)],
        [Table("roles", "Shares of the neurons", rows), Table("activations", "Activations", activity)],
    )


def activations(
    subject: Subject, requests: Sequence[EditRequest], selected: dict[int, Tensor]
) -> list[dict[str, float]]:
    """Per layer: mean ``|q|`` of the selected neurons and of the others, and the mean over neurons of q's
    deviation over prompts.

    Args:
        subject: the model.
        requests: N requests; their prompts are read at the last token.
        selected: layer -> bool ``[N, d_ff]``.
    """
    batch = encode(subject.tok, [request.text for request in requests], subject.view.input_device)
    read = neuron_scores(subject.view, batch, list(selected), kind="activation").activations
    rows = []
    for layer, chosen in selected.items():
        q = read[layer].double().cpu()
        rows.append(
            {
                "layer": layer,
                "selected": _mean(q.abs()[chosen]),
                "others": _mean(q.abs()[~chosen]),
                "deviation": float(q.std(0, correction=0).mean()),
                "greatest": float(q.abs().max()),
            }
        )
    return rows


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _row(definition: str, scope: str, layer: int, several: list[dict[str, float]]) -> dict:
    first, second = NAMES[definition]
    row = {
        "definition": definition,
        "scope": scope,
        "layer": layer,
        "roles": f"{first}, {second}",
        "first_only": mean(one["first"] for one in several),
        "second_only": mean(one["second"] for one in several),
        "neither": mean(one["neither"] for one in several),
    }
    sizes = [(one["first"] + one["overlap"], one["second"] + one["overlap"]) for one in several]
    parts = {
        "overlap": [one["overlap"] for one in several],
        "first": [a for a, _ in sizes],
        "second": [b for _, b in sizes],
    }
    for name, values in parts.items():
        row[name], row[f"{name}_std"] = mean(values), deviation(values)
    chance = mean(a * b for a, b in sizes)
    row["lift"] = row["overlap"] / chance if chance else None
    row["lift_std"] = deviation(one["overlap"] / (a * b) for one, (a, b) in zip(several, sizes) if a * b)
    return row


def _pictures(rows: list[dict]) -> list[Plot]:
    plots = []
    for definition, (first, second) in NAMES.items():
        for scope, title in SCOPES.items():
            some = [row for row in rows if (row["definition"], row["scope"]) == (definition, scope)]
            parts = {
                f"{first} only": [row["first_only"] for row in some],
                "both": [row["overlap"] for row in some],
                f"{second} only": [row["second_only"] for row in some],
            }
            paint = stacked([row["layer"] for row in some], parts, "layer", "share of neurons")
            plots.append(Plot(f"{definition}: {title}", paint))
    return plots


def _line_pictures(rows: list[dict], activity: list[dict]) -> list[Plot]:
    layers = [row["layer"] for row in activity]
    lifts: dict[str, list] = {}
    spread: dict[str, list] = {}
    for row in rows:
        label = f"{row['definition']}, {row['scope']}"
        lifts.setdefault(label, []).append(row["lift"])
        spread.setdefault(label, []).append(row["lift_std"])
    return [
        Plot(
            "Activations at the prompts' last tokens",
            curves(
                {
                    "mean |q|, in the mask": (layers, [row["selected"] for row in activity]),
                    "mean |q|, others": (layers, [row["others"] for row in activity]),
                    "deviation over prompts": (layers, [row["deviation"] for row in activity]),
                },
                "layer",
                "activation",
            ),
        ),
        Plot(
            "Overlap, over that of independent choices",
            marks(layers, lifts, "layer", "ratio", errors=spread, joined=True),
        ),
    ]


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    made = parser(
        "roles", "Shares of general, specific and overlapping neurons by layer.", data=True, edits=30
    )
    made.add_argument("--layers", type=int, nargs="+", help="default: all")
    made.add_argument(
        "--nmke", metavar="FILE", help="hyperparameters of NMKE (default: the model's, or the released ones)"
    )
    made.add_argument(
        "--pnke", metavar="FILE", help="hyperparameters of PNKE (default: the model's, or the paper's)"
    )
    return run(made.parse_args(argv), "roles", study)


if __name__ == "__main__":
    sys.exit(main())
