"""KNE's studies: where knowledge is stored, size of the localisation set, share of the parameters, batch size (paper, 4.3-4.6).

    python -m easyedit_neuron.studies.kne --study modules --edits 20 --out modules

writes ``modules.csv`` and ``modules.png`` to the folder. ``--vary lr=0.003,0.01`` varies any other hyperparameter,
``--set field=value`` changes one for all settings.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import yaml

from .. import data
from ..arch.projections import NAMES
from ..errors import HparamsError, NeuronEditError
from ..host.load_model import load_model
from ..models.kne.kne_hparams import KNEHyperParams
from .measure import Bench
from .table import plot, write_csv

STUDIES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "modules": ("target_modules", [[name] for name in NAMES], {}),
    "set_size": ("localization_set_size", [5, 20, 50, 100, 200], {"localize": "shared"}),
    "share": ("share_of_parameters", [0.001, 0.003, 0.01, 0.03, 0.1], {}),
    "batch": ("batch_size", [1, 2, 5, 10, 20], {}),
}
"""Name -> (field that is varied, its values, what else is set)."""


def main(argv: list[str] | None = None) -> int:
    """Runs one study; 0, or 2 with one line on stderr when something that was given is wrong."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    try:
        rows = study(arguments)
    except NeuronEditError as problem:
        sys.stderr.write(f"easyedit_neuron.studies.kne: error: {' '.join(str(problem).split())}\n")
        return 2
    sys.stdout.write("\n".join(_line(row) for row in rows) + "\n")
    return 0


def study(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every setting in turn; writes the table after each, and the plot at the end."""
    name, varied, values, fixed = _settings(arguments)
    hparams = KNEHyperParams.from_hparams(arguments.hparams).override({**fixed, **_pairs(arguments.set)})
    if hparams.localization_data is None:  # read by localize: shared alone
        hparams = hparams.override({"localization_data": arguments.data})
    settings = [hparams.override({varied: value}) for value in values]  # all of them are checked before the model is loaded
    requests = data.load(arguments.data, size=arguments.edits)
    texts = data.text(arguments.text, "heldout")[:arguments.texts] if arguments.texts else []
    model, tok, _ = load_model(hparams)
    bench = Bench(model, tok, requests, texts)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for setting in settings:
        value = getattr(setting, varied)
        rows.append({varied: " ".join(value) if isinstance(value, list) else value, **bench.run(setting, arguments.sequential)})
        write_csv(out / f"{name}.csv", rows)
    kind = "sequential" if arguments.sequential else "single"
    plot(out / f"{name}.png", rows, varied, f"KNE, {arguments.edits} {kind} edits of {Path(arguments.data).stem}")
    return rows


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


def _line(row: dict[str, Any]) -> str:
    return "  ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in row.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m easyedit_neuron.studies.kne", description="Vary one hyperparameter of KNE.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", choices=sorted(STUDIES), help="one of the paper's")
    what.add_argument("--vary", metavar="FIELD=V1,V2,...", help="any hyperparameter")
    parser.add_argument("--values", metavar="V1,V2,...", help="other values for --study")
    parser.add_argument("--edits", type=int, default=20, help="the first ones of the data")
    parser.add_argument("--out", default="study", help="folder of the table and the plot")
    parser.add_argument("--sequential", action="store_true", help="edits on top of each other, measured at the end")
    parser.add_argument("--hparams", default="KNE/tiny-llama", help="file or shipped name")
    parser.add_argument("--data", default="tiny-world", help="edits: a data file or tiny-world")
    parser.add_argument("--text", default="tiny-world", help="text for the perplexity")
    parser.add_argument("--texts", type=int, default=100, help="how many of its lines, with --sequential; 0: none")
    parser.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[],
                        help="change a hyperparameter for all settings")
    return parser


if __name__ == "__main__":
    sys.exit(main())
