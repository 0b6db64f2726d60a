"""How far edits will reach beyond their own keys, for several methods, before any is made.

``python -m easyedit_neuron.studies.forecast --model smollm2-135m-instruct --methods AlphaEdit MEMIT
--data FILE --edits 1000``

No z* is searched for and no weight changes: spill follows from keys and statistics
(``locate_then_edit.forecast``).
"""

import argparse
from typing import Any

from .. import data
from ..edits.request import prepare
from ..errors import HparamsError
from ..locate_then_edit.forecast import Forecast, forecast
from ..locate_then_edit.hparams import PathHyperParams
from ..statistics.cache import Statistics
from .command import Study, add_data, add_model, hparams_of, load, positive
from .output import Result, Table
from .plots import Lines


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, 1000)
    parser.add_argument(
        "--methods", nargs="+", default=["AlphaEdit", "MEMIT"], help="with their shipped settings"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=10, help="of methods that forget earlier keys (10)"
    )


def measure(args: argparse.Namespace) -> Result:
    device = {"device": args.device} if args.device else {}
    all_hparams = {
        name: hparams_of(name, args.model, None, batch_size=args.batch_size, **device)
        for name in args.methods
    }
    for name, hparams in all_hparams.items():
        if not isinstance(hparams, PathHyperParams):
            raise HparamsError(
                f"--methods {name}: does not solve for keys; a forecast is made for those that do"
            )
    requests = prepare(data.load(args.data, size=args.edits, invalid="skip"))
    studied = load(args)
    results = {}
    for name, hparams in all_hparams.items():
        statistics = Statistics(studied.view, studied.tok, hparams)
        results[name] = forecast(studied.view, studied.tok, requests, hparams, statistics)
    note = f"{len(requests)} edits of {args.data}, on {args.model}"
    series = {name: (list(result.spill), list(result.spill.values())) for name, result in results.items()}
    return Result(
        "forecast",
        "What edits change beside themselves",
        note,
        [Lines("Change at other names", series, "edits", "in units of one edit's own change", log="xy")],
        [
            Table("spill", "Spill by number of edits", _spills(results)),
            Table("clashes", "Edits with nearly the same key", _clashes(results, requests)),
        ],
    )


def _spills(results: dict[str, Forecast]) -> list[dict[str, Any]]:
    return [
        {"method": name, **{str(count): value for count, value in result.spill.items()}}
        for name, result in results.items()
    ]


def _clashes(results: dict[str, Forecast], requests) -> list[dict[str, Any]]:
    return [
        {
            "method": name,
            "edits": f"{pair.first}, {pair.second}",
            "subjects": f"{requests[pair.first].subject}, {requests[pair.second].subject}",
            "cosine": pair.cosine,
        }
        for name, result in results.items()
        for pair in result.clashes
    ]


main = Study("forecast", __doc__ or "", _add_arguments, measure).main

if __name__ == "__main__":
    raise SystemExit(main())
