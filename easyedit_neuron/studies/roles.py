"""Roles of neurons by layer: general, specific and overlapping ones (NMKE, Fig. 8 and 11; PNKE, Fig. 4).

For every request NMKE's general and specific neurons (Eq. 4-8), and PNKE's background and trigger neurons
(Eq. 2 and 3). Their thresholds are quantiles of a layer, which fix beforehand which shares are possible
(``scope: layer``). With ``scope: model`` the same functions get the scores of all layers next to each other.
``lift`` is the overlap over what two independent choices of these sizes would share, ``overlap / (first *
second)``, both averaged over requests.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

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
from ..report.figures import Plot
from .averages import average_rows
from .command import StudiedModel, Study, add_data, add_model, hparams_of, layers_of, load
from .output import Result, Table
from .plots import Lines, Marks, Stacked

NAMES = {"NMKE": ("general", "specific"), "PNKE": ("background", "trigger")}
"""Definition -> its two roles."""

SCOPES = {"layer": "thresholds of each layer", "model": "thresholds of the whole model"}
Roles = tuple[Tensor, Tensor]
BATCH = 8
"""Requests whose prompts are scored together."""


class Definitions:
    """Both definitions on one model: the scores of requests, and the roles that follow from them."""

    def __init__(self, studied: StudiedModel, layers: list[int], nmke, pnke):
        self.studied, self.layers, self.pnke = studied, layers, pnke
        no_cache = {**(pnke.mask_options or {}), "psem_cache_dir": None}  # a study leaves no files
        by_entropy = pnke.override({"strategy": "entropy", "mask_options": no_cache})
        self.choices = {"NMKE": chosen_mask(nmke), "PNKE": chosen_mask(by_entropy)}
        hparams = {"NMKE": nmke, "PNKE": pnke}
        self.contexts = {name: contexts_of(studied.model, studied.tok, hparams[name]) for name in hparams}

    def scores(self, definition: str, requests: list[EditRequest]) -> list[dict[int, Tensor | CausalScores]]:
        """For every request: layer -> scores. The prompts of all requests go through the model together."""
        view, tok, contexts = self.studied.view, self.studied.tok, self.contexts[definition]
        context = ScoringContext(view, tok, requests, contexts, self.layers)
        choice = self.choices[definition]
        by_layer = load_target(choice.scores.function)(context, choice.scores_options)
        if definition == "NMKE":  # rows are prompts, request by request
            by_layer = {layer: scores.chunk(len(requests)) for layer, scores in by_layer.items()}
        numbers = range(len(requests))
        return [{layer: scores[number] for layer, scores in by_layer.items()} for number in numbers]

    def roles(self, definition: str, scores: Tensor | CausalScores) -> Roles:
        """General and specific, or background and trigger neurons, each bool ``[n]``."""
        if definition == "NMKE":
            mask = nmke_mask(scores, self.choices["NMKE"].options)
            return mask.general, mask.specific
        p = self.pnke
        steady = p.background_activation, p.background_std, p.thresholds
        causal = p.trigger_activation, p.trigger_attribution, p.thresholds
        triggers = trigger_neurons(scores.specific, scores.attribution, *causal)
        return background_neurons(scores.semantic, *steady), triggers


def in_scope(
    scope: str, scores: dict[int, Tensor | CausalScores], roles: Callable[..., Roles]
) -> dict[int, Roles]:
    """Roles of every layer's neurons, by thresholds of each layer or (``model``) of all layers together."""
    if scope == "layer":
        return {layer: roles(layer_scores) for layer, layer_scores in scores.items()}
    first, second = roles(_joined(list(scores.values())))
    d_ff = len(first) // len(scores)
    return dict(zip(scores, zip(first.split(d_ff), second.split(d_ff))))


def _joined(scores: list) -> Tensor | CausalScores:
    if isinstance(scores[0], Tensor):
        return torch.cat([layer_scores.cpu() for layer_scores in scores], dim=1)
    fields = ("specific", "semantic", "attribution")
    return CausalScores(
        *(torch.cat([getattr(layer, field).cpu() for layer in scores], dim=-1) for field in fields)
    )


def shares(first: Tensor, second: Tensor) -> dict[str, float | None]:
    """Shares of ``[n]`` neurons in either role, both and none; ``chance``: the overlap of independent
    choices."""
    only, both, other, neither = (
        float(part.double().mean())
        for part in (first & ~second, first & second, second & ~first, ~first & ~second)
    )
    chance = (only + both) * (other + both)
    parts = {"first_only": only, "second_only": other, "neither": neither, "overlap": both}
    whole = {"first": only + both, "second": other + both, "chance": chance}
    return parts | whole | {"ratio": both / chance if chance else None}


def average_shares(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average the ``shares`` of all requests by definition, scope and layer, and add the lift."""
    by = ("definition", "scope", "layer", "roles")
    rows = average_rows(measured, by, with_std=("overlap", "first", "second", "ratio"))
    for row in rows:
        chance, _ = row.pop("chance"), row.pop("ratio")
        row["lift"] = row["overlap"] / chance if chance else None
        row["lift_std"] = row.pop("ratio_std")
    return sorted(rows, key=lambda row: (row["definition"], row["scope"], row["layer"]))


def activations(
    studied: StudiedModel, requests: Sequence[EditRequest], selected: dict[int, Tensor]
) -> list[dict[str, float]]:
    """Per layer: mean ``|q|`` of the selected neurons and of the others, and the deviation of q over prompts.

    ``selected``: layer -> bool ``[N, d_ff]``. The prompts of the N requests are read at the last token.
    """
    batch = encode(studied.tok, [request.text for request in requests], studied.view.input_device)
    by_layer = neuron_scores(studied.view, batch, list(selected), kind="activation").activations
    rows = []
    for layer, mask in selected.items():
        q = by_layer[layer].double().cpu()
        row = {"layer": layer, "selected": float(q.abs()[mask].mean()) if mask.any() else None}
        row["others"] = float(q.abs()[~mask].mean()) if not mask.all() else None
        deviation = float(q.std(0, correction=0).mean())
        rows.append(row | {"deviation": deviation, "greatest": float(q.abs().max())})
    return rows


def measure(args: argparse.Namespace) -> Result:
    """Both definitions in both scopes, and the activations."""
    nmke = hparams_of("NMKE", args.model, args.nmke)
    pnke = hparams_of("PNKE", args.model, args.pnke)
    requests = prepare(data.load(args.data, size=args.edits))
    studied = load(args)
    layers = layers_of(studied.view, args.layers)
    definitions = Definitions(studied, layers, nmke, pnke)

    measured: list[dict[str, Any]] = []
    selected: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(requests), BATCH):
        for definition, names in NAMES.items():
            for scores in definitions.scores(definition, requests[start : start + BATCH]):
                for scope in SCOPES:
                    roles = in_scope(scope, scores, partial(definitions.roles, definition))
                    for layer, (first, second) in roles.items():
                        row = {"definition": definition, "scope": scope, "layer": layer}
                        measured.append({**row, "roles": ", ".join(names), **shares(first, second)})
                        if (definition, scope) == ("NMKE", "layer"):
                            selected[layer].append((first | second).cpu())
    rows = average_shares(measured)
    masks = {layer: torch.stack(layer_masks) for layer, layer_masks in selected.items()}
    activity = activations(studied, requests, masks)
    return Result(
        "roles",
        f"Roles of neurons by layer: {args.model}, {len(requests)} requests of {args.data}",
        "Means and standard deviations over requests of the shares of a layer's neurons. Thresholds of "
        "each layer: the papers' definitions, whose quantiles fix how large a share can be. Thresholds of "
        "the whole model: the same with all layers' neurons together.",
        _plots(rows, activity),
        [Table("roles", "Shares of the neurons", rows), Table("activations", "Activations", activity)],
    )


def _plots(rows: list[dict], activity: list[dict]) -> list[Plot]:
    plots, lifts, lift_stds = [], {}, {}
    layers = [row["layer"] for row in activity]
    for definition, (first, second) in NAMES.items():
        for scope, title in SCOPES.items():
            part = [row for row in rows if (row["definition"], row["scope"]) == (definition, scope)]
            columns = {f"{first} only": "first_only", "both": "overlap", f"{second} only": "second_only"}
            values = {label: [row[column] for row in part] for label, column in columns.items()}
            plots.append(Stacked(f"{definition}: {title}", layers, values, "layer", "share of neurons"))
            lifts[f"{definition}, {scope}"] = [row["lift"] for row in part]
            lift_stds[f"{definition}, {scope}"] = [row["lift_std"] for row in part]
    columns = {"mean |q|, in the mask": "selected", "mean |q|, others": "others"}
    columns["deviation over prompts"] = "deviation"
    lines = {label: (layers, [row[column] for row in activity]) for label, column in columns.items()}
    plots.append(Lines("Activations at the prompts' last tokens", lines, "layer", "activation"))
    title = "Overlap, over that of independent choices"
    return [*plots, Marks(title, layers, lifts, "layer", "ratio", lift_stds, joined=True)]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, edits=30)
    parser.add_argument("--layers", type=int, nargs="+", help="default: all")
    help_text = "hyperparameters of {} (default: the model's, or the {})"
    parser.add_argument("--nmke", metavar="FILE", help=help_text.format("NMKE", "released ones"))
    parser.add_argument("--pnke", metavar="FILE", help=help_text.format("PNKE", "paper's"))


_DESCRIPTION = "Shares of general, specific and overlapping neurons by layer."
main = Study("roles", _DESCRIPTION, _add_arguments, measure).main

if __name__ == "__main__":
    sys.exit(main())
