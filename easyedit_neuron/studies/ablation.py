"""Role ablation (NMKE, Fig. 2 and Table 5): what is lost when general, domain-specific or task-specific neurons are silent.

    python -m easyedit_neuron.studies.ablation --model tiny-llama --data tiny-world --out ablation

The paper names the kinds and no formula; here they are, over all neurons i of the layers looked at:

- ``A_ti`` = mean over prompts of task t of the attribution (log-probability shift, Eq. 3, of the token that the model itself
  says);
- i is *active* in t when ``A_ti`` is among the highest ``--active`` (10%) of all neurons' and positive;
- *general*: active in every task; *domain-specific* for D: active in two or more tasks of D and in none outside;
  *task-specific* for t: active in t alone. (Whatever is active across domains but not everywhere is of no kind.)

Of every kind the ``k`` neurons with the highest mean ``A`` over its tasks (all; those of D; t) are silenced (q_i = 0 at every
token); token accuracy and negative log-likelihood of the answer (nats per token), both teacher-forced, are measured on other
facts than those that located them: on the kind's own tasks, on the other tasks of the domain, and elsewhere. Beside it as many
random neurons of the same layers, ``--seeds`` times, mean and standard deviation; and every layer's neurons all together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arch import Capture, take
from ..attribution import neuron_scores, target_tokens
from ..errors import DataError, NeuronEditError
from ..tokens import encode
from .command import Subject, layers_of, load, parser, positive, run
from .output import Plot, Result, Table
from .plots import marks
from .silence import counterparts, silenced
from .tasks import Fact, domains_of, facts_by_task

KINDS = ("general", "domain", "task")
WHERE = ("own", "near", "far")
BATCH = 128
"""Facts per forward pass."""


@dataclass(frozen=True)
class Measured:
    """Token accuracy (0 to 1) and negative log-likelihood of the answers (nats per token), means by task."""

    accuracy: dict[str, float]
    nll: dict[str, float]

    def lost(self, base: "Measured", tasks: Sequence[str]) -> dict[str, float | None]:
        """``drop`` of the accuracy and ``rise`` of the likelihood's negative logarithm, means over some tasks."""
        return {"drop": _mean(base.accuracy[task] - self.accuracy[task] for task in tasks),
                "rise": _mean(self.nll[task] - base.nll[task] for task in tasks)}


@dataclass(frozen=True)
class Kind:
    """Neurons of one kind, best first.

    Attributes:
        kind: one of ``KINDS``.
        name: of the domain or the task; ``all``.
        neurons: int64 ``[n, 2]``, layer and number.
        own, near, far: the tasks it belongs to, the others of its domain, those of other domains.
    """

    kind: str
    name: str
    neurons: Tensor
    own: list[str]
    near: list[str]
    far: list[str]

    def best(self, count: int) -> dict[int, Tensor]:
        """Layer -> the numbers of its neurons among the ``count`` best."""
        some = self.neurons[:count]
        return {layer: some[some[:, 0] == layer, 1] for layer in some[:, 0].unique().tolist()}


def kinds_of(scores: Mapping[str, Tensor], layers: Sequence[int], domains: Mapping[str, Sequence[str]],
             active: float) -> list[Kind]:
    """General, domain-specific and task-specific neurons.

    Args:
        scores: task -> ``A_t [layers, d_ff]``.
        layers: number of each row.
        domains: domain -> its tasks, all of them together.
        active: share of all neurons that is active in a task.

    Raises:
        NeuronEditError: ``active`` not in (0, 1), or fewer than two tasks.
    """
    if not 0 < active < 1:
        raise NeuronEditError(f"--active must lie between 0 and 1, got {active}")
    tasks = list(scores)
    if len(tasks) < 2:
        raise NeuronEditError(f"roles need at least two tasks, the data has {tasks}; --field names the field with the task")
    values = torch.stack([scores[task].double().cpu().flatten() for task in tasks])  # [tasks, neurons]
    count = max(1, round(active * values.shape[1]))
    cuts = values.topk(count, dim=1).values[:, -1:]
    on = (values >= cuts) & (values > 0)
    found = [("general", "all", on.all(0), tasks)]
    for domain, members in domains.items():
        inside = torch.tensor([task in members for task in tasks])
        alone = ~on[~inside].any(0)
        if 2 <= len(members) < len(tasks):
            found.append(("domain", domain, (on[inside].sum(0) >= 2) & alone, list(members)))
        for task in members:
            found.append(("task", task, on[tasks.index(task)] & (on.sum(0) == 1), [task]))
    d_ff, made = values.shape[1] // len(layers), []
    for kind, name, mask, own in found:
        rank = values[[tasks.index(task) for task in own]].mean(0)
        order = torch.where(mask, rank, -torch.inf).argsort(descending=True, stable=True)[:int(mask.sum())]
        places = torch.stack([torch.tensor(list(layers))[order // d_ff], order % d_ff], dim=1)
        domain = next(members for members in domains.values() if own[0] in members)
        near = [] if kind == "general" else [task for task in domain if task not in own]
        made.append(Kind(kind, name, places, own, near, [task for task in tasks if task not in own and task not in near]))
    return made


def study(arguments: argparse.Namespace) -> Result:
    """Locates on some facts of every task, silences, measures on others."""
    facts = facts_by_task(arguments.data, arguments.field)
    domains = domains_of(list(facts), arguments.domain)
    short = next((task for task, some in facts.items() if len(some) < arguments.locate + 1), None)
    if short is not None:
        raise DataError(f"task {short!r} has {len(facts[short])} facts; --locate {arguments.locate} leaves none to measure")
    subject = load(arguments)
    layers = layers_of(subject.view, arguments.layers)
    scores = {task: mean_scores(subject, some[:arguments.locate], layers, arguments.attribution) for task, some in facts.items()}
    kinds = kinds_of(scores, layers, domains, arguments.active)
    asked = {task: some[arguments.locate:arguments.locate + arguments.measure] for task, some in facts.items()}
    base = measure(subject, asked)
    rows = [_row(subject, kind, top, asked, base, arguments.seeds)
            for kind in kinds for top in arguments.top if len(kind.neurons)]
    counts = [{"kind": kind.kind, "name": kind.name, "neurons": len(kind.neurons),
               "share": len(kind.neurons) / (len(layers) * subject.view.d_ff),
               **{f"layer_{layer}": int((kind.neurons[:, 0] == layer).sum()) for layer in layers}} for kind in kinds]
    whole = [{"layer": layer, **_silent(subject, {layer: torch.arange(subject.view.d_ff)}, asked).lost(base, list(facts))}
             for layer in layers]
    means = summarised(rows)
    return Result("ablation", f"Role ablation: {arguments.model}, {len(facts)} tasks of {arguments.data}",
                  f"Drop of the token accuracy (untouched: {_mean(base.accuracy.values()):.3f}, mean over tasks) and rise of the "
                  "answer's negative log-likelihood (nats) when the best neurons of a kind are silent; located on "
                  f"{arguments.locate} facts per task, measured on others. Random: as many neurons of the same layers, "
                  f"{arguments.seeds} draws, mean and standard deviation.",
                  _pictures(means, arguments.top),
                  [Table("ablation_means", "Means over domains and tasks", means),
                   Table("ablation", "Every kind", rows, folded=True),
                   Table("ablation_neurons", "Neurons of each kind", counts, folded=True),
                   Table("ablation_layers", "A layer's neurons all silenced", whole, folded=True)])


def mean_scores(subject: Subject, facts: Sequence[Fact], layers: Sequence[int], kind: str) -> Tensor:
    """``A_t [layers, d_ff]`` float32 (CPU) of one task."""
    batch = encode(subject.tok, [fact.prompt for fact in facts], subject.view.input_device)
    found = neuron_scores(subject.view, batch, layers, kind)
    return torch.stack([found.scores[layer].mean(0).cpu() for layer in layers])


@torch.no_grad()
def measure(subject: Subject, facts: Mapping[str, Sequence[Fact]]) -> Measured:
    """The answers to all facts, teacher-forced, those of all tasks in shared forward passes."""
    flat, right, nll = [fact for some in facts.values() for fact in some], [], []
    for start in range(0, len(flat), BATCH):
        some = flat[start:start + BATCH]
        targets = target_tokens(subject.tok, [fact.prompt for fact in some], [fact.answer for fact in some],
                                subject.view.input_device)
        with Capture(subject.view, [], "final_hidden", "final") as seen:
            subject.model(**targets.batch.inputs, use_cache=False)
        logits = subject.view.logits(take(seen.final_hidden, targets.owner, targets.position))
        owner, ids = targets.owner.to(logits.device), targets.token_ids.to(logits.device)
        count = owner.bincount()
        for kept, values in ((right, logits.argmax(-1) == ids), (nll, -logits.log_softmax(-1).gather(1, ids[:, None])[:, 0])):
            kept += (values.new_zeros(len(some), dtype=torch.float64).index_add(0, owner, values.double()) / count).tolist()
    return Measured(*({task: sum(next(values) for _ in some) / len(some) for task, some in facts.items()}
                      for values in (iter(right), iter(nll))))


def _row(subject: Subject, kind: Kind, top: int, asked, base: Measured, seeds: int) -> dict:
    neurons = kind.best(top)
    silent = _silent(subject, neurons, asked)
    random = [_silent(subject, counterparts(neurons, subject.view.d_ff, seed), asked) for seed in range(seeds)]
    row = {"kind": kind.kind, "name": kind.name, "top": top, "silenced": sum(map(len, neurons.values())),
           "accuracy_before": _mean(base.accuracy[task] for task in kind.own)}
    for where, tasks in zip(WHERE, (kind.own, kind.near, kind.far)):
        lost, drawn = silent.lost(base, tasks), [one.lost(base, tasks) for one in random]
        for name, value in lost.items():
            values = [one[name] for one in drawn if one[name] is not None]
            row[f"{name}_{where}"], row[f"random_{name}_{where}"] = value, _mean(values)
            row[f"random_{name}_{where}_std"] = float(torch.tensor(values).double().std(correction=0)) if values else None
    row["layers"] = " ".join(f"{layer}:{len(units)}" for layer, units in sorted(neurons.items()))
    return row


def _silent(subject: Subject, neurons: Mapping[int, Tensor], asked) -> Measured:
    with silenced(subject.view, neurons):
        return measure(subject, asked)


def summarised(rows: Sequence[dict]) -> list[dict]:
    """Means over the names of a kind, for every number of neurons."""
    made = []
    for kind, top in dict.fromkeys((row["kind"], row["top"]) for row in rows):
        some = [row for row in rows if (row["kind"], row["top"]) == (kind, top)]
        numbers = [name for name in some[0] if name.startswith(("silenced", "accuracy", "drop", "rise", "random"))]
        made.append({"kind": kind, "top": top, "of": len(some), **{name: _mean(row[name] for row in some) for name in numbers}})
    return made


def _mean(values) -> float | None:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _pictures(means: Sequence[dict], tops: Sequence[int]) -> list[Plot]:
    plots = []
    for name, label in (("drop", "drop of accuracy"), ("rise", "rise of the NLL, nats")):
        series = {"own tasks": f"{name}_own", "same domain": f"{name}_near", "elsewhere": f"{name}_far",
                  "random, own tasks": f"random_{name}_own"}
        for top in tops:
            some = [row for row in means if row["top"] == top]
            values = {label: [row[column] for row in some] for label, column in series.items()}
            errors = {"random, own tasks": [row[f"random_{name}_own_std"] for row in some]}
            plots.append(Plot(f"The best {top} silenced", marks([row["kind"] for row in some], values, "", label, errors=errors)))
    return plots


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("ablation", "General, domain-specific and task-specific neurons silenced, against random ones.")
    made.add_argument("--data", default="tiny-world", help="facts with tasks: a JSON list of records, or tiny-world")
    made.add_argument("--field", default="relation", help="field of a record that names its task")
    made.add_argument("--domain", action="append", default=[], metavar="NAME=TASK,TASK", help="tasks that belong together")
    made.add_argument("--layers", type=int, nargs="+", help="default: all")
    made.add_argument("--attribution", choices=("lps", "psa", "mpc", "activation"), default="lps")
    made.add_argument("--active", type=float, default=0.1, help="share of the neurons that count as active in a task (0.1)")
    made.add_argument("--top", type=positive, nargs="+", default=[10, 50], help="how many neurons of a kind are silenced (10 50)")
    made.add_argument("--locate", type=positive, default=12, help="facts per task that neurons are located on (12)")
    made.add_argument("--measure", type=positive, default=24, help="other facts per task that are measured, at most (24)")
    made.add_argument("--seeds", type=positive, default=3, help="draws of random neurons (3)")
    return run(made.parse_args(argv), "ablation", study)


if __name__ == "__main__":
    sys.exit(main())
