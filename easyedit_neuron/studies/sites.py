"""Where contributions sit: by layer (FiNE, Fig. 4 and 6), by module and layer (KNE, Fig. 2).

    python -m easyedit_neuron.studies.sites --model tiny-llama --data tiny-world --edits 100 --attributed 8
    --out sites

By layer: of every request the k neurons that contribute most to each token of the old object, ``c = q_i (W_u
    W_down)_{t,i}``
(FiNE, Eq. 3), over all layers (the paper's editing freezes the last three; its plot would then end before
them). Counted once each, as in the paper, over all requests; and the sum of all neurons' contributions, which
is what the layer's FFN adds to the token's logit before the final norm, its mean over tokens and deviation.

By module: KNE's attribution (Eq. 3-5) of every linear map of every layer, by the row. The attributions of a
    map add up to
``P(W) - P(0)``, what the answer's probability loses without it; of the highest rows that hold 1% of the
model's parameters, each map's share is what an ensemble over all maps would train there. ``--samples`` takes
that many disjoint samples of requests: the means over them, and their standard deviation. (The paper's figure
    measures edits made in one module
alone: ``python -m easyedit_neuron.studies.kne --study modules``.)
"""

from __future__ import annotations

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
from .command import Subject, hparams_of, layers_of, load, parser, positive, run
from .meanings import LOCATED
from .output import Plot, Result, Table
from .plots import curves, stacked
from .spread import over


def by_layer(subject: Subject, requests: Sequence[EditRequest], layers: Sequence[int], hparams) -> list[dict]:
    """Per layer: unique located neurons, located neurons in all (one may be found for several requests),
    their mean contribution, and the whole layer's contribution to a token of the old object, mean and
    deviation."""
    neurons = locate(subject.view, subject.tok, list(requests), hparams)
    owner, units, scores = (
        torch.cat([getattr(one, name) for one in neurons]) for name in ("layers", "units", "scores")
    )
    targets = target_tokens(
        subject.tok,
        [request.text for request in requests],
        [request.ground_truth for request in requests],
        subject.view.input_device,
    )
    whole = contribution_scores(subject.view, targets, layers).scores
    rows = []
    for layer in layers:
        mine = owner == layer
        rows.append(
            {
                "layer": layer,
                "unique_neurons": len(units[mine].unique()),
                "located": int(mine.sum()),
                "share_of_located": float(mine.double().mean()),
                "mean_contribution": float(scores[mine].mean()) if mine.any() else None,
                "layer_contribution": float(whole[layer].sum(1).mean()),
                "layer_contribution_std": float(whole[layer].sum(1).std()),
            }
        )
    return rows


def by_module(
    subject: Subject,
    requests: Sequence[EditRequest],
    layers: Sequence[int],
    modules: Sequence[str],
    steps: int,
    share: float,
) -> list[dict]:
    """Per module and layer: ``P(W) - P(0)``, the share of all positive attributions, and the part of an
    ensemble of all maps."""
    view = subject.view
    targets = target_tokens(
        subject.tok,
        [request.text for request in requests],
        [request.ground_truth for request in requests],
        view.input_device,
    )
    sites = [projection(view, layer, name) for layer in layers for name in modules]
    scores = mean_attributions(view, targets, sites, steps=steps, rule="gauss")
    ensemble = choose(scores, sites, "output", view.model, share)
    members = {
        site.key: (len(units), len(units) * site.size("output")[1]) for site, units in ensemble.members
    }
    positive_sum = sum(float(found.clamp(min=0).sum()) for found in scores.values())
    return [
        {
            "module": site.name,
            "layer": site.layer,
            "probability_lost": float(scores[site.key].sum()),
            "share_of_attribution": float(scores[site.key].clamp(min=0).sum()) / positive_sum
            if positive_sum
            else None,
            "rows": len(site.rows),
            "rows_in_ensemble": members.get(site.key, (0, 0))[0],
            "share_of_ensemble": members.get(site.key, (0, 0))[1] / ensemble.parameters,
        }
        for site in sites
    ]


def study(arguments: argparse.Namespace) -> Result:
    """Both, on one model."""
    hparams = hparams_of("FiNE", arguments.model, arguments.fine, **LOCATED)
    requests = prepare(data.load(arguments.data, size=arguments.edits))
    without = next((request.index for request in requests if request.ground_truth is None), None)
    if without is not None:
        raise RequestError(
            f"request {without}: field 'ground_truth' is missing; contributions are to the old object's tokens"
        )
    subject = load(arguments)
    layers = layers_of(subject.view, None)
    modules = arguments.modules or projection_names(subject.view)
    each = min(arguments.attributed, len(requests) // arguments.samples)
    if not each:
        raise RequestError(
            f"--samples {arguments.samples}: there are {len(requests)} requests, fewer than one for each"
        )
    neurons = by_layer(subject, requests, layers, hparams)
    maps = over(
        [
            row
            for start in range(0, each * arguments.samples, each)
            for row in by_module(
                subject, requests[start : start + each], layers, modules, arguments.steps, arguments.share
            )
        ],
        ("module", "layer"),
        ("probability_lost", "share_of_attribution", "share_of_ensemble"),
    )

    def of(name: str) -> dict[str, list[float]]:
        return {module: [row[name] for row in maps if row["module"] == module] for module in modules}

    plots = [
        Plot(
            "Neurons located by FiNE",
            stacked(
                layers, {"unique neurons": [row["unique_neurons"] for row in neurons]}, "layer", "neurons"
            ),
        ),
        Plot(
            "Contribution to the object's tokens",
            curves(
                {
                    "all neurons of the layer": (layers, [row["layer_contribution"] for row in neurons]),
                    "a located neuron, mean": (layers, [row["mean_contribution"] for row in neurons]),
                },
                "layer",
                "logit before the norm",
            ),
        ),
        Plot(
            "Share of KNE's positive attributions",
            stacked(layers, of("share_of_attribution"), "layer", "share of the model's"),
        ),
        Plot(
            f"Rows with {arguments.share:.0%} of the parameters",
            stacked(layers, of("share_of_ensemble"), "layer", "share of them"),
        ),
        Plot(
            "Probability lost without a map",
            curves(
                {name: (layers, values) for name, values in of("probability_lost").items()},
                "layer",
                "P(W) - P(0)",
            ),
        ),
    ]
    return Result(
        "sites",
        f"Where contributions sit: {arguments.model}, {arguments.data}",
        f"FiNE: {len(requests)} requests, the {hparams.neuron_num} best neurons per token of the old object. KNE: "
        f"{arguments.samples} sample(s) of {each} requests, integrated gradients with {arguments.steps} points.",
        plots,
        [
            Table("sites_layers", "FiNE, by layer", neurons),
            Table("sites_modules", "KNE, by module and layer", maps),
        ],
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("sites", "Where contributions sit, by layer and by module.", data=True, edits=100)
    made.add_argument(
        "--attributed", type=positive, default=8, help="requests of them with attributions of all modules (8)"
    )
    made.add_argument(
        "--samples", type=positive, default=1, help="samples of so many requests, one after the other (1)"
    )
    made.add_argument(
        "--steps", type=positive, default=8, help="points of the path of integrated gradients (8)"
    )
    made.add_argument("--modules", nargs="+", help="default: all that the architecture has")
    made.add_argument(
        "--share", type=float, default=0.01, help="of the model's parameters in the ensemble (0.01)"
    )
    made.add_argument(
        "--fine", metavar="FILE", help="hyperparameters of FiNE (default: the model's, or the released ones)"
    )
    return run(made.parse_args(argv), "sites", study)


if __name__ == "__main__":
    sys.exit(main())
