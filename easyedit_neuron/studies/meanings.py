"""Meanings of neurons: the tokens that their value vectors point at (FiNE, Tables 6 and 8).

Neuron i of layer l says the tokens t with the highest ``(W_u v_i)_t``, where v_i is column i of W_down. As in
the paper (Eq. 3), that is the unembedding alone. ``--final-norm`` applies the final norm's gain (and a
LayerNorm's centring) but not its denominator, which changes no ranking. ``--locate`` takes the neurons that
FiNE locates for facts and random ones of the same layers; ``--record`` and ``--run`` those that changed most.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from torch import Tensor

from ..arch.tokens import target_token_ids
from ..attribution import top_tokens
from ..edits.record import EditRecord
from ..edits.request import prepare
from ..errors import DataError, NeuronEditError
from ..models.fine.locate import locate
from .changed_weights import deltas_of, values_of, weights_of
from .command import StudiedModel, Study, add_model, hparams_of, load, positive
from .output import Result, Table
from .plots import Histogram, Marks
from .silence import counterparts
from .tasks import Fact, facts_by_task

LOCATED = {"locate_on": "ground_truth", "last_layer": 0, "repeated_neurons": "once"}
"""Hyperparameters for FiNE's localisation as in the paper's tables and figures, with no layer frozen."""
MATCHES = {
    "neurons_object": "the object",
    "facts_object": "the object, any of them",
    "neurons_relation_objects": "one of the relation",
    "facts_relation_objects": "one of the relation, any",
}
"""Columns of ``matches``, and their labels in the plot."""


@dataclass(frozen=True)
class Speech:
    """What neurons of a model say: the ``count`` tokens that their value vectors point at."""

    studied: StudiedModel
    count: int
    final_norm: bool

    def tokens(self, layer: int, unit: int, added: Tensor | None = None) -> list[str]:
        """Tokens of a neuron, the best first; ``added`` is added to its value vector."""
        view, tok = self.studied.view, self.studied.tok
        scored = top_tokens(view, tok, layer, unit, self.count, added=added, final_norm=self.final_norm)
        return [token for token, _ in scored]


def words(tokens: list[str]) -> str:
    """Tokens as the paper's tables write them."""
    return ", ".join(map(repr, tokens))


def changed_most(speech: Speech, changes: Mapping[int, Tensor], count: int) -> list[dict[str, Any]]:
    """The ``count`` neurons whose value vectors changed most; ``changes``: layer -> ``[d_model, d_ff]``."""
    lengths = [
        (length, layer, unit)
        for layer, change in changes.items()
        for unit, length in enumerate(change.norm(dim=0).tolist())
        if length
    ]
    lengths.sort(key=lambda entry: (-entry[0], *entry[1:]))
    rows = []
    for length, layer, unit in lengths[:count]:
        row = {"neuron": f"L{layer}.U{unit}", "change": length}
        row["length_before"] = float(speech.studied.view.down_matrix(layer)[:, unit].norm())
        row["says_before"] = words(speech.tokens(layer, unit))
        row["says_after"] = words(speech.tokens(layer, unit, changes[layer][:, unit]))
        rows.append(row)
    return rows


def located(speech: Speech, facts: list[Fact], hparams, count: int) -> list[dict[str, Any]]:
    """What the ``count`` neurons that contribute most to every fact's object, and random ones, say."""
    view, tok = speech.studied.view, speech.studied.tok
    objects = [{"target_new": fact.answer, "ground_truth": fact.answer} for fact in facts]
    prompts = [{"prompt": fact.prompt, "subject": fact.subject} for fact in facts]
    requests = prepare([prompt | answer for prompt, answer in zip(prompts, objects)])
    relation_objects: dict[str, set[str]] = {}
    for fact in facts:
        relation_objects.setdefault(fact.task, set()).update(_object_tokens(tok, fact))
    rows = []
    for number, (fact, neurons) in enumerate(zip(facts, locate(view, tok, requests, hparams))):
        best = neurons.scores.argsort(descending=True, stable=True)[:count]
        layers, units = neurons.layers[best].cpu(), neurons.units[best].cpu()
        by_layer = {layer: units[layers == layer] for layer in layers.unique().tolist()}
        drawn = counterparts(by_layer, view.d_ff, number)
        places = {
            "located": list(zip(layers.tolist(), units.tolist(), neurons.scores[best].tolist())),
            "random": [(layer, unit, None) for layer, units in drawn.items() for unit in units.tolist()],
        }
        objects = _object_tokens(tok, fact)
        for kind, neurons_of_kind in places.items():
            for layer, unit, contribution in neurons_of_kind:
                tokens = speech.tokens(layer, unit)
                stripped = {token.strip() for token in tokens}
                row = {"fact": _text(fact), "relation": fact.task, "kind": kind}
                row |= {"neuron": f"L{layer}.U{unit}", "contribution": contribution, "says": words(tokens)}
                row["object"] = bool(stripped & objects)
                row["relation_objects"] = bool(stripped & relation_objects[fact.task])
                rows.append(row)
    return rows


def matches(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shares of neurons, and of facts with at least one such neuron, that say an object."""
    shares = []
    for kind in ("located", "random"):
        own = [row for row in rows if row["kind"] == kind]
        share: dict[str, Any] = {"neurons": kind}
        for name in ("object", "relation_objects"):
            by_fact: dict[str, list[bool]] = {}
            for row in own:
                by_fact.setdefault(row["fact"], []).append(row[name])
            share[f"neurons_{name}"] = sum(row[name] for row in own) / len(own)
            share[f"facts_{name}"] = sum(map(any, by_fact.values())) / len(by_fact)
        shares.append(share)
    return shares


def shared(facts: list[Fact], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Share of a fact's located neurons that another fact has as well, by what the facts have in common.

    ``rows`` are those of ``located``. A pair of facts is of the first kind that fits: same object, same
    subject, same relation, nothing. A row per kind: the number of pairs, in both directions, and the mean
    ``|A & B| / |A|``.
    """
    neurons: dict[str, set[str]] = {}
    for row in rows:
        if row["kind"] == "located":
            neurons.setdefault(row["fact"], set()).add(row["neuron"])
    kinds = ("same object", "same subject", "same relation", "nothing")
    shares: dict[str, list[float]] = {kind: [] for kind in kinds}
    for fact, other in permutations(facts, 2):
        own, others = neurons[_text(fact)], neurons[_text(other)]
        shares[_in_common(fact, other)].append(len(own & others) / len(own))
    means = {kind: sum(values) / len(values) for kind, values in shares.items() if values}
    return [{"in common": kind, "pairs": len(shares[kind]), "shared": share} for kind, share in means.items()]


def _in_common(fact: Fact, other: Fact) -> str:
    if fact.answer == other.answer:
        return "same object"
    if fact.subject == other.subject:
        return "same subject"
    return "same relation" if fact.task == other.task else "nothing"


def _text(fact: Fact) -> str:
    return f"{fact.prompt} {fact.answer}"


def _object_tokens(tok, fact: Fact) -> set[str]:
    return {tok.decode([token]).strip() for token in target_token_ids(tok, fact.answer)} - {""}


def measure(args: argparse.Namespace) -> Result:
    norm = "with the final norm's gain" if args.final_norm else "without the final norm, as in the paper"
    note = f"The tokens with the highest (W_u v_i) of a neuron's value vector v_i, {norm}."
    if args.locate:
        return _measure_located(args, note)
    places = [_parse_neuron(text) for text in args.neurons or ()]
    studied = load(args)
    speech = Speech(studied, args.tokens, args.final_norm)
    if args.neurons:
        says = [words(speech.tokens(layer, unit)) for layer, unit in places]
        rows = [{"neuron": f"L{layer}.U{unit}", "says": text} for (layer, unit), text in zip(places, says)]
        title = f"What neurons say: {args.model}"
        return Result("meanings", title, note, [], [Table("meanings", "Neurons", rows)])
    if args.record:
        deltas = deltas_of([EditRecord.load(path) for path in args.record])
    else:
        deltas = weights_of(studied, args.run)
    changes = values_of(studied.view, deltas)
    lengths = {f"layer {layer}": change.norm(dim=0) for layer, change in changes.items()}
    lengths = {name: norms[norms > 0].tolist() for name, norms in lengths.items()}
    plot = Histogram("Change of the value vectors that moved", lengths, "L2 norm of the change", "neurons")
    source = " ".join(map(str, args.record or [args.run]))
    title = f"What the most changed neurons say: {args.model}, {source}"
    tables = [Table("meanings", "Neurons", changed_most(speech, changes, args.count or 20))]
    # The report of a run looks for meanings.csv beside the run's other files.
    return Result("meanings", title, note, [plot], tables, folder=args.run)


def _measure_located(args: argparse.Namespace, note: str) -> Result:
    by_relation = zip(*facts_by_task(args.data).values())
    facts = [fact for facts in by_relation for fact in facts][: args.locate]
    if len(facts) < args.locate:
        problem = f"{args.data} has {len(facts)} facts spread evenly over relations"
        raise DataError(f"--locate {args.locate}: {problem}")
    hparams = hparams_of("FiNE", args.model, args.fine, **LOCATED)
    speech = Speech(load(args), args.tokens, args.final_norm)
    rows = located(speech, facts, hparams, args.count or 3)
    shares = matches(rows)
    series = {row["neurons"]: [row[name] for name in MATCHES] for row in shares}
    title = "Share of neurons (any: of facts) that say ..."
    look = {"limits": (-0.03, 1.03), "size": (5.2, 3.4)}
    plot = Marks(title, list(MATCHES.values()), series, "", "share", **look)
    own = [row for row in rows if row["kind"] == "located"]
    own = [{name: value for name, value in row.items() if name != "kind"} for row in own]
    shared_title = "Share of a fact's located neurons that another fact has, too"
    tables = [
        Table("matches", "How often that is the object", shares),
        Table("shared", shared_title, shared(facts, rows)),
        Table("meanings", "Located neurons", own),
        Table("located", "Located and random neurons", rows, folded=True),
    ]
    title = f"What located neurons say: {args.model}, {len(facts)} facts of {args.data}"
    return Result("meanings", title, note, [plot], tables)


def _parse_neuron(text: str) -> tuple[int, int]:
    layer, colon, unit = text.partition(":")
    if not (colon and layer.isdecimal() and unit.isdecimal()):
        raise NeuronEditError(f"--neurons: {text!r} must read LAYER:NUMBER")
    return int(layer), int(unit)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    locate_help = "neurons that FiNE locates for N facts of --data"
    source.add_argument("--locate", type=positive, metavar="N", help=locate_help)
    record_help = "neurons that saved edit records changed most"
    source.add_argument("--record", type=Path, nargs="+", metavar="FILE", help=record_help)
    source.add_argument("--run", type=Path, metavar="FOLDER", help="neurons that a finished run changed most")
    source.add_argument("--neurons", nargs="+", metavar="LAYER:NUMBER", help="these neurons")
    add = parser.add_argument
    add("--data", default="tiny-world", help="facts: a JSON list of records, or tiny-world")
    fine_help = "hyperparameters of FiNE (default: the model's, or the released ones)"
    add("--fine", metavar="FILE", help=fine_help)
    add("--count", type=positive, help="neurons in all (20), with --locate per fact (3)")
    add("--tokens", type=positive, default=5, help="tokens of each (5)")
    add("--final-norm", action="store_true", help="apply the final norm's gain")


_DESCRIPTION = "What neurons say: top tokens of their value vectors through the unembedding."
main = Study("meanings", _DESCRIPTION, _add_arguments, measure).main

if __name__ == "__main__":
    sys.exit(main())
