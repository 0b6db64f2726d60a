"""Role ablation (NMKE, Fig. 2 and Table 5): what is lost without general, domain- or task-specific neurons.

``A_ti`` is the mean attribution of neuron i over prompts of task t, of the token that the model itself says.
A neuron is *active* in t when ``A_ti`` is positive and among the highest ``--active`` of all neurons. It is
*general* when active in every task, *domain-specific* when active in two or more tasks of a domain and in
none outside, *task-specific* when active in one task alone. Of every kind the neurons with the highest mean
``A`` are silenced (q_i = 0), and as many random ones of the same layers. What is lost is measured on other
facts than those that located the neurons: on the kind's own tasks, on others of the domain, and elsewhere.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..arch import Capture, take
from ..arch.tokens import encode
from ..attribution import neuron_scores, target_tokens
from ..errors import DataError
from ..utils.lists import mean
from .averages import average_rows, deviation
from .command import StudiedModel, Study, add_model, layers_of, load, positive
from .kinds import Kind, kinds_of
from .output import Result, Table
from .plots import Marks
from .silence import counterparts, silenced
from .tasks import Fact, domains_of, facts_by_task, members_of, sampled

PLACES = ("own", "near", "far")
"""Where something is lost: on the kind's own tasks, on the others of the domain, elsewhere."""
LOST = tuple(f"{name}_{place}" for place in PLACES for name in ("drop", "rise"))
Y_LABELS = {"drop": "drop of accuracy", "rise": "rise of the NLL, nats"}
BATCH = 128
"""Facts per forward pass."""
Facts = Mapping[str, Sequence[Fact]]


@dataclass(frozen=True)
class AnswerScores:
    """Token accuracy (0 to 1) and negative log-likelihood (nats per token) of the answers, means by task."""

    accuracy: dict[str, float]
    nll: dict[str, float]

    def loss(self, untouched: "AnswerScores", tasks: Sequence[str]) -> dict[str, float | None]:
        """``drop`` of the accuracy and ``rise`` of the negative log-likelihood, means over these tasks."""
        drop = mean(untouched.accuracy[task] - self.accuracy[task] for task in tasks)
        return {"drop": drop, "rise": mean(self.nll[task] - untouched.nll[task] for task in tasks)}


def mean_scores(studied: StudiedModel, facts: Sequence[Fact], layers: Sequence[int], kind: str) -> Tensor:
    """``A_t [layers, d_ff]`` float32 (CPU) of one task."""
    batch = encode(studied.tok, [fact.prompt for fact in facts], studied.view.input_device)
    scores = neuron_scores(studied.view, batch, layers, kind).scores
    return torch.stack([scores[layer].mean(0).cpu() for layer in layers])


@torch.no_grad()
def score_answers(studied: StudiedModel, facts: Facts) -> AnswerScores:
    """Score the answers to all facts, teacher-forced; facts of all tasks share forward passes."""
    all_facts = [fact for task_facts in facts.values() for fact in task_facts]
    accuracy, nll = [], []
    for start in range(0, len(all_facts), BATCH):
        batch = all_facts[start : start + BATCH]
        prompts, answers = [fact.prompt for fact in batch], [fact.answer for fact in batch]
        targets = target_tokens(studied.tok, prompts, answers, studied.view.input_device)
        with Capture(studied.view, [], "final_hidden", "final") as capture:
            studied.model(**targets.batch.inputs, use_cache=False)
        logits = studied.view.logits(take(capture.final_hidden, targets.owner, targets.position))
        owner, ids = targets.owner.to(logits.device), targets.token_ids.to(logits.device)
        accuracy += _fact_means(logits.argmax(-1) == ids, owner, len(batch))
        nll += _fact_means(-logits.log_softmax(-1).gather(1, ids[:, None])[:, 0], owner, len(batch))
    return AnswerScores(_task_means(accuracy, facts), _task_means(nll, facts))


def _fact_means(values: Tensor, owner: Tensor, count: int) -> list[float]:
    sums = values.new_zeros(count, dtype=torch.float64).index_add(0, owner, values.double())
    return (sums / owner.bincount()).tolist()


def _task_means(values: list[float], facts: Facts) -> dict[str, float]:
    remaining, counts = iter(values), {task: len(task_facts) for task, task_facts in facts.items()}
    return {task: sum(islice(remaining, count)) / count for task, count in counts.items()}


def _score_silenced(studied: StudiedModel, neurons: Mapping[int, Tensor], facts: Facts) -> AnswerScores:
    with silenced(studied.view, neurons):
        return score_answers(studied, facts)


def trials_of(
    studied: StudiedModel, kind: Kind, top: int, facts: Facts, untouched: AnswerScores, draws: int
) -> Iterator[dict]:
    """What is lost without the kind's ``top`` best neurons (``draw`` None), then without random ones."""
    best = kind.best(top)
    tasks = dict(zip(PLACES, (kind.own, kind.near, kind.far)))
    for draw in (None, *range(draws)):
        neurons = best if draw is None else counterparts(best, studied.view.d_ff, draw)
        scores = _score_silenced(studied, neurons, facts)
        row = {"kind": kind.kind, "name": kind.name, "top": top, "silenced": sum(map(len, best.values()))}
        row["accuracy_before"] = mean(untouched.accuracy[task] for task in kind.own)
        row["draw"] = draw
        for place in PLACES:
            loss = scores.loss(untouched, tasks[place])
            row |= {f"{name}_{place}": value for name, value in loss.items()}
        yield row


def compared(trials: Sequence[dict], by: Sequence[str]) -> list[dict[str, Any]]:
    """Compare best and random neurons over the trials that agree in the columns ``by``.

    Of every sample the mean over the names; of these the mean and the deviation over samples. Of every sample
    and draw of random neurons the mean over the names; of these the mean and the deviation over draws.
    ``of``: the number of names.
    """
    rows = []
    for key in dict.fromkeys(tuple(trial[name] for name in by) for trial in trials):
        group = [trial for trial in trials if tuple(trial[name] for name in by) == key]
        row = dict(zip(by, key)) | {"of": len({trial["name"] for trial in group})}
        row |= {name: mean(trial[name] for trial in group) for name in ("silenced", "accuracy_before")}
        columns = ("sample", "draw", *LOST)
        means = average_rows([{name: trial[name] for name in columns} for trial in group], ("sample", "draw"))
        best = [average for average in means if average["draw"] is None]
        random = [average for average in means if average["draw"] is not None]
        for name in LOST:
            for prefix, averages in (("", best), ("random_", random)):
                values = [average[name] for average in averages]
                row[f"{prefix}{name}"], row[f"{prefix}{name}_std"] = mean(values), deviation(values)
        rows.append(row)
    return rows


def measure(args: argparse.Namespace) -> Result:
    """Locate on some facts of every task, silence, and measure on others."""
    named = [task for members in members_of(args.domain).values() for task in members]
    facts = facts_by_task(args.data, args.field, named)
    domains = domains_of(list(facts), args.domain)
    for task, task_facts in facts.items():
        if len(task_facts) <= args.locate:
            problem = f"--locate {args.locate} leaves none to measure"
            raise DataError(f"task {task!r} has {len(task_facts)} facts; {problem}")
    studied = load(args)
    layers, d_ff = layers_of(studied.view, args.layers), studied.view.d_ff
    trials, counts, layer_losses, accuracies = [], [], [], []
    for sample in range(args.samples):
        shuffled = sampled(facts, sample)
        scores = {
            task: mean_scores(studied, task_facts[: args.locate], layers, args.attribution)
            for task, task_facts in shuffled.items()
        }
        kinds = kinds_of(scores, layers, domains, args.active)
        end = args.locate + args.measure
        others = {task: task_facts[args.locate : end] for task, task_facts in shuffled.items()}
        untouched = score_answers(studied, others)
        accuracies.append(mean(untouched.accuracy.values()))
        for kind in kinds:
            count = len(kind.neurons)
            row = {"kind": kind.kind, "name": kind.name, "neurons": count}
            row["share"] = count / (len(layers) * d_ff)
            by_layer = {f"layer_{layer}": int((kind.neurons[:, 0] == layer).sum()) for layer in layers}
            counts.append(row | by_layer)
            for top in args.top if count else ():
                rows = trials_of(studied, kind, top, others, untouched, args.seeds)
                trials += [{"sample": sample, **row} for row in rows]
        for layer in layers:
            silent = _score_silenced(studied, {layer: torch.arange(d_ff)}, others)
            layer_losses.append({"layer": layer, **silent.loss(untouched, list(facts))})

    means = compared(trials, ("kind", "top"))
    by_name = compared(trials, ("kind", "name", "top"))
    neurons = average_rows(counts, ("kind", "name"), with_std=("neurons",))
    whole_layers = average_rows(layer_losses, ("layer",), with_std=("drop", "rise"))
    return Result(
        "ablation",
        f"Role ablation: {args.model}, {len(facts)} tasks of {args.data}",
        f"Drop of the token accuracy (untouched: {mean(accuracies):.3f}, mean over tasks) and rise of the "
        "answer's negative log-likelihood (nats) when the best neurons of a kind are silent; located on "
        f"{args.locate} facts per task, measured on others; {args.samples} sample(s) of facts, with their "
        f"standard deviation. Random: as many neurons of the same layers, {args.seeds} draws per sample, "
        "mean and standard deviation over draws.",
        [_plot(means, top, name) for name in Y_LABELS for top in args.top],
        [
            Table("ablation_means", "Means over domains and tasks", means),
            Table("ablation", "Every kind", by_name, folded=True),
            Table("ablation_neurons", "Neurons of each kind", neurons, folded=True),
            Table("ablation_layers", "A layer's neurons all silenced", whole_layers, folded=True),
            Table("ablation_trials", "Every trial", trials, raw=True),
        ],
    )


def _plot(means: Sequence[dict], top: int, name: str) -> Marks:
    columns = {"own tasks": f"{name}_own", "same domain": f"{name}_near", "elsewhere": f"{name}_far"}
    columns["random, own tasks"] = f"random_{name}_own"
    rows = [row for row in means if row["top"] == top]
    values = {label: [row[column] for row in rows] for label, column in columns.items()}
    errors = {label: [row[f"{column}_std"] for row in rows] for label, column in columns.items()}
    kinds = [row["kind"] for row in rows]
    return Marks(f"The best {top} silenced", kinds, values, "", Y_LABELS[name], errors)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add = parser.add_argument
    add("--data", default="tiny-world", help="facts with tasks: a JSON list, a folder with MMLU, tiny-world")
    add("--field", default="relation", help="field of a record that names its task (relation)")
    domain_help = "tasks that belong together"
    add("--domain", action="append", default=[], metavar="NAME=TASK,TASK", help=domain_help)
    add("--layers", type=int, nargs="+", help="default: all")
    add("--attribution", choices=("lps", "psa", "mpc", "activation"), default="lps")
    add("--active", type=float, default=0.1, help="share of the neurons that is active in a task (0.1)")
    top_help = "how many neurons of a kind are silenced (10 50)"
    add("--top", type=positive, nargs="+", default=[10, 50], help=top_help)
    add("--locate", type=positive, default=12, help="facts per task to locate neurons on (12)")
    add("--measure", type=positive, default=24, help="most other facts per task to measure (24)")
    add("--seeds", type=positive, default=3, help="draws of random neurons (3)")
    add("--samples", type=positive, default=1, help="samples of facts to locate and to measure (1)")


_DESCRIPTION = "General, domain-specific and task-specific neurons silenced, against random ones."
main = Study("ablation", _DESCRIPTION, _add_arguments, measure).main

if __name__ == "__main__":
    sys.exit(main())
