"""Drift of the down projections: t-SNE, lengths of the rows, distances (NMKE, Fig. 5, 9 and 11, Table 10).

Rows of ``W_down [d_model, d_ff]`` as a checkpoint stores it, or with ``--of neurons`` its columns, the value
vectors. One layer that no run edited is included as a check: 0, 1, 0. Damage at the runs' checkpoints is set
against what of their edits reaches the text's keys (``reach``). The t-SNE embeds the same rows of all models
together, so that their points can be compared; it keeps neighbourhoods, no distances.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, NeuronEditError
from ..lifelong.drift import drift
from ..report.figures import Plot
from ..report.runs import Run, read_runs
from ..utils.fingerprint import model_fingerprint
from .changed_weights import edited_weights, matrix
from .command import StudiedModel, Study, add_model, load, positive
from .output import Result, Table
from .plots import Histogram, Lines, Scatter
from .reach import orders, reached

INSTALL = "t-SNE needs scikit-learn: pip install scikit-learn (or leave it out: --no-tsne)"
DECADES = 20  # lengths that span more than this factor get logarithmic bins


def embedded(groups: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """t-SNE of the rows of all groups together, ``[n, 2]`` float32 by name, for groups ``[n, d]`` by name.

    It starts from the rows' principal components; the same numbers on one machine give the same points.
    ``NeuronEditError`` where scikit-learn is not installed, or for fewer than four rows.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise NeuronEditError(INSTALL) from None
    rows = torch.cat(list(groups.values())).float()
    if len(rows) < 4:
        raise NeuronEditError(f"t-SNE needs at least four rows, got {len(rows)}")
    perplexity = min(30.0, (len(rows) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
    points = torch.from_numpy(model.fit_transform(rows.numpy()))
    return dict(zip(groups, points.split([len(group) for group in groups.values()])))


def sample(rows: int, count: int, seed: int) -> Tensor:
    """``count`` of ``rows`` row numbers at random, int64 ascending; all if there are no more."""
    if count >= rows:
        return torch.arange(rows)
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def distances(layer: int, label: str, edited: Tensor, base: Tensor) -> dict[str, Any]:
    """Row of the table of distances: ``edited`` and ``base`` are rows of one layer's weight."""
    measured = drift(edited, base)
    row = {"layer": layer, "model": label}
    for name in ("wasserstein", "cosine", "l2"):
        row[name], row[f"{name}_std"] = measured[name]
    row["wasserstein_of_lengths"] = measured["wasserstein_norms"]
    means = {"mean_length": edited, "mean_length_before": base}
    return row | {name: float(weight.norm(dim=1).mean()) for name, weight in means.items()}


def measure(args: argparse.Namespace) -> Result:
    runs = read_runs(args.runs)
    studied = load(args)
    _check_model(studied, runs)
    edited = {run.label: _edited_rows(studied, run, args.of) for run in runs}  # run -> layer -> rows
    edited_layers = sorted({layer for by_layer in edited.values() for layer in by_layer})
    layer = edited_layers[len(edited_layers) // 2] if args.layer is None else args.layer
    if layer not in edited_layers:
        raise DataError(f"--layer {layer}: the runs edited the layers {', '.join(map(str, edited_layers))}")

    unedited = [other for other in range(studied.view.n_layers) if other not in edited_layers]
    rows = []
    for compared_layer in edited_layers + unedited[:1]:
        base = _base_rows(studied, compared_layer, args.of)
        for label, by_layer in edited.items():
            rows.append(distances(compared_layer, label, by_layer.get(compared_layer, base), base))

    groups = {"untouched": _base_rows(studied, layer, args.of)}
    groups |= {label: by_layer[layer] for label, by_layer in edited.items() if layer in by_layer}
    lengths = {label: group.norm(dim=1).tolist() for label, group in groups.items()}
    positive_lengths = [value for values in lengths.values() for value in values if value > 0]
    wide = max(positive_lengths) / min(positive_lengths) > DECADES
    plots = [Histogram(f"Lengths of the rows, layer {layer}", lengths, "L2 norm", "rows", log=wide)]
    every_length = [
        {"model": label, "row": row, "length": length}
        for label, values in lengths.items()
        for row, length in enumerate(values)
    ]
    tables = [
        Table("drift", "Distances from the untouched model", rows),
        Table("drift_lengths", "Lengths of all rows", every_length, raw=True),
    ]

    names = {str(other): studied.view.down_weight_name(other) for other in edited_layers}
    reach = [row for run in runs for row in reached(run.label, run.checkpoints, names)]
    if reach:
        order_title = "Share of pairs of checkpoints that are ordered by their damage"
        tables.append(Table("drift_order", order_title, orders(reach)))
        tables.append(Table("drift_reach", "What reaches the text's keys", reach, folded=True))
        plots += _damage_plots(reach)

    if args.tsne:
        chosen = sample(len(groups["untouched"]), args.sample, args.seed)
        points = embedded({label: group[chosen] for label, group in groups.items()}, args.seed)
        places = [
            {"model": label, "row": row, "x": x, "y": y}
            for label, group in points.items()
            for row, (x, y) in zip(chosen.tolist(), group.tolist())
        ]
        tables.append(Table("drift_tsne", "t-SNE", places, raw=True))
        plots += _tsne_plots(points)
    what = "rows of W_down" if args.of == "rows" else "value vectors, columns of W_down"
    tsne = f"t-SNE of all models' rows together, seed {args.seed}: it keeps neighbourhoods, no distances."
    title = f"Drift of W_down: {args.model}, layer {layer}"
    return Result("drift", title, f"By {what}. {tsne}", plots, tables)


def _check_model(studied: StudiedModel, runs: Sequence[Run]) -> None:
    fingerprint = model_fingerprint(studied.model)
    for run in runs:
        weights = (run.info.get("model") or {}).get("weights")
        if weights not in (None, fingerprint):
            problem = f"another model than --model names (weights {weights}, here {fingerprint})"
            raise DataError(f"{run.folder}: the run edited {problem}")


def _edited_rows(studied: StudiedModel, run: Run, of: str) -> dict[int, Tensor]:
    layers = {studied.view.down_weight_name(layer): layer for layer in range(studied.view.n_layers)}
    weights = edited_weights(studied, run.folder)
    rows = {layers[name]: _rows(weight, of) for name, weight in weights.items() if name in layers}
    if not rows:
        raise DataError(f"{run.folder}: the run changed no down projection")
    return rows


def _base_rows(studied: StudiedModel, layer: int, of: str) -> Tensor:
    return _rows(matrix(studied.view, studied.view.down_weight_name(layer)), of)


def _rows(weight: Tensor, of: str) -> Tensor:
    return weight if of == "rows" else weight.T


def _damage_plots(reach: Sequence[Mapping]) -> list[Plot]:
    plots = []
    for damage, label, log in (("retained", "retained facts", "x"), ("perplexity", "perplexity", "xy")):
        rows = [row for row in reach if row[damage] is not None]
        series = {}
        for model in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == model]
            series[model] = ([row["reach"] for row in own], [row[damage] for row in own])
        if series:
            title = f"{label.capitalize()} at the checkpoints"
            plots.append(Lines(title, series, "leakage x distance²", label, log))
    return plots


def _tsne_plots(points: Mapping[str, Tensor]) -> list[Plot]:
    every = torch.cat(list(points.values()))
    low, high = every.min(0).values, every.max(0).values
    margin = 0.04 * (high - low).clamp(min=1e-6)
    limits = tuple(torch.stack([low - margin, high + margin], dim=1).flatten().tolist())
    base, plots = points["untouched"].tolist(), []
    for number, (label, group) in enumerate(points.items()):
        clouds = base if number else [], group.tolist(), ("untouched", label)
        plots.append(Scatter(f"t-SNE: {label}", *clouds, number, limits, size=(3.6, 3.4)))
    return plots


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add = parser.add_argument
    runs_help = "finished runs of the model, or sweeps of such runs"
    add("runs", nargs="+", type=Path, metavar="FOLDER", help=runs_help)
    of_help = "rows of W_down, or its columns, the value vectors"
    add("--of", choices=("rows", "neurons"), default="rows", help=of_help)
    add("--layer", type=int, help="for the plots; default: the middle one of those edited")
    add("--sample", type=positive, default=1000, help="most rows of each model in the t-SNE (1000)")
    add("--seed", type=int, default=0, help="of the sample and the t-SNE (0)")
    add("--no-tsne", dest="tsne", action="store_false", help="leave the t-SNE out")


_DESCRIPTION = "How far down projections have moved: t-SNE, lengths of rows, distances."
main = Study("drift", _DESCRIPTION, _add_arguments, measure).main

if __name__ == "__main__":
    sys.exit(main())
