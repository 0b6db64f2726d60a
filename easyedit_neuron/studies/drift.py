"""Drift of the down projections: t-SNE, lengths of the rows, distances (NMKE, Fig. 5, 9 and 11, Table 10).

    python -m easyedit_neuron.studies.drift results/alphaedit results/nmke --model tiny-llama --out drift

Rows of ``W_down [d_model, d_ff]`` as a checkpoint stores it, or with ``--of neurons`` the value vectors, rows
of its transpose.

- table: ``lifelong.drift``: over the rows, the 1-Wasserstein distance between a row's entries before and
  after, the cosine and the L2 distance of the row, mean and standard deviation; and the Wasserstein distance
  between all rows' lengths before and after. The paper does not say which distance it means. A layer that no
  run edited is in the table as a check: 0, 1, 0.
- histogram: lengths of the rows.
- t-SNE: the same rows of the untouched model and of every run, embedded together, so that points of different
  models can be compared; one panel per model with the untouched one's points in grey behind. A t-SNE keeps
  neighbourhoods, no distances and no spread: how far apart two clouds lie in it says nothing, only that they
      are apart. Distances are what the table is for.
- damage: retained facts and perplexity at the runs' checkpoints against what of their edits reaches the
  text's keys (``reach``), and how many pairs of runs that orders rightly, beside distance. Of the methods
  that report leakage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataError, NeuronEditError
from ..lifelong.drift import drift
from ..report.runs import Run, read_runs
from ..utils.fingerprint import model_fingerprint
from .changed import edited_weights, matrix
from .command import Subject, load, parser, positive, run
from .output import Plot, Result, Table
from .plots import histogram, paths, scatter
from .reach import orders, reached

INSTALL = "t-SNE needs scikit-learn: pip install scikit-learn (or leave it out: --no-tsne)"
DECADES = 20  # lengths that span more than this factor get logarithmic bins


def embedded(groups: Mapping[str, Tensor], seed: int, perplexity: float = 30.0) -> dict[str, Tensor]:
    """t-SNE of the rows of all groups together.

    Args:
        groups: name -> ``[n, d]``.
        seed: of the layout; the start is the rows' principal components.
        perplexity: at most (rows - 1) / 3, which replaces it where rows are few.

    Returns:
        name -> ``[n, 2]`` float32; the same on every call with the same numbers on one machine.

    Raises:
        NeuronEditError: scikit-learn is not installed, or fewer than four rows.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise NeuronEditError(INSTALL) from None
    rows = torch.cat(list(groups.values())).float()
    if len(rows) < 4:
        raise NeuronEditError(f"t-SNE needs at least four rows, got {len(rows)}")
    model = TSNE(2, perplexity=min(perplexity, (len(rows) - 1) / 3), init="pca", random_state=seed, n_jobs=1)
    points = torch.from_numpy(model.fit_transform(rows.numpy()))
    return dict(zip(groups, points.split([len(group) for group in groups.values()])))


def sample(rows: int, count: int, seed: int) -> Tensor:
    """int64, ascending: ``count`` of ``rows`` numbers, the same for every model; all of them where there are
    no more."""
    if count >= rows:
        return torch.arange(rows)
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def study(arguments: argparse.Namespace) -> Result:
    """Table, histograms, t-SNE."""
    runs = read_runs(arguments.runs)
    subject = load(arguments)
    _same_model(subject, runs)
    edited = {one.label: _downs(subject, one) for one in runs}
    touched = sorted({layer for weights in edited.values() for layer in weights})
    beside = next((layer for layer in range(subject.view.n_layers) if layer not in touched), None)
    rows = []
    for layer in touched + [beside] * (beside is not None):
        base = _rows(matrix(subject.view, subject.view.down_weight_name(layer)), arguments.of)
        for label, weights in edited.items():
            rows.append(
                _row(layer, label, _rows(weights[layer], arguments.of) if layer in weights else base, base)
            )
    layer = touched[len(touched) // 2] if arguments.layer is None else arguments.layer
    if layer not in touched:
        raise DataError(f"--layer {layer}: the runs edited the layers {', '.join(map(str, touched))}")
    base = _rows(matrix(subject.view, subject.view.down_weight_name(layer)), arguments.of)
    moved = {
        label: _rows(weights[layer], arguments.of) for label, weights in edited.items() if layer in weights
    }
    groups = {"untouched": base, **moved}
    lengths = {label: group.norm(dim=1).tolist() for label, group in groups.items()}
    each = [
        {"model": label, "row": row, "length": length}
        for label, values in lengths.items()
        for row, length in enumerate(values)
    ]
    every = [value for values in lengths.values() for value in values if value > 0]
    wide = max(every) / min(every) > DECADES
    plots = [
        Plot(f"Lengths of the rows, layer {layer}", histogram(lengths, "L2 norm", "rows", logarithmic=wide))
    ]
    tables = [
        Table("drift", "Distances from the untouched model", rows),
        Table("drift_lengths", "Lengths of all rows", each, raw=True),
    ]
    names = {str(layer): subject.view.down_weight_name(layer) for layer in touched}
    reach = [row for one in runs for row in reached(one.label, one.checkpoints, names)]
    if reach:
        tables += [
            Table(
                "drift_order", "Share of pairs of checkpoints that are ordered by their damage", orders(reach)
            ),
            Table("drift_reach", "What reaches the text's keys", reach, folded=True),
        ]
        plots += _damage(reach)
    if arguments.tsne:
        kept = sample(len(base), arguments.sample, arguments.seed)
        points = embedded({label: group[kept] for label, group in groups.items()}, arguments.seed)
        plots += _planes(points)
        places = [
            {"model": label, "row": row, "x": x, "y": y}
            for label, some in points.items()
            for row, (x, y) in zip(kept.tolist(), some.tolist())
        ]
        tables.append(Table("drift_tsne", "t-SNE", places, raw=True))
    what = "rows of W_down" if arguments.of == "rows" else "value vectors, columns of W_down"
    return Result(
        "drift",
        f"Drift of W_down: {arguments.model}, layer {layer}",
        f"By {what}. t-SNE of all models' rows together, seed {arguments.seed}: it keeps neighbourhoods, no "
        "distances.",
        plots,
        tables,
    )


def _downs(subject: Subject, one: Run) -> dict[int, Tensor]:
    names = {subject.view.down_weight_name(layer): layer for layer in range(subject.view.n_layers)}
    found = {
        names[name]: value for name, value in edited_weights(subject, one.folder).items() if name in names
    }
    if not found:
        raise DataError(f"{one.folder}: the run changed no down projection")
    return found


def _rows(weight: Tensor, of: str) -> Tensor:
    return weight if of == "rows" else weight.T


def _row(layer: int, label: str, now: Tensor, base: Tensor) -> dict:
    found = drift(now, base)
    row = {"layer": layer, "model": label}
    for name in ("wasserstein", "cosine", "l2"):
        row[name], row[f"{name}_std"] = found[name]
    return {
        **row,
        "wasserstein_of_lengths": found["wasserstein_norms"],
        "mean_length": float(now.norm(dim=1).mean()),
        "mean_length_before": float(base.norm(dim=1).mean()),
    }


def _same_model(subject: Subject, runs: Sequence[Run]) -> None:
    own = model_fingerprint(subject.model)
    for one in runs:
        weights = (one.about.get("model") or {}).get("weights")
        if weights not in (None, own):
            raise DataError(
                f"{one.folder}: the run edited another model than --model names (weights {weights}, here {own})"
            )


def _damage(reach: Sequence[Mapping]) -> list[Plot]:
    plots = []
    for damage, label in (("retained", "retained facts"), ("perplexity", "perplexity")):
        series: dict[str, tuple[list, list]] = {}
        for row in reach:
            if row[damage] is not None:
                for kept, value in zip(
                    series.setdefault(row["model"], ([], [])), (row["reach"], row[damage])
                ):
                    kept.append(value)
        paint = paths(series, "leakage x distance²", label, logarithmic=damage == "perplexity")
        plots += [Plot(f"{label.capitalize()} at the checkpoints", paint)] * bool(series)
    return plots


def _planes(points: Mapping[str, Tensor]) -> list[Plot]:
    every = torch.cat(list(points.values()))
    low, high = every.min(0).values, every.max(0).values
    room = 0.04 * (high - low).clamp(min=1e-6)
    limits = tuple(torch.stack([low - room, high + room], dim=1).flatten().tolist())
    base = points["untouched"].tolist()
    return [
        Plot(
            f"t-SNE: {label}",
            scatter(base if number else [], some.tolist(), ("untouched", label), number, limits),
            (3.6, 3.4),
        )
        for number, (label, some) in enumerate(points.items())
    ]


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("drift", "How far down projections have moved: t-SNE, lengths of rows, distances.")
    made.add_argument(
        "runs", nargs="+", type=Path, metavar="FOLDER", help="finished runs of the model, or sweeps of such"
    )
    made.add_argument(
        "--of",
        choices=("rows", "neurons"),
        default="rows",
        help="rows of W_down, or columns, the value vectors",
    )
    made.add_argument("--layer", type=int, help="for the pictures; default: the middle one of those edited")
    made.add_argument(
        "--sample", type=positive, default=1000, help="rows of each model in the t-SNE, at most (1000)"
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--no-tsne", dest="tsne", action="store_false")
    return run(made.parse_args(argv), "drift", study)


if __name__ == "__main__":
    sys.exit(main())
