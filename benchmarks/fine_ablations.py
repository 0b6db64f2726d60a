"""FiNE's ablations on the shipped model: sequential edits of tiny-world, measured on the final model, a row
each.

    python -m benchmarks.fine_ablations --edits 50

Rel and Gen are token accuracies of prompts and rephrasings. Same subject and neighbours are the shares of
predicted tokens that are the untouched model's (relation specificity and neighbourhood). Retained is the
share of never edited facts (200) that are still right; bits is the n-gram entropy of sampled continuations of
10 prompts. Seconds are those of the one CPU thread. An edit that fails (``EditError``) is left out and
counted.
"""

import copy
import sys
import time
from statistics import mean

from benchmarks import timing
from easyedit_neuron import data
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.errors import EditError
from easyedit_neuron.evaluation import (
    evaluate_all,
    fluency,
    locality_reference,
    predict_targets,
    summarize,
    token_accuracy,
)
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
QUALITY = {"Rel": 3, "Gen": 3, "same subject": 3, "neighbours": 3, "retained": 3, "bits": 2}
COST = {"steps": 1, "parameters": 0, "CPU s per edit": 2, "left out": 0}
COLUMNS = QUALITY | COST
"""Name and digits."""


class Probes:
    """The untouched model's answers, and how a model compares with them."""

    def __init__(self, model, tok, hparams, args):
        self.tok, self.hparams, self.continued = tok, hparams, args.continued
        self.requests = data.load("tiny-world", "knowedit", args.edits)
        self.facts = evenly(data.retained("tiny-world"), args.facts)
        self.right_before = self._right(model)
        self.outputs = locality_reference(model, tok, self.requests)

    def _right(self, model) -> list[bool]:
        prompts = [fact["prompt"] for fact in self.facts]
        answers = [fact["ground_truth"] for fact in self.facts]
        accuracies = token_accuracy(predict_targets(model, self.tok, prompts, answers, 64))
        return [accuracy == 1.0 for accuracy in accuracies]

    def measure(self, model) -> dict[str, float]:
        """The columns of ``QUALITY``."""
        rows = evaluate_all(
            model, self.tok, self.requests, reference=self.outputs, batch_size=64, hparams=self.hparams
        )
        summary = summarize(rows)
        prompts = [request["prompt"] for request in self.requests[: self.continued]]
        right = zip(self.right_before, self._right(model))
        return {
            "Rel": summary["rewrite_acc"],
            "Gen": summary["rephrase_acc"],
            "same subject": summary["locality"]["Relation_Specificity_acc"],
            "neighbours": summary["locality"]["Neighborhood_acc"],
            "retained": mean(after for before, after in right if before),
            "bits": mean(fluency(model, self.tok, prompts, 30, seed=0)),
        }


def ablation_row(model, tok, probes: Probes, hparams) -> dict[str, float]:
    """One row; ``model`` is edited."""
    records, left_out = [], 0
    start = time.process_time()
    for request in probes.requests:
        try:
            apply_fine_to_model(model, tok, [request], hparams, records=records)
        except EditError:
            left_out += 1
    spent = (time.process_time() - start) / len(probes.requests)
    return {
        **probes.measure(model),
        "steps": mean(record.info["requests"][0]["steps"] for record in records),
        "parameters": mean(record.info["modified_parameters"] for record in records),
        "CPU s per edit": spent,
        "left out": left_out,
    }


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = timing.parser(__doc__, edits=50, facts=200, continued=10, threads=1)
    only_help = "rows by name (default: all)"
    parser.add_argument("--only", nargs="*", metavar="ROW", help=only_help, choices=list(ABLATIONS))
    args = timing.parse(parser, argv)
    hparams = FiNEHyperParams.from_hparams("FiNE/tiny-llama").override({"device": args.device})
    model, tok, _ = load_model(hparams)
    probes, results = Probes(model, tok, hparams, args), {}
    print(timing.markdown_row([f"{args.edits} edits", *COLUMNS]) + "\n" + "|---" * (len(COLUMNS) + 1) + "|")
    untouched = [f"{value:.3f}" for value in probes.measure(model).values()]
    print(timing.markdown_row(["untouched", *untouched, *("" for _ in COST)]), flush=True)
    for name in args.only or ABLATIONS:
        row = ablation_row(copy.deepcopy(model), tok, probes, hparams.override(ABLATIONS[name]))
        results[name] = row
        cells = [f"{row[column]:.{digits}f}" for column, digits in COLUMNS.items()]
        print(timing.markdown_row([name, *cells]), flush=True)
    timing.save(args, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
