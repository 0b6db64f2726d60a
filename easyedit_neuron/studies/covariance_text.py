"""How much text the covariance needs, and whether the model's own will do.

``python -m easyedit_neuron.studies.covariance_text --model smollm2-135m-instruct --text wikitext.txt``

The same edits are solved with covariances of the text that the model writes itself, and of a file, at
several numbers of texts. Target values are searched for once, on the untouched model, so that the rows differ
by the covariance alone. A batch of edits is solved on top of the earlier ones, and everything is measured
after the last.
"""

import argparse
from pathlib import Path
from typing import Any

from .. import data
from ..evaluation import perplexity
from ..locate_then_edit.shared_targets import shared_targets
from .command import Study, add_data, add_model, hparams_of, load, positive
from .edit_bench import EditBenchmark
from .output import Result, Table
from .plots import Lines
from .untouched import Untouched

BATCH = 10


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, 100)
    parser.add_argument("--skip", type=int, default=0, help="records left out at the beginning of the data")
    parser.add_argument("--hparams", help="hyperparameters of MEMIT; default: those shipped for the model")
    parser.add_argument("--text", metavar="FILE", help="a text file to compare with, a passage a line")
    parser.add_argument("--heldout", default="real-world", metavar="FILE", help="text for perplexity")
    numbers = {"type": positive, "nargs": "+"}
    help_text = "numbers of texts, of about 100 tokens each"
    parser.add_argument("--texts", **numbers, default=[20, 80, 250, 1000], help=help_text)
    help_text = "also --text with each text cut at so many tokens, as EasyEdit does at the context length"
    parser.add_argument("--cut", **numbers, default=[], metavar="TOKENS", help=help_text)


def measure(args: argparse.Namespace) -> Result:
    studied = load(args)
    fields = {"accumulate_keys": True, "mom2_dataset": "self", "batch_size": BATCH}
    hparams = hparams_of("MEMIT", args.model, args.hparams, **fields)
    hparams = hparams.override({"mom2_n_samples": max(args.texts)})
    requests = data.load(args.data, size=args.skip + args.edits, rephrasings="all")[args.skip :]
    heldout = data.text(args.heldout, "heldout")
    bench = EditBenchmark(Untouched(studied.model, studied.tok), requests, heldout)
    before = {"text": "none", "texts": 0, "perplexity": perplexity(studied.model, studied.tok, heldout)}
    rows: list[dict[str, Any]] = [before]
    with shared_targets(studied.model):
        bench.search_targets(hparams)
        for source in ["self", *([args.text] if args.text else [])]:
            for count in sorted(args.texts):
                variant = hparams.override({"mom2_dataset": source, "mom2_n_samples": count})
                rows.append(_row(bench, variant, "self" if source == "self" else Path(source).name))
        for length in args.cut if args.text else []:
            changes = {"mom2_dataset": args.text, "mom2_cut": True, "mom2_max_length": length}
            rows.append(_row(bench, hparams.override(changes), f"{Path(args.text).name}, cut at {length}"))
    series = {
        f"{name}, {source}": ([r["texts"] for r in rows[1:] if r["text"] == source], values)
        for source in dict.fromkeys(row["text"] for row in rows[1:])
        for name in ("rel", "gen", "loc")
        if (values := [row[name] for row in rows[1:] if row["text"] == source])
    }
    note = f"{len(requests)} edits of {args.data} by MEMIT on {args.model}, {BATCH} at a time"
    plot = Lines("Edits by number of texts", series, "texts of about 100 tokens", "share", log="x")
    return Result(
        "covariance_text", "Text for the covariance", note, [plot], [Table("covariance_text", note, rows)]
    )


def _row(bench: EditBenchmark, hparams, text: str) -> dict[str, Any]:
    measured = bench.measure(hparams, sequential=True)
    row = {"text": text, "texts": hparams.mom2_n_samples, "rel": measured["edit_success"]}
    row |= {"gen": measured["generality"], "loc": measured["locality"]}
    return row | {"perplexity": measured["perplexity"]}


main = Study("covariance_text", __doc__ or "", _add_arguments, measure).main

if __name__ == "__main__":
    raise SystemExit(main())
