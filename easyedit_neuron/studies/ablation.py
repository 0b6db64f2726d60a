"""Role ablation (NMKE, Fig. 2 and Table 5): what is lost when general, domain-specific or task-specific
neurons are silent.

    python -m easyedit_neuron.studies.ablation --model tiny-llama --data tiny-world --out ablation

The paper names the kinds and no formula; here they are, over all neurons i of the layers looked at:

- ``A_ti`` = mean over prompts of task t of the attribution (log-probability shift, Eq. 3, of the token that
  the model itself says);
- i is *active* in t when ``A_ti`` is among the highest ``--active`` (10%) of all neurons' and positive;
- *general*: active in every task; *domain-specific* for D: active in two or more tasks of D and in none
  outside; *task-specific* for t: active in t alone. (Whatever is active across domains but not everywhere is
  of no kind.)

Of every kind the ``k`` neurons with the highest mean ``A`` over its tasks (all; those of D; t) are silenced
(q_i = 0 at every token); token accuracy and negative log-likelihood of the answer (nats per token), both
teacher-forced, are measured on other facts than those that located them: on the kind's own tasks, on the
other tasks of the domain, and elsewhere. Beside it as many random neurons of the same layers, ``--seeds``
times; and every layer's neurons all together. ``--samples`` does all of that again with other facts to locate
and to measure.

Means are over domains or tasks of a kind, then over samples. ``<column>_std`` says how far samples lie apart,
``random_<column>_std`` how far draws of random neurons do (those of all samples): what a difference has to
exceed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arch import Capture, take
from ..arch.tokens import encode
from ..attribution import neuron_scores, target_tokens
from ..errors import DataError
from .command import Subject, layers_of, load, parser, positive, run
from .kinds import Kind, kinds_of
from .output import Plot, Result, Table
from .plots import marks
from .silence import counterparts, silenced
from .spread import deviation, mean, over
from .tasks import Fact, domains_of, facts_by_task, sampled

WHERE = ("own", "near", "far")
LOST = tuple(f"{name}_{where}" for where in WHERE for name in ("drop", "rise"))
BATCH = 128
"""Facts per forward pass."""


@dataclass(frozen=True)
class Measured:
    """Token accuracy (0 to 1) and negative log-likelihood of the answers (nats per token), means by task."""

    accuracy: dict[str, float]
    nll: dict[str, float]

    def lost(self, base: Measured, tasks: Sequence[str]) -> dict[str, float | None]:
        """``drop`` of the accuracy and ``rise`` of the likelihood's negative logarithm, means over some
        tasks."""
        return {
            "drop": mean(base.accuracy[task] - self.accuracy[task] for task in tasks),
            "rise": mean(self.nll[task] - base.nll[task] for task in tasks),
        }


def study(arguments: argparse.Namespace) -> Result:
    """Locates on some facts of every task, silences, measures on others."""
    facts = facts_by_task(arguments.data, arguments.field)
    domains = domains_of(list(facts), arguments.domain)
    short = next((task for task, some in facts.items() if len(some) < arguments.locate + 1), None)
    if short is not None:
        raise DataError(
            f"task {short!r} has {len(facts[short])} facts; --locate {arguments.locate} leaves none to measure"
        )
    subject = load(arguments)
    layers = layers_of(subject.view, arguments.layers)
    trials, counts, whole, accuracy = [], [], [], []
    for sample in range(arguments.samples):
        some = sampled(facts, sample)
        scores = {
            task: mean_scores(subject, one[: arguments.locate], layers, arguments.attribution)
            for task, one in some.items()
        }
        kinds = kinds_of(scores, layers, domains, arguments.active)
        asked = {
            task: one[arguments.locate : arguments.locate + arguments.measure] for task, one in some.items()
        }
        base = measure(subject, asked)
        accuracy.append(mean(base.accuracy.values()))
        trials += [
            {"sample": sample, **trial}
            for kind in kinds
            for top in arguments.top
            if len(kind.neurons)
            for trial in trials_of(subject, kind, top, asked, base, arguments.seeds)
        ]
        counts += [
            {
                "kind": kind.kind,
                "name": kind.name,
                "neurons": len(kind.neurons),
                "share": len(kind.neurons) / (len(layers) * subject.view.d_ff),
                **{f"layer_{layer}": int((kind.neurons[:, 0] == layer).sum()) for layer in layers},
            }
            for kind in kinds
        ]
        whole += [
            {
                "layer": layer,
                **_silent(subject, {layer: torch.arange(subject.view.d_ff)}, asked).lost(base, list(facts)),
            }
            for layer in layers
        ]
    means = compared(trials, ("kind", "top"))
    return Result(
        "ablation",
        f"Role ablation: {arguments.model}, {len(facts)} tasks of {arguments.data}",
        f"Drop of the token accuracy (untouched: {mean(accuracy):.3f}, mean over tasks) and rise of the "
        "answer's negative log-likelihood (nats) when the best neurons of a kind are silent; located on "
        f"{arguments.locate} facts per task, measured on others; {arguments.samples} sample(s) of facts, with their "
        f"standard deviation. Random: as many neurons of the same layers, {arguments.seeds} draws per sample, mean and "
        "standard deviation over draws.",
        _pictures(means, arguments.top),
        [
            Table("ablation_means", "Means over domains and tasks", means),
            Table("ablation", "Every kind", compared(trials, ("kind", "name", "top")), folded=True),
            Table(
                "ablation_neurons",
                "Neurons of each kind",
                over(counts, ("kind", "name"), ("neurons",)),
                folded=True,
            ),
            Table(
                "ablation_layers",
                "A layer's neurons all silenced",
                over(whole, ("layer",), ("drop", "rise")),
                folded=True,
            ),
            Table("ablation_trials", "Every trial", trials, raw=True),
        ],
    )


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
        some = flat[start : start + BATCH]
        targets = target_tokens(
            subject.tok,
            [fact.prompt for fact in some],
            [fact.answer for fact in some],
            subject.view.input_device,
        )
        with Capture(subject.view, [], "final_hidden", "final") as seen:
            subject.model(**targets.batch.inputs, use_cache=False)
        logits = subject.view.logits(take(seen.final_hidden, targets.owner, targets.position))
        owner, ids = targets.owner.to(logits.device), targets.token_ids.to(logits.device)
        count = owner.bincount()
        for kept, values in (
            (right, logits.argmax(-1) == ids),
            (nll, -logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]),
        ):
            kept += (
                values.new_zeros(len(some), dtype=torch.float64).index_add(0, owner, values.double()) / count
            ).tolist()
    return Measured(
        *(
            {task: sum(next(values) for _ in some) / len(some) for task, some in facts.items()}
            for values in (iter(right), iter(nll))
        )
    )


def trials_of(subject: Subject, kind: Kind, top: int, asked, base: Measured, draws: int) -> Iterator[dict]:
    """What silence costs: first that of the kind's ``top`` best neurons (``draw`` is None), then of as many
    random ones."""
    best = kind.best(top)
    told = {
        "kind": kind.kind,
        "name": kind.name,
        "top": top,
        "silenced": sum(map(len, best.values())),
        "accuracy_before": mean(base.accuracy[task] for task in kind.own),
    }
    for draw in (None, *range(draws)):
        silent = _silent(
            subject, best if draw is None else counterparts(best, subject.view.d_ff, draw), asked
        )
        lost = {
            where: silent.lost(base, tasks) for where, tasks in zip(WHERE, (kind.own, kind.near, kind.far))
        }
        yield {
            **told,
            "draw": draw,
            **{f"{name}_{where}": lost[where][name] for where in WHERE for name in ("drop", "rise")},
        }


def _silent(subject: Subject, neurons: Mapping[int, Tensor], asked) -> Measured:
    with silenced(subject.view, neurons):
        return measure(subject, asked)


def compared(trials: Sequence[dict], by: Sequence[str]) -> list[dict]:
    """A kind's best neurons against random ones, for all trials that agree in the columns ``by``.

    Of every sample the mean over the names; of these the mean and the deviation over samples. Of every sample
    and draw of random neurons the mean over the names; of these the mean and the deviation over draws.
    ``of``: how many names there are.
    """
    made = []
    for key in dict.fromkeys(tuple(trial[name] for name in by) for trial in trials):
        some = [trial for trial in trials if tuple(trial[name] for name in by) == key]
        row = {
            **dict(zip(by, key)),
            "of": len({trial["name"] for trial in some}),
            **{name: mean(trial[name] for trial in some) for name in ("silenced", "accuracy_before")},
        }
        means = over(
            [{name: trial[name] for name in ("sample", "draw", *LOST)} for trial in some],
            ("sample", "draw"),
            (),
        )
        for name in LOST:
            for prefix, random in (("", False), ("random_", True)):
                values = [one[name] for one in means if (one["draw"] is not None) == random]
                row[f"{prefix}{name}"], row[f"{prefix}{name}_std"] = mean(values), deviation(values)
        made.append(row)
    return made


def _pictures(means: Sequence[dict], tops: Sequence[int]) -> list[Plot]:
    plots = []
    for name, label in (("drop", "drop of accuracy"), ("rise", "rise of the NLL, nats")):
        series = {
            "own tasks": f"{name}_own",
            "same domain": f"{name}_near",
            "elsewhere": f"{name}_far",
            "random, own tasks": f"random_{name}_own",
        }
        for top in tops:
            some = [row for row in means if row["top"] == top]
            values = {label: [row[column] for row in some] for label, column in series.items()}
            errors = {label: [row[f"{column}_std"] for row in some] for label, column in series.items()}
            plots.append(
                Plot(
                    f"The best {top} silenced",
                    marks([row["kind"] for row in some], values, "", label, errors=errors),
                )
            )
    return plots


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    made = parser(
        "ablation", "General, domain-specific and task-specific neurons silenced, against random ones."
    )
    made.add_argument(
        "--data", default="tiny-world", help="facts with tasks: a JSON list of records, or tiny-world"
    )
    made.add_argument("--field", default="relation", help="field of a record that names its task")
    made.add_argument(
        "--domain", action="append", default=[], metavar="NAME=TASK,TASK", help="tasks that belong together"
    )
    made.add_argument("--layers", type=int, nargs="+", help="default: all")
    made.add_argument("--attribution", choices=("lps", "psa", "mpc", "activation"), default="lps")
    made.add_argument(
        "--active", type=float, default=0.1, help="share of the neurons that count as active in a task (0.1)"
    )
    made.add_argument(
        "--top",
        type=positive,
        nargs="+",
        default=[10, 50],
        help="how many neurons of a kind are silenced (10 50)",
    )
    made.add_argument(
        "--locate", type=positive, default=12, help="facts per task that neurons are located on (12)"
    )
    made.add_argument(
        "--measure", type=positive, default=24, help="other facts per task that are measured, at most (24)"
    )
    made.add_argument("--seeds", type=positive, default=3, help="draws of random neurons (3)")
    made.add_argument(
        "--samples", type=positive, default=1, help="of facts to locate and to measure (1, the first ones)"
    )
    return run(made.parse_args(argv), "ablation", study)


if __name__ == "__main__":
    sys.exit(main())
