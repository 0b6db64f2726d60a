"""KNE's studies (paper, 4.3-4.6): one hyperparameter varied, and how well the same edits are made.

Asked: where knowledge is stored (``modules``), and what the size of the localisation set (``set_size``), the
share of the parameters (``share``) and the batch size (``batch``) do. ``--vary lr=0.003,0.01`` varies any
other hyperparameter.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from .. import data
from ..arch.load_model import load_model
from ..arch.projections import NAMES
from ..errors import HparamsError
from ..models.kne.kne_hparams import KNEHyperParams
from .command import Study
from .edit_bench import MEASURES, EditBenchmark
from .output import Result, Table, write_csv
from .plots import Marks
from .untouched import Untouched

STUDIES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "modules": ("target_modules", [[name] for name in NAMES], {}),
    "set_size": ("localization_set_size", [5, 20, 50, 100, 200], {"localize": "shared"}),
    "share": ("share_of_parameters", [0.001, 0.003, 0.01, 0.03, 0.1], {}),
    "batch": ("batch_size", [1, 2, 5, 10, 20], {}),
}
"""Name -> (field that is varied, its values, other fields that are set)."""


def measure(args: argparse.Namespace) -> Result:
    """Measure every setting in turn; the table is written after each."""
    if args.study:
        name, (varied, values, fixed) = args.study, STUDIES[args.study]
        values = _parse_values(args.values) if args.values else values
    else:
        varied, text = _split_pair(args.vary)
        name, values, fixed = varied, _parse_values(text), {}
    pairs = dict(_split_pair(text) for text in args.set)
    fixed = fixed | {field: yaml.safe_load(value) for field, value in pairs.items()}

    # Check all settings before the model is loaded.
    hparams = KNEHyperParams.from_hparams(args.hparams).override(fixed)
    if hparams.localization_data is None:  # only localize: shared reads it
        hparams = hparams.override({"localization_data": args.data})
    settings = [hparams.override({varied: value}) for value in values]
    requests = data.load(args.data, size=args.edits)
    texts = data.text(args.text, "heldout")[: args.texts] if args.texts else []

    model, tok, _ = load_model(hparams)
    benchmark = EditBenchmark(Untouched(model, tok), requests, texts, args.fluency)
    rows = []
    for setting in settings:
        value = getattr(setting, varied)
        value = " ".join(value) if isinstance(value, list) else value
        rows.append({varied: value, **benchmark.measure(setting, args.sequential)})
        write_csv((args.out or Path("kne")) / f"{name}.csv", rows)
    kind = "sequential" if args.sequential else "single"
    title = f"KNE, {args.edits} {kind} edits of {Path(args.data).stem}"
    tables = [Table(name, f"By {varied}", rows)]
    return Result(name, title, "Means over the edits.", [_plot(rows, varied)], tables)


def _plot(rows: list[dict[str, Any]], varied: str) -> Marks:
    series = {name.replace("_", " "): [row.get(name) for row in rows] for name in MEASURES}
    series = {name: values for name, values in series.items() if any(value is not None for value in values)}
    settings, label = [row[varied] for row in rows], varied.replace("_", " ")
    look = {"limits": (-0.03, 1.05), "size": (5.6, 3.4)}
    joined = all(isinstance(setting, (int, float)) for setting in settings)
    return Marks("Measures", settings, series, label, "mean over edits", joined=joined, **look)


def _parse_values(text: str) -> list[Any]:
    # "lr=1e-3,1e-2" as well as "target_modules=[q_proj],[k_proj,v_proj]"
    return yaml.safe_load(f"[{text}]")


def _split_pair(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise HparamsError(f"{text!r} must read field=value")
    return field, value


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    varied = parser.add_mutually_exclusive_group(required=True)
    varied.add_argument("--study", choices=sorted(STUDIES), help="one of the paper's")
    varied.add_argument("--vary", metavar="FIELD=V1,V2,...", help="any hyperparameter")
    add = parser.add_argument
    add("--values", metavar="V1,V2,...", help="other values for --study")
    add("--edits", type=int, default=20, help="how many records of the data (20, the first ones)")
    add("--sequential", action="store_true", help="edits on top of each other, measured at the end")
    add("--hparams", default="KNE/tiny-llama", help="file or shipped name (KNE/tiny-llama)")
    add("--data", default="tiny-world", help="edits: a data file, or tiny-world")
    add("--text", default="tiny-world", help="text for the perplexity")
    add("--texts", type=int, default=100, help="how many of its lines, with --sequential (100); 0: none")
    fluency_help = "tokens that the model writes behind each prompt, for their entropy (0)"
    add("--fluency", type=int, default=0, metavar="TOKENS", help=fluency_help)
    set_help = "a hyperparameter of all settings"
    add("--set", metavar="FIELD=VALUE", action="append", default=[], help=set_help)


main = Study("kne", "Vary one hyperparameter of KNE.", _add_arguments, measure).main

if __name__ == "__main__":
    sys.exit(main())
