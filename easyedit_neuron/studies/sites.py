"""Where contributions sit: by layer (FiNE, Fig. 4 and 6), by module and layer (KNE, Fig. 2).

By layer: the neurons that contribute most to the tokens of the old object, ``c = q_i (W_u W_down)_{t,i}``
(FiNE, Eq. 3), counted once each over all requests, and what all neurons of the layer add to these logits
before the final norm. By module: KNE's attribution (Eq. 3-5) of every linear map, by row. The attributions of
a map add up to ``P(W) - P(0)``, what the answer's probability loses without it. Of the highest rows that hold
1% of the model's parameters, each map's share is what an ensemble over all maps would train there.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from .. import data
from ..arch import projection, projection_names
from ..attribution import contribution_scores, target_tokens
from ..edits.request import EditRequest, prepare
from ..errors import RequestError
from ..models.fine.locate import locate
from ..models.kne.attribute import mean_attributions
from ..models.kne.ensemble import choose
from ..models.kne.kne_hparams import AttributionOptions
from ..report.figures import Plot
from .averages import average_rows
from .command import StudiedModel, Study, add_data, add_model, hparams_of, layers_of, load, positive
from .meanings import LOCATED
from .output import Result, Table
from .plots import Lines, Stacked


def by_layer(
    studied: StudiedModel, requests: Sequence[EditRequest], layers: Sequence[int], hparams
) -> list[dict]:
    """A row per layer: located neurons (different ones, all), their mean contribution, the layer's."""
    located = locate(studied.view, studied.tok, list(requests), hparams)
    owner, units, scores = (
        torch.cat([getattr(neurons, name) for neurons in located]) for name in ("layers", "units", "scores")
    )
    contributions = contribution_scores(studied.view, _targets(studied, requests), layers).scores
    rows = []
    for layer in layers:
        here, whole = owner == layer, contributions[layer].sum(1)
        row = {"layer": layer, "unique_neurons": len(units[here].unique()), "located": int(here.sum())}
        row["share_of_located"] = float(here.double().mean())
        row["mean_contribution"] = float(scores[here].mean()) if here.any() else None
        row["layer_contribution"], row["layer_contribution_std"] = float(whole.mean()), float(whole.std())
        rows.append(row)
    return rows


def by_module(
    studied: StudiedModel,
    requests: Sequence[EditRequest],
    layers: Sequence[int],
    modules: Sequence[str],
    steps: int,
    share: float,
) -> list[dict]:
    """Per module and layer: ``P(W) - P(0)``, share of positive attributions, part of an ensemble of all."""
    view = studied.view
    sites = [projection(view, layer, name) for layer in layers for name in modules]
    options = AttributionOptions(attribution_steps=steps, attribution_rule="gauss")
    scores = mean_attributions(view, _targets(studied, requests), sites, options)
    ensemble = choose(scores, sites, "output", view.model, share)
    chosen_rows = {site.key: len(units) for site, units in ensemble.members}
    positive_sum = sum(float(site_scores.clamp(min=0).sum()) for site_scores in scores.values())
    rows = []
    for site in sites:
        site_sum, count = float(scores[site.key].clamp(min=0).sum()), chosen_rows.get(site.key, 0)
        row = {"module": site.name, "layer": site.layer, "probability_lost": float(scores[site.key].sum())}
        row["share_of_attribution"] = site_sum / positive_sum if positive_sum else None
        row |= {"rows": len(site.rows), "rows_in_ensemble": count}
        row["share_of_ensemble"] = count * site.size("output")[1] / ensemble.parameters
        rows.append(row)
    return rows


def _targets(studied: StudiedModel, requests: Sequence[EditRequest]):
    prompts, objects = zip(*((request.text, request.ground_truth) for request in requests))
    return target_tokens(studied.tok, list(prompts), list(objects), studied.view.input_device)


def measure(args: argparse.Namespace) -> Result:
    hparams = hparams_of("FiNE", args.model, args.fine, **LOCATED)
    requests = prepare(data.load(args.data, size=args.edits))
    for request in requests:
        if request.ground_truth is None:
            reason = "contributions are to the tokens of the old object"
            raise RequestError(f"request {request.index}: field 'ground_truth' is missing; {reason}")
    size = min(args.attributed, len(requests) // args.samples)
    if not size:
        problem = f"there are {len(requests)} requests, fewer than one for each"
        raise RequestError(f"--samples {args.samples}: {problem}")
    studied = load(args)
    layers = layers_of(studied.view, None)
    modules = args.modules or projection_names(studied.view)

    neurons = by_layer(studied, requests, layers, hparams)
    measured = []
    for start in range(0, size * args.samples, size):
        sample = requests[start : start + size]
        measured += by_module(studied, sample, layers, modules, args.steps, args.share)
    with_std = ("probability_lost", "share_of_attribution", "share_of_ensemble")
    maps = average_rows(measured, ("module", "layer"), with_std)
    return Result(
        "sites",
        f"Where contributions sit: {args.model}, {args.data}",
        f"FiNE: {len(requests)} requests, the {hparams.neuron_num} best neurons per token of the old object. "
        f"KNE: {args.samples} sample(s) of {size} requests, integrated gradients with {args.steps} points.",
        _plots(neurons, maps, args.share),
        [
            Table("sites_layers", "FiNE, by layer", neurons),
            Table("sites_modules", "KNE, by module and layer", maps),
        ],
    )


def _plots(neurons: list[dict], maps: list[dict], share: float) -> list[Plot]:
    layers = [row["layer"] for row in neurons]
    modules = list(dict.fromkeys(row["module"] for row in maps))

    def of_modules(column: str) -> dict[str, list[float]]:
        return {module: [row[column] for row in maps if row["module"] == module] for module in modules}

    unique = {"unique neurons": [row["unique_neurons"] for row in neurons]}
    columns = {"all neurons of the layer": "layer_contribution"}
    columns["a located neuron, mean"] = "mean_contribution"
    contributions = {label: (layers, [row[column] for row in neurons]) for label, column in columns.items()}
    lost = {name: (layers, values) for name, values in of_modules("probability_lost").items()}
    attributed, trained = of_modules("share_of_attribution"), of_modules("share_of_ensemble")
    rows_title = f"Rows with {share:.0%} of the parameters"
    return [
        Stacked("Neurons located by FiNE", layers, unique, "layer", "neurons"),
        Lines("Contribution to the object's tokens", contributions, "layer", "logit before the norm"),
        Stacked("Share of KNE's positive attributions", layers, attributed, "layer", "share of the model's"),
        Stacked(rows_title, layers, trained, "layer", "share of them"),
        Lines("Probability lost without a map", lost, "layer", "P(W) - P(0)"),
    ]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, edits=100)
    add = parser.add_argument
    add("--attributed", type=positive, default=8, help="requests of a sample, attributed by module (8)")
    add("--samples", type=positive, default=1, help="disjoint samples of requests (1)")
    add("--steps", type=positive, default=8, help="points of the path of integrated gradients (8)")
    add("--modules", nargs="+", help="default: all that the architecture has")
    add("--share", type=float, default=0.01, help="of the model's parameters in the ensemble (0.01)")
    fine_help = "hyperparameters of FiNE (default: the model's, or the released ones)"
    add("--fine", metavar="FILE", help=fine_help)


main = Study("sites", "Where contributions sit, by layer and by module.", _add_arguments, measure).main

if __name__ == "__main__":
    sys.exit(main())
