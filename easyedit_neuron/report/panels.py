"""What is plotted: sections of panels as plain numbers, so that drawings, tables and tests have one source.

Nothing here draws, and nothing is made up: a value that a run did not measure is not in its series, and a
    panel without any
series is named among the missing of its section.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..lifelong.run_folder import ABILITY, mean
from .runs import Run
from .table import lost

BINS = 25  # points at most of what is known for every single edit
EDITS, LAYER, POSITION = "edits", "layer", "position of the edit in the stream"


@dataclass(frozen=True)
class Series:
    """The points of one run: ``run`` is its number in the report, which gives colour and marker; x
    ascending."""

    run: int
    label: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Panel:
    """Lines over a common axis.

    Attributes:
        name: of the picture, unique in its section.
        title: what y is.
        x_label: what x is.
        series: one per run that has it.
        axis: of y: ``share`` is 0 to 1, ``zero`` begins at zero or has it inside, ``linear`` suits the
            values, and so does ``auto``, which is logarithmic where they span decades.
        reference: what the untouched model has, drawn as a line across; None where that is unknown or differs
            between the runs.
        missing: labels of the runs that did not measure it.
    """

    name: str
    title: str
    x_label: str
    series: list[Series]
    axis: str = "auto"
    reference: float | None = None
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bars:
    """One horizontal bar per run, made of parts: ``parts`` part -> value per run (0 where a run has no such
    part)."""

    name: str
    title: str
    labels: list[str]
    parts: dict[str, list[float]]


@dataclass(frozen=True)
class Section:
    """Panels that belong together; ``missing`` are the titles of those that no run measured."""

    name: str
    title: str
    note: str
    panels: list[Panel | Bars]
    missing: list[str]


def sections(runs: Sequence[Run]) -> list[Section]:
    """All sections of a report, in the order of the page."""
    made = (_edits, _generated, _ability, _forgetting, _kinds, _drift, _masks, _time)
    return [make(runs) for make in made]


def _edits(runs: Sequence[Run]) -> Section:
    return _section(
        "edits",
        "Reliability, generality, locality",
        "Teacher-forced token accuracy, final protocol: at each point all edits so far are measured on the model as it is then. "
        "Locality is the share of tokens that are those of the untouched model; of edits of one fact only the last one counts.",
        [
            _over(runs, "rel", "Rel: rewrite accuracy", axis="share"),
            _over(runs, "gen", "Gen: rephrase accuracy", axis="share"),
            _over(runs, "loc", "Loc: locality", axis="share"),
            _over(runs, "portability", "Port: portability", axis="share"),
        ],
    )


def _generated(runs: Sequence[Run]) -> Section:
    return _section(
        "generated",
        "Written out by the model",
        "Final protocol, greedy generation: share of edits for which the model writes the whole new answer. Stricter than the "
        "teacher-forced accuracy above, and not to be compared with it.",
        [
            _over(runs, "rel_exact_match_generated", "Rel: exact match, generated", axis="share"),
            _over(runs, "gen_exact_match_generated", "Gen: exact match, generated", axis="share"),
        ],
    )


def _ability(runs: Sequence[Run]) -> Section:
    tasks = {
        task: entry["metric"]
        for run in runs
        for checkpoint in run.checkpoints
        for task, entry in checkpoint["final"].get("ability", {}).items()
    }
    return _section(
        "ability",
        "General ability",
        "On facts that are never edited (of those that the untouched model knows), held-out text, and sampled continuations of "
        f"the edit prompts{'; then tasks of lm-eval' if tasks else ''}. The dotted line is the untouched model.",
        [
            _over(runs, "retained", "Retained facts", axis="share"),
            _over(runs, "perplexity", "Perplexity of held-out text"),
            _over(runs, "fluency", "Fluency: n-gram entropy, bits"),
            *(
                _over(
                    runs,
                    f"{ABILITY}{task}",
                    f"{task}: {metric.replace('_', ' ')}",
                    name=f"ability_{task}",
                    axis="auto" if "perplexity" in metric else "share",
                )
                for task, metric in tasks.items()
            ),
        ],
    )


def _forgetting(runs: Sequence[Run]) -> Section:
    return _section(
        "forgetting",
        "Immediate and final: forgetting",
        "Immediate: each edit is measured right after its own batch (EasyEdit's protocol). The difference to the final protocol "
        "is what later edits took away again.",
        [
            _over(runs, "rel_immediate", "Rel, immediate", axis="share"),
            _over(
                runs,
                lambda row: lost(row, "rel"),
                "Rel lost: immediate − final",
                name="rel_lost",
                axis="zero",
            ),
            _over(
                runs,
                lambda row: lost(row, "gen"),
                "Gen lost: immediate − final",
                name="gen_lost",
                axis="zero",
            ),
            _over(
                runs,
                lambda row: lost(row, "loc"),
                "Loc lost: immediate − final",
                name="loc_lost",
                axis="zero",
            ),
            _by_position(
                runs,
                "rel_by_position",
                "Rel at the end, by position in the stream",
                lambda edit: edit.final,
                mean,
                axis="share",
            ),
        ],
    )


def _kinds(runs: Sequence[Run]) -> Section:
    panels = []
    for group, short in (("locality", "Loc"), ("portability", "Port")):
        kinds = sorted(
            {kind for run in runs for checkpoint in run.checkpoints for kind in _group(checkpoint, group)}
        )
        for kind in kinds:
            panels.append(
                _lines(
                    runs,
                    f"{group}_{kind}",
                    f"{short}: {kind.removesuffix('_acc').replace('_', ' ')}",
                    EDITS,
                    lambda run: _checkpoints(
                        run, lambda row, checkpoint: _group(checkpoint, group).get(kind)
                    ),
                    axis="share",
                )
            )
    return _section("kinds", "Locality and portability by kind", "Final protocol, teacher-forced.", panels)


def _drift(runs: Sequence[Run]) -> Section:
    def by_layer(name: str) -> Callable[[Run], list]:
        return lambda run: _layers(
            {parameter: values[name][0] for parameter, values in _last(run).get("drift", {}).items()}
        )

    section = _section(
        "drift",
        "Drift of the edited weights",
        "Rows of every changed weight against those of the untouched model: means over rows, then over weights. Wasserstein "
        "distance between a row's entries before and after; cosine and Euclidean distance of the row. By layer: at the "
        "last checkpoint.",
        [
            _over(runs, "drift_wasserstein", "Wasserstein distance"),
            _over(runs, "drift_cosine", "Cosine", axis="linear"),
            _over(runs, "drift_l2", "L2 distance"),
            _lines(
                runs, "wasserstein_by_layer", "Wasserstein distance by layer", LAYER, by_layer("wasserstein")
            ),
            _lines(runs, "cosine_by_layer", "Cosine by layer", LAYER, by_layer("cosine"), axis="linear"),
            _lines(runs, "l2_by_layer", "L2 distance by layer", LAYER, by_layer("l2")),
        ],
    )
    # Where every run edits one layer, the ends of the lines above say it all.
    several = [
        panel
        for panel in section.panels
        if panel.x_label != LAYER or any(len(series.x) > 1 for series in panel.series)
    ]
    return dataclasses.replace(section, panels=several)


def _masks(runs: Sequence[Run]) -> Section:
    def by_layer(name: str) -> Callable[[Run], list]:
        return lambda run: _layers(
            {layer: values.get(name) for layer, values in _last(run).get("layers", {}).items()}
        )

    return _section(
        "mask",
        "Masks and updates",
        "Density: share of neurons that an edit may change (1: no mask). Overlap: what two edits' masks have in common (Dice). "
        "Touched: share of neurons in any mask so far. By layer: means over all edits up to the last checkpoint. Leakage: how "
        "far the update acts on the text's keys; delivered: share of the wanted change that arrives at the edited keys.",
        [
            _lines(runs, "density_by_layer", "Mask density by layer", LAYER, by_layer("density")),
            _lines(
                runs,
                "overlap_by_layer",
                "Overlap of masks by layer",
                LAYER,
                by_layer("overlap"),
                axis="share",
            ),
            _lines(
                runs, "touched_by_layer", "Neurons touched by layer", LAYER, by_layer("touched"), axis="share"
            ),
            _over(runs, "density", "Mask density"),
            _over(runs, "leakage", "Leakage"),
            _over(runs, "delivered", "Residual delivered", axis="zero"),
        ],
    )


def _time(runs: Sequence[Run]) -> Section:
    started = [run for run in runs if run.last]
    parts = _parts([_last(run)["seconds"] for run in started])
    stages = _parts(
        [
            {stage: spent / run.last["edits"] for stage, spent in _last(run).get("stages", {}).items()}
            for run in started
        ]
    )
    names = [run.label for run in started]
    bars = [
        Bars("parts", "Seconds of the whole run", names, parts),
        Bars("stages", "Seconds per edit, by stage", names, stages),
    ]
    section = _section(
        "time",
        "Time and memory",
        "Wall time. Seconds per edit are those of its batch divided by the batch's edits, as medians over stretches of the "
        f"stream ({BINS} at most).",
        [
            _by_position(
                runs, "seconds_per_edit", "Seconds per edit", lambda edit: edit.seconds, statistics.median
            ),
            _over(runs, "memory_mib", "Peak memory of the process, MiB", axis="zero"),
            _over(runs, "cuda_mib", "Peak memory of the GPU, MiB", axis="zero"),
        ],
    )
    return Section(
        section.name,
        section.title,
        section.note,
        [bar for bar in bars if bar.parts] + section.panels,
        [bar.title for bar in bars if not bar.parts] + section.missing,
    )


def _section(name: str, title: str, note: str, panels: list[Panel]) -> Section:
    return Section(
        name,
        title,
        note,
        [panel for panel in panels if panel.series],
        [panel.title for panel in panels if not panel.series],
    )


def _over(
    runs: Sequence[Run],
    value: str | Callable[[dict], float | None],
    title: str,
    name: str = "",
    axis: str = "auto",
) -> Panel:
    """A column of ``checkpoints.csv``, or a function of its rows, against the number of edits."""
    read = value if callable(value) else lambda row: row.get(value)
    panel = _lines(
        runs, name or str(value), title, EDITS, lambda run: _checkpoints(run, lambda row, _: read(row)), axis
    )
    untouched = [
        read(runs[series.run].untouched) if runs[series.run].untouched else None for series in panel.series
    ]
    same = (
        untouched
        and untouched[0] is not None
        and all(
            other is not None and abs(other - untouched[0]) <= 1e-6 * abs(untouched[0]) for other in untouched
        )
    )
    wanted = value in ("retained", "perplexity", "fluency") or name.startswith("ability_")
    return dataclasses.replace(panel, reference=untouched[0] if same and wanted else None)


def _lines(
    runs: Sequence[Run],
    name: str,
    title: str,
    x_label: str,
    points: Callable[[Run], list[tuple]],
    axis: str = "auto",
) -> Panel:
    series, missing = [], []
    for number, run in enumerate(runs):
        known = [(x, y) for x, y in points(run) if y is not None]
        if known:
            series.append(Series(number, run.label, [x for x, _ in known], [y for _, y in known]))
        else:
            missing.append(run.label)
    return Panel(name, title, x_label, series, axis, None, missing)


def _by_position(
    runs: Sequence[Run], name: str, title: str, read: Callable, middle: Callable, axis: str = "auto"
) -> Panel:
    """What every edit has, gathered in stretches of the stream, the same for all runs; x is the end of the
    stretch."""
    width = max(1, -(-max(run.done for run in runs) // BINS))

    def points(run: Run) -> list[tuple[float, float]]:
        found: dict[int, list[float]] = {}
        for edit in run.edits:
            if read(edit) is not None:
                found.setdefault(min((edit.position // width + 1) * width, len(run.edits)), []).append(
                    read(edit)
                )
        return [(end, middle(values)) for end, values in sorted(found.items())]

    return _lines(runs, name, title, POSITION, points, axis)


def _checkpoints(run: Run, read: Callable[[dict, dict], float | None]) -> list[tuple[int, float | None]]:
    return [
        (row["edits"], read(row, checkpoint))
        for row, checkpoint in zip(run.rows, run.checkpoints)
        if row["edits"]
    ]


def _last(run: Run) -> dict[str, Any]:
    return run.checkpoints[-1] if run.last else {}


def _group(checkpoint: dict[str, Any], group: str) -> dict[str, float]:
    return checkpoint["final"].get(group, {})


def _layers(values: dict[str, float | None]) -> list[tuple[int, float]]:
    """Means by layer; the keys are layers' numbers or parameters' names, the first number in which is the
    layer's."""
    found: dict[int, list[float]] = {}
    for name, value in values.items():
        number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
        if number and value is not None:
            found.setdefault(int(number.group(1)), []).append(value)
    return [(layer, sum(there) / len(there)) for layer, there in sorted(found.items())]


def _parts(found: list[dict[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for parts in found for name, spent in parts.items() if spent)
    return {name: [parts.get(name) or 0.0 for parts in found] for name in names}
