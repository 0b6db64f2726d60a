"""KNE's studies: where knowledge is stored, size of the localisation set, share of the parameters, batch size
(paper, 4.3-4.6).

    python -m easyedit_neuron.studies.kne --study modules --edits 20 --out modules

writes ``modules.csv``, ``modules.png`` and ``modules.html`` to the folder. ``--vary lr=0.003,0.01`` varies
any other hyperparameter, ``--set field=value`` changes one for all settings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from .. import data
from ..arch.projections import NAMES
from ..errors import HparamsError
from ..host.load_model import load_model
from ..models.kne.kne_hparams import KNEHyperParams
from .command import parser, run
from .edit_bench import MEASURES, Bench
from .output import Plot, Result, Table, write_csv
from .plots import marks

STUDIES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "modules": ("target_modules", [[name] for name in NAMES], {}),
    "set_size": ("localization_set_size", [5, 20, 50, 100, 200], {"localize": "shared"}),
    "share": ("share_of_parameters", [0.001, 0.003, 0.01, 0.03, 0.1], {}),
    "batch": ("batch_size", [1, 2, 5, 10, 20], {}),
}
"""Name -> (field that is varied, its values, what else is set)."""


def study(arguments: argparse.Namespace) -> Result:
    """Every setting in turn; the table is written after each."""
    name, varied, values, fixed = _settings(arguments)
    hparams = KNEHyperParams.from_hparams(arguments.hparams).override({**fixed, **_pairs(arguments.set)})
    if hparams.localization_data is None:  # read by localize: shared alone
        hparams = hparams.override({"localization_data": arguments.data})
    settings = [
        hparams.override({varied: value}) for value in values
    ]  # all of them are checked before the model is loaded
    requests = data.load(arguments.data, size=arguments.edits)
    texts = data.text(arguments.text, "heldout")[: arguments.texts] if arguments.texts else []
    model, tok, _ = load_model(hparams)
    bench = Bench(model, tok, requests, texts)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for setting in settings:
        value = getattr(setting, varied)
        rows.append(
            {
                varied: " ".join(value) if isinstance(value, list) else value,
                **bench.run(setting, arguments.sequential),
            }
        )
        write_csv(arguments.out / f"{name}.csv", rows)
    kind = "sequential" if arguments.sequential else "single"
    title = f"KNE, {arguments.edits} {kind} edits of {Path(arguments.data).stem}"
    return Result(
        name, title, "Means over the edits.", [_picture(rows, varied)], [Table(name, f"By {varied}", rows)]
    )


def _picture(rows: list[dict[str, Any]], varied: str) -> Plot:
    numbers = all(isinstance(row[varied], (int, float)) for row in rows)
    series = {name.replace("_", " "): [row.get(name) for row in rows] for name in MEASURES}
    shown = {name: values for name, values in series.items() if any(value is not None for value in values)}
    paint = marks(
        [row[varied] for row in rows],
        shown,
        varied.replace("_", " "),
        "mean over edits",
        limits=(-0.03, 1.05),
        joined=numbers,
    )
    return Plot("Measures", paint, (5.6, 3.4))


def _settings(arguments) -> tuple[str, str, list[Any], dict[str, Any]]:
    if arguments.study:
        varied, values, fixed = STUDIES[arguments.study]
        return arguments.study, varied, _values(arguments.values) if arguments.values else values, fixed
    varied, given = next(iter(_split([arguments.vary])))
    return varied, varied, _values(given), {}


def _values(text: str) -> list[Any]:
    # "lr=1e-3,1e-2" as well as "target_modules=[q_proj],[k_proj,v_proj]"
    return yaml.safe_load(f"[{text}]")


def _pairs(given: list[str]) -> dict[str, Any]:
    return {name: yaml.safe_load(value) for name, value in _split(given)}


def _split(given: list[str]) -> list[tuple[str, str]]:
    for text in given:
        if "=" not in text:
            raise HparamsError(f"{text!r} must read field=value")
    return [tuple(text.split("=", 1)) for text in given]


def main(argv: list[str] | None = None) -> int:
    """Entry point; 2 when something that was given is wrong."""
    made = parser("kne", "Vary one hyperparameter of KNE.", model=False)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", choices=sorted(STUDIES), help="one of the paper's")
    what.add_argument("--vary", metavar="FIELD=V1,V2,...", help="any hyperparameter")
    made.add_argument("--values", metavar="V1,V2,...", help="other values for --study")
    made.add_argument("--edits", type=int, default=20, help="the first ones of the data")
    made.add_argument(
        "--sequential", action="store_true", help="edits on top of each other, measured at the end"
    )
    made.add_argument("--hparams", default="KNE/tiny-llama", help="file or shipped name")
    made.add_argument("--data", default="tiny-world", help="edits: a data file or tiny-world")
    made.add_argument("--text", default="tiny-world", help="text for the perplexity")
    made.add_argument(
        "--texts", type=int, default=100, help="how many of its lines, with --sequential; 0: none"
    )
    made.add_argument(
        "--set", metavar="FIELD=VALUE", action="append", default=[], help="a hyperparameter of all settings"
    )
    return run(made.parse_args(argv), "kne", study)


if __name__ == "__main__":
    sys.exit(main())
