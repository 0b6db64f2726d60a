"""FiNE's ablations on the shipped model: one row an option, sequential edits of tiny-world, measured on the
final model.

    python -m benchmarks.fine_ablations --edits 50

Rel and Gen are token accuracies of prompts and rephrasings; same subject and neighbours the shares of
predicted tokens that are the untouched model's (relation specificity and neighbourhood); retained the share
of never edited facts (200) that are still right; bits the n-gram entropy of sampled continuations of 10
prompts. Seconds are those of the one CPU thread. An edit that comes to nothing (``EditError``) is left out
and counted.
"""

import copy
import statistics
import sys
import time

import torch

from benchmarks import timing
from easyedit_neuron import data
from easyedit_neuron.errors import EditError
from easyedit_neuron.evaluation import (
    evaluate_all,
    fluency,
    locality_reference,
    predict_targets,
    summarize,
    token_accuracy,
)
from easyedit_neuron.host.load_model import load_model
from easyedit_neuron.lifelong.measurer import evenly
from easyedit_neuron.models.fine.fine_hparams import FiNEHyperParams
from easyedit_neuron.models.fine.fine_main import apply_fine_to_model

ABLATIONS = {
    "as shipped (k 5, no layer frozen)": {},
    "random neurons": {"random": True},
    "last layer frozen": {"last_layer": 1},
    "last 3 of 5 layers frozen": {"last_layer": 3},
    **{f"layer {layer} alone": {"layer": layer} for layer in range(5)},
    **{f"k {k}": {"neuron_num": k} for k in (1, 10, 20)},
    "no KL": {"alpha": 0.0},
    "no penalty": {"beta": 0.0},
    "no norm (paper)": {"gamma": 0.0},
    "neurons of the old object (paper)": {"locate_on": "ground_truth"},
    "NLL of the whole object (paper)": {"edit_loss": "sum"},
    "every form of the paper": {
        "gamma": 0.0,
        "locate_on": "ground_truth",
        "edit_loss": "sum",
        "kl_direction": "after_before",
        "penalty_on": "first",
        "repeated_neurons": "once",
    },
    "bfloat16 vectors (released)": {"vector_dtype": "bfloat16"},
}
COLUMNS = {
    "Rel": 3,
    "Gen": 3,
    "same subject": 3,
    "neighbours": 3,
    "retained": 3,
    "bits": 2,
    "steps": 1,
    "parameters": 0,
    "CPU s per edit": 2,
    "left out": 0,
}
"""Name and digits."""


class Probes:
    """The untouched model's answers, and how a model compares with them."""

    def __init__(self, model, tok, hparams, edits: int, facts: int, continued: int):
        self.tok, self.hparams, self.continued = tok, hparams, continued
        self.requests, self.facts = (
            data.load("tiny-world", "knowedit", edits),
            evenly(data.retained("tiny-world"), facts),
        )
        self.known = self._known(model)
        self.outputs = locality_reference(model, tok, self.requests)

    def _known(self, model) -> list[bool]:
        prompts, answers = (
            [fact["prompt"] for fact in self.facts],
            [fact["ground_truth"] for fact in self.facts],
        )
        return [
            accuracy == 1.0
            for accuracy in token_accuracy(predict_targets(model, self.tok, prompts, answers, 64))
        ]

    def measure(self, model) -> dict[str, float]:
        """The quality columns."""
        found = summarize(
            evaluate_all(
                model, self.tok, self.requests, reference=self.outputs, batch_size=64, hparams=self.hparams
            )
        )
        kept = [now for before, now in zip(self.known, self._known(model)) if before]
        bits = fluency(
            model, self.tok, [request["prompt"] for request in self.requests[: self.continued]], 30, seed=0
        )
        kinds = found["locality"]
        return {
            "Rel": found["rewrite_acc"],
            "Gen": found["rephrase_acc"],
            "same subject": kinds["Relation_Specificity_acc"],
            "neighbours": kinds["Neighborhood_acc"],
            "retained": statistics.mean(kept),
            "bits": statistics.mean(bits),
        }


def row(model, tok, probes: Probes, hparams) -> dict[str, float]:
    """One row; ``model`` is edited."""
    records, left_out = [], 0
    start = time.process_time()
    for request in probes.requests:
        try:
            apply_fine_to_model(model, tok, [request], hparams, records=records)
        except EditError:
            left_out += 1
    spent = (time.process_time() - start) / len(probes.requests)
    info = [record.info for record in records]
    return {
        **probes.measure(model),
        "steps": statistics.mean(about["requests"][0]["steps"] for about in info),
        "parameters": statistics.mean(about["modified_parameters"] for about in info),
        "CPU s per edit": spent,
        "left out": left_out,
    }


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    parser = timing.parser(__doc__.splitlines()[0])
    for name, default in {"edits": 50, "facts": 200, "continued": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--only", nargs="*", metavar="ROW", help="rows by name (default: all)", choices=list(ABLATIONS)
    )
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    hparams = FiNEHyperParams.from_hparams("FiNE/tiny-llama").override({"device": args.device})
    model, tok, _ = load_model(hparams)
    probes, results = Probes(model, tok, hparams, args.edits, args.facts, args.continued), {}
    print(
        "| " + " | ".join((f"{args.edits} edits", *COLUMNS)) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|",
        flush=True,
    )
    print(
        "| untouched | "
        + " | ".join(f"{value:.3f}" for value in probes.measure(model).values())
        + " | | | | |",
        flush=True,
    )
    for name in args.only or ABLATIONS:
        found = results[name] = row(copy.deepcopy(model), tok, probes, hparams.override(ABLATIONS[name]))
        cells = [f"{found[column]:.{digits}f}" for column, digits in COLUMNS.items()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    timing.write_json(args.json, results, edits=args.edits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
