"""What the report plots: sections of panels as plain numbers, the one source of drawings, tables and tests.

A value that a run did not measure is not in its series. A panel without any series is listed as missing in
its section.
"""

import dataclasses
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..lifelong.run_folder import ABILITY
from ..utils.lists import mean
from .runs import Run
from .table import common_untouched

BINS = 25  # most points of a line over single edits
EDITS, LAYER, POSITION = "edits", "layer", "position of the edit in the stream"


@dataclass(frozen=True)
class Series:
    """Points of a run, x ascending; ``run`` is its number in the report, which sets colour and marker."""

    run: int
    label: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Panel:
    """Lines over a common axis, a series for each run that measured ``title``.

    ``axis`` of y: ``share`` goes from 0 to 1, ``zero`` includes zero, ``linear`` fits the values; ``auto``
    fits them too, and is logarithmic where they span decades. ``reference`` is the untouched model's value,
    None where runs differ; ``missing`` are the labels of the runs that did not measure it.
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
    """One horizontal bar per run; ``parts``: name -> its length in each bar, 0 where a run has none."""

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

    @classmethod
    def of(cls, name: str, title: str, note: str, panels: Sequence[Panel | Bars]) -> "Section":
        """A section that separates the measured panels from the missing ones."""
        measured = [panel for panel in panels if (panel.series if isinstance(panel, Panel) else panel.parts)]
        missing = [panel.title for panel in panels if panel not in measured]
        return cls(name, title, note, measured, missing)


def sections(runs: Sequence[Run]) -> list[Section]:
    """All sections of a report in the order of the page."""
    makers = [_edits, _generated, _ability, _forgetting, _kinds, _drift, _masks, _time]
    if any(run.guard for run in runs):
        makers.insert(3, _guard)
    return [make(runs) for make in makers]


def _edits(runs: Sequence[Run]) -> Section:
    note = (
        "Teacher-forced token accuracy, final protocol: at each point all edits so far are measured on "
        "the model as it is then. Locality is the share of tokens that agree with the untouched model; of "
        "several edits of one fact only the last one counts."
    )
    titles = {"rel": "Rel: rewrite accuracy", "gen": "Gen: rephrase accuracy", "loc": "Loc: locality"}
    titles["portability"] = "Port: portability"
    panels = [_over_edits(runs, name, title, "share") for name, title in titles.items()]
    return Section.of("edits", "Reliability, generality, locality", note, panels)


def _generated(runs: Sequence[Run]) -> Section:
    note = (
        "Final protocol, greedy generation: share of edits for which the model writes the whole new "
        "answer. This is stricter than the teacher-forced accuracy above; the two cannot be compared."
    )
    panels = [
        _over_edits(runs, f"{name.lower()}_exact_match_generated", f"{name}: exact match, generated", "share")
        for name in ("Rel", "Gen")
    ]
    return Section.of("generated", "Written out by the model", note, panels)


def _ability(runs: Sequence[Run]) -> Section:
    metrics = {
        task: entry["metric"]
        for run in runs
        for checkpoint in run.checkpoints
        for task, entry in checkpoint["final"].get("ability", {}).items()
    }
    panels = [
        _over_edits(runs, "retained", "Retained facts", "share"),
        _over_edits(runs, "perplexity", "Perplexity of held-out text"),
        _over_edits(runs, "fluency", "Fluency: n-gram entropy, bits"),
    ]
    for task, metric in metrics.items():
        axis = "auto" if "perplexity" in metric else "share"
        panels.append(_over_edits(runs, f"{ABILITY}{task}", f"{task}: {metric.replace('_', ' ')}", axis))
    tasks = ", then on tasks of lm-eval" if metrics else ""
    return Section.of(
        "ability",
        "General ability",
        "Measured on facts that are never edited (which the untouched model knows), on held-out text, on "
        f"sampled continuations of the edit prompts{tasks}. The dotted line is the untouched model.",
        [_with_reference(runs, panel) for panel in panels],
    )


def _guard(runs: Sequence[Run]) -> Section:
    titles = {
        "retained": ("Facts known before", "share"),
        "perplexity": ("Perplexity over the untouched model's", "auto"),
        "rel": ("Rel of earlier edits", "share"),
    }
    panels = [
        _panel(
            runs,
            [[(reading["edits"], reading.get(name)) for reading in run.guard] for run in runs],
            f"guard_{name}",
            title,
            EDITS,
            axis,
        )
        for name, (title, axis) in titles.items()
    ]
    note = "What the canaries said on the way: a few known facts, passages of text, and earlier edits."
    return Section.of("guard", "Guard", note, panels)


def _forgetting(runs: Sequence[Run]) -> Section:
    note = (
        "Immediate: each edit is measured right after its own batch (EasyEdit's protocol). The difference "
        "to the final protocol is what later edits destroyed."
    )
    panels = [_over_edits(runs, "rel_immediate", "Rel, immediate", "share")]
    for name in ("Rel", "Gen", "Loc"):
        panels.append(_over_edits(runs, f"{name.lower()}_lost", f"{name} lost: immediate − final", "zero"))
    title = "Rel at the end, by position in the stream"
    panels.append(_over_positions(runs, "final", "rel_by_position", title, "share"))
    return Section.of("forgetting", "Immediate and final: forgetting", note, panels)


def _kinds(runs: Sequence[Run]) -> Section:
    panels = []
    for prefix, short in (("loc:", "Loc"), ("portability:", "Port")):
        columns = {name for run in runs for row in run.rows for name in row}
        for name in sorted(name for name in columns if name.startswith(prefix)):
            kind = name.removeprefix(prefix).replace("_", " ")
            panels.append(_over_edits(runs, name, f"{short}: {kind}", "share"))
    return Section.of("kinds", "Locality and portability by kind", "Final protocol, teacher-forced.", panels)


def _drift(runs: Sequence[Run]) -> Section:
    titles = {"wasserstein": "Wasserstein distance", "cosine": "Cosine", "l2": "L2 distance"}
    panels, by_layer = [], []
    for name, title in titles.items():
        axis = "linear" if name == "cosine" else "auto"
        panels.append(_over_edits(runs, f"drift_{name}", title, axis))
        by_layer.append(_over_layers(runs, "drift", name, f"{title} by layer", axis))
    # Where every run edits a single layer, the last points of the lines above already show its value.
    panels += [panel for panel in by_layer if max((len(line.x) for line in panel.series), default=2) > 1]
    return Section.of(
        "drift",
        "Drift of the edited weights",
        "Rows of every changed weight compared with those of the untouched model: means over rows, then "
        "over weights. Wasserstein distance between a row's entries before and after; cosine and "
        "Euclidean distance of the row. By layer: at the last checkpoint.",
        panels,
    )


def _masks(runs: Sequence[Run]) -> Section:
    return Section.of(
        "mask",
        "Masks and updates",
        "Density: share of neurons that an edit may change (1: no mask). Overlap: what the masks of two "
        "edits have in common (Dice). Touched: share of neurons in any mask so far. By layer: means over "
        "all edits up to the last checkpoint. Leakage: how far the update acts on the keys of ordinary "
        "text. Delivered: share of the requested change that arrives at the edited keys.",
        [
            _over_layers(runs, "layers", "density", "Mask density by layer"),
            _over_layers(runs, "layers", "overlap", "Overlap of masks by layer", "share"),
            _over_layers(runs, "layers", "touched", "Neurons touched by layer", "share"),
            _over_edits(runs, "density", "Mask density"),
            _over_edits(runs, "leakage", "Leakage"),
            _over_edits(runs, "delivered", "Residual delivered", "zero"),
        ],
    )


def _time(runs: Sequence[Run]) -> Section:
    started = [run for run in runs if run.last]
    labels = [run.label for run in started]
    whole = [run.last_checkpoint["seconds"] for run in started]
    by_stage = []
    for run in started:
        stages = run.last_checkpoint.get("stages", {})
        by_stage.append({stage: seconds / run.last["edits"] for stage, seconds in stages.items()})
    return Section.of(
        "time",
        "Time and memory",
        "Wall time. Seconds per edit are those of its batch divided by the number of edits in the batch, "
        f"as medians over stretches of the stream ({BINS} at most).",
        [
            Bars("parts", "Seconds of the whole run", labels, _parts(whole)),
            Bars("stages", "Seconds per edit, by stage", labels, _parts(by_stage)),
            _over_positions(runs, "seconds", "seconds_per_edit", "Seconds per edit"),
            _over_edits(runs, "memory_mib", "Peak memory of the process, MiB", "zero"),
            _over_edits(runs, "cuda_mib", "Peak memory of the GPU, MiB", "zero"),
        ],
    )


def _over_edits(runs: Sequence[Run], column: str, title: str, axis: str = "auto") -> Panel:
    """A column of ``Run.rows`` against the number of edits."""
    points = [[(row["edits"], row.get(column)) for row in run.rows if row["edits"]] for run in runs]
    return _panel(runs, points, column, title, EDITS, axis)


def _with_reference(runs: Sequence[Run], panel: Panel) -> Panel:
    reference = common_untouched([runs[series.run] for series in panel.series], panel.name)
    return dataclasses.replace(panel, reference=reference)


def _over_layers(runs: Sequence[Run], group: str, measure: str, title: str, axis: str = "auto") -> Panel:
    """A measure of the last checkpoint's ``drift`` or ``layers``, as means by layer."""
    points = []
    for run in runs:
        by_layer: dict[int, list[float]] = {}
        for name, values in run.last_checkpoint.get(group, {}).items():
            # The key is the layer's number or a parameter's name, whose first number is the layer's.
            layer = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
            value = values.get(measure)
            value = value[0] if group == "drift" and value is not None else value
            if layer and value is not None:
                by_layer.setdefault(int(layer.group(1)), []).append(value)
        points.append([(layer, mean(values)) for layer, values in sorted(by_layer.items())])
    return _panel(runs, points, f"{measure}_by_layer", title, LAYER, axis)


def _over_positions(runs: Sequence[Run], attribute: str, name: str, title: str, axis: str = "auto") -> Panel:
    """An attribute of all edits over stretches of the stream: median of seconds, mean of an accuracy.

    The stretches are the same for all runs; x is the end of the stretch.
    """
    average = statistics.median if attribute == "seconds" else mean
    width = max(1, -(-max(run.done for run in runs) // BINS))
    points = []
    for run in runs:
        stretches: dict[int, list[float]] = {}
        for edit in run.edits:
            value = getattr(edit, attribute)
            if value is not None:
                end = min((edit.position // width + 1) * width, len(run.edits))
                stretches.setdefault(end, []).append(value)
        points.append([(end, average(values)) for end, values in sorted(stretches.items())])
    return _panel(runs, points, name, title, POSITION, axis)


def _panel(
    runs: Sequence[Run], points: Iterable[list[tuple]], name: str, title: str, x_label: str, axis: str
) -> Panel:
    series, missing = [], []
    for number, (run, pairs) in enumerate(zip(runs, points)):
        pairs = [(x, y) for x, y in pairs if y is not None]
        if pairs:
            series.append(Series(number, run.label, [x for x, _ in pairs], [y for _, y in pairs]))
        else:
            missing.append(run.label)
    return Panel(name, title, x_label, series, axis, missing=missing)


def _parts(seconds: list[dict[str, float]]) -> dict[str, list[float]]:
    names = dict.fromkeys(name for parts in seconds for name, spent in parts.items() if spent)
    return {name: [parts.get(name) or 0.0 for parts in seconds] for name in names}
