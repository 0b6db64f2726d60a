"""Meanings of neurons: the tokens that their value vectors point at (FiNE, Tables 6 and 8).

    python -m easyedit_neuron.studies.meanings --locate 40 --out meanings           # neurons that FiNE finds
    for facts python -m easyedit_neuron.studies.meanings --record edit.safetensors            # those that an
    edit moved most python -m easyedit_neuron.studies.meanings --run results/long                   # those
    that a run moved most, for its report python -m easyedit_neuron.studies.meanings --neurons 3:17 4:200

Neuron i of layer l says the tokens t with the highest ``(W_u v_i)_t``, v_i being column i of W_down. As in
the paper (Eq. 3), that is the unembedding alone: the model itself puts its final norm in between, whose gain
weighs the dimensions. ``--final-norm`` takes the gain in (and a LayerNorm's centring); only the norm's
denominator is left out, which changes no ranking.

``--locate``: of every fact the 3 neurons that contribute most to the tokens of its object (``locate_on:
    ground_truth``, no
layer frozen), with their contribution; how often a neuron's 5 tokens have a token of that object, or of any
object of the same relation, against random neurons of the same layers; and which share of them is located for
another fact, too: of the same object, subject or relation, or with nothing in common (a neuron of the
    object's, or of the fact's?). ``--record``, ``--run``:
neurons by ``||dv_i||``, what they say in the untouched model and with the change.
"""

from __future__ import annotations

import argparse
import sys
from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor

from ..arch.tokens import target_token_ids
from ..attribution import top_tokens
from ..edits.record import EditRecord
from ..edits.request import prepare
from ..errors import DataError, NeuronEditError
from ..lifelong.run_folder import RunFolder
from ..models.fine.locate import locate
from .changed import deltas_of, values_of, weights_of
from .command import Subject, hparams_of, load, parser, positive, run
from .output import Plot, Result, Table
from .plots import histogram, marks
from .silence import counterparts
from .tasks import Fact, facts_by_task

LOCATED = {"locate_on": "ground_truth", "last_layer": 0, "repeated_neurons": "once"}
"""FiNE's localisation as the paper's tables and figures have it, and no layer frozen."""


def words(tokens: list[tuple[str, float]]) -> str:
    """Tokens as the paper's tables write them."""
    return ", ".join(repr(token) for token, _ in tokens)


def moved(subject: Subject, changes: dict[int, Tensor], count: int, k: int, final_norm: bool) -> list[dict]:
    """The ``count`` neurons whose value vectors changed most, before and after.

    Args:
        subject: the untouched model.
        changes: layer -> ``[d_model, d_ff]``, what was added to its W_down.
        count, k: neurons, tokens of each.
        final_norm: see ``attribution.top_tokens``.
    """
    lengths = {layer: change.norm(dim=0) for layer, change in changes.items()}
    order = sorted(
        (
            (float(length), layer, unit)
            for layer, norms in lengths.items()
            for unit, length in enumerate(norms.tolist())
            if length
        ),
        key=lambda one: (-one[0], *one[1:]),
    )
    rows = []
    for length, layer, unit in order[:count]:
        own = float(subject.view.down_matrix(layer)[:, unit].norm())
        before = top_tokens(subject.view, subject.tok, layer, unit, k, final_norm=final_norm)
        after = top_tokens(
            subject.view, subject.tok, layer, unit, k, added=changes[layer][:, unit], final_norm=final_norm
        )
        rows.append(
            {
                "neuron": f"L{layer}.U{unit}",
                "change": length,
                "length_before": own,
                "says_before": words(before),
                "says_after": words(after),
            }
        )
    return rows


def located(subject: Subject, facts: list[Fact], hparams, count: int, k: int, final_norm: bool) -> list[dict]:
    """Of every fact the ``count`` neurons that contribute most to its object, what they say, and whether that
    is the object."""
    requests = prepare(
        [
            {
                "prompt": fact.prompt,
                "subject": fact.subject,
                "target_new": fact.answer,
                "ground_truth": fact.answer,
            }
            for fact in facts
        ]
    )
    objects = {}
    for fact in facts:
        objects.setdefault(fact.task, set()).update(target_token_ids(subject.tok, fact.answer))
    rows = []
    for number, (fact, neurons) in enumerate(
        zip(facts, locate(subject.view, subject.tok, requests, hparams))
    ):
        best = neurons.scores.argsort(descending=True, stable=True)[:count].tolist()
        places = [(int(neurons.layers[at]), int(neurons.units[at]), float(neurons.scores[at])) for at in best]
        drawn = counterparts(
            {
                layer: torch.tensor([unit for other, unit, _ in places if other == layer])
                for layer in {layer for layer, _, _ in places}
            },
            subject.view.d_ff,
            number,
        )
        random = [(layer, int(unit), None) for layer, units in drawn.items() for unit in units]
        own = set(target_token_ids(subject.tok, fact.answer))
        for kind, some in (("located", places), ("random", random)):
            for layer, unit, score in some:
                said = top_tokens(subject.view, subject.tok, layer, unit, k, final_norm=final_norm)
                text = {token.strip() for token, _ in said}
                rows.append(
                    {
                        "fact": _text(fact),
                        "relation": fact.task,
                        "kind": kind,
                        "neuron": f"L{layer}.U{unit}",
                        "contribution": score,
                        "says": words(said),
                        "object": bool(text & _spelled(subject.tok, own)),
                        "relation_objects": bool(text & _spelled(subject.tok, objects[fact.task])),
                    }
                )
    return rows


def matches(rows: list[dict]) -> list[dict]:
    """Shares of neurons, and of facts with at least one such neuron, that say the object or an object of its
    relation."""
    made = []
    for kind in ("located", "random"):
        some = [row for row in rows if row["kind"] == kind]
        facts = list(dict.fromkeys(row["fact"] for row in some))
        made.append(
            {
                "neurons": kind,
                **{
                    f"{what}_{name}": sum(row[name] for row in some) / len(some)
                    if what == "neurons"
                    else sum(any(row[name] for row in some if row["fact"] == fact) for fact in facts)
                    / len(facts)
                    for name in ("object", "relation_objects")
                    for what in ("neurons", "facts")
                },
            }
        )
    return made


def shared(facts: list[Fact], rows: list[dict]) -> list[dict]:
    """Which share of a fact's located neurons is located for another fact as well, by what the two have in
    common.

    Args:
        facts: those that ``rows`` are of.
        rows: of :func:`located`.

    Returns:
        A row per kind of pair that there is, each pair in both directions: its number of pairs, and the mean
            of
        ``|A & B| / |A|``. A pair is of the first kind that fits: same object, same subject, same relation,
        nothing.
    """
    neurons: dict[str, set[str]] = {}
    for row in rows:
        if row["kind"] == "located":
            neurons.setdefault(row["fact"], set()).add(row["neuron"])
    shares: dict[str, list[float]] = {
        kind: [] for kind in ("same object", "same subject", "same relation", "nothing")
    }
    for (one, here), (other, there) in permutations([(fact, neurons[_text(fact)]) for fact in facts], 2):
        kind = (
            "same object"
            if one.answer == other.answer
            else "same subject"
            if one.subject == other.subject
            else "same relation"
            if one.task == other.task
            else "nothing"
        )
        shares[kind].append(len(here & there) / len(here))
    return [
        {"in common": kind, "pairs": len(some), "shared": sum(some) / len(some)}
        for kind, some in shares.items()
        if some
    ]


def _text(fact: Fact) -> str:
    return f"{fact.prompt} {fact.answer}"


def _spelled(tok, ids: set[int]) -> set[str]:
    return {text for text in (tok.decode([token]).strip() for token in ids) if text}


def study(arguments: argparse.Namespace) -> Result:
    """One of the four sources."""
    options = (arguments.count, arguments.tokens, arguments.final_norm)
    norm = "with the final norm's gain" if arguments.final_norm else "without the final norm, as in the paper"
    note = f"The tokens with the highest (W_u v_i) of a neuron's value vector v_i, {norm}."
    if arguments.locate:
        facts = [fact for some in zip(*facts_by_task(arguments.data).values()) for fact in some][
            : arguments.locate
        ]
        if len(facts) < arguments.locate:
            raise DataError(
                f"--locate {arguments.locate}: {arguments.data} has {len(facts)} facts spread evenly over relations"
            )
        hparams = hparams_of("FiNE", arguments.model, arguments.fine, **LOCATED)
        rows = located(load(arguments), facts, hparams, *options)
        shares = matches(rows)
        labels = {
            "neurons_object": "the object",
            "facts_object": "the object, any of them",
            "neurons_relation_objects": "one of the relation",
            "facts_relation_objects": "one of the relation, any",
        }
        picture = Plot(
            "Share of neurons (any: of facts) that say ...",
            marks(
                list(labels.values()),
                {row["neurons"]: [row[name] for name in labels] for row in shares},
                "",
                "share",
                limits=(-0.03, 1.03),
            ),
            (5.2, 3.4),
        )
        shown = [
            {name: value for name, value in row.items() if name != "kind"}
            for row in rows
            if row["kind"] == "located"
        ]
        title = f"What located neurons say: {arguments.model}, {len(facts)} facts of {arguments.data}"
        tables = [
            Table("matches", "How often that is the object", shares),
            Table(
                "shared", "Share of a fact's located neurons that another fact has, too", shared(facts, rows)
            ),
            Table("meanings", "Located neurons", shown),
            Table("located", "Located and random neurons", rows, folded=True),
        ]
        return Result("meanings", title, note, [picture], tables)
    subject = load(arguments)
    if arguments.neurons:
        rows = [
            {
                "neuron": f"L{layer}.U{unit}",
                "says": words(
                    top_tokens(
                        subject.view,
                        subject.tok,
                        layer,
                        unit,
                        arguments.tokens,
                        final_norm=arguments.final_norm,
                    )
                ),
            }
            for layer, unit in map(_place, arguments.neurons)
        ]
        return Result(
            "meanings", f"What neurons say: {arguments.model}", note, [], [Table("meanings", "Neurons", rows)]
        )
    if arguments.record:
        changes = values_of(subject.view, deltas_of([EditRecord.load(path) for path in arguments.record]))
    else:
        changes = values_of(subject.view, weights_of(subject, arguments.run))
    lengths = {f"layer {layer}": change.norm(dim=0) for layer, change in changes.items()}
    lengths = {name: norms[norms > 0].tolist() for name, norms in lengths.items()}
    source = " ".join(map(str, arguments.record or [arguments.run]))
    return Result(
        "meanings",
        f"What the most changed neurons say: {arguments.model}, {source}",
        note,
        [
            Plot(
                "Change of the value vectors that moved",
                histogram(lengths, "L2 norm of the change", "neurons"),
            )
        ],
        [Table("meanings", "Neurons", moved(subject, changes, *options))],
    )


def _place(text: str) -> tuple[int, int]:
    layer, colon, unit = text.partition(":")
    if not (colon and layer.isdigit() and unit.isdigit()):
        raise NeuronEditError(f"--neurons: {text!r} must read LAYER:NUMBER")
    return int(layer), int(unit)


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    made = parser("meanings", "What neurons say: top tokens of their value vectors through the unembedding.")
    source = made.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--locate", type=positive, metavar="N", help="those that FiNE locates for N facts of --data"
    )
    source.add_argument(
        "--record", type=Path, nargs="+", metavar="FILE", help="those that saved edit records moved most"
    )
    source.add_argument("--run", type=Path, metavar="FOLDER", help="those that a finished run moved most")
    source.add_argument("--neurons", nargs="+", metavar="LAYER:NUMBER")
    made.add_argument("--data", default="tiny-world", help="facts: a JSON list of records, or tiny-world")
    made.add_argument(
        "--fine", metavar="FILE", help="hyperparameters of FiNE (default: the model's, or the released ones)"
    )
    made.add_argument("--count", type=positive, help="neurons in all (20), with --locate per fact (3)")
    made.add_argument("--tokens", type=positive, default=5, help="tokens of each (5)")
    made.add_argument("--final-norm", action="store_true", help="with the final norm's gain")
    made.set_defaults(out=None)
    arguments = made.parse_args(argv)
    arguments.count = arguments.count or (3 if arguments.locate else 20)
    if arguments.out is None:  # beside the run's other files, where its report looks for meanings.csv
        arguments.out = RunFolder(arguments.run).folder if arguments.run else Path("meanings")
    return run(arguments, "meanings", study)


if __name__ == "__main__":
    sys.exit(main())
