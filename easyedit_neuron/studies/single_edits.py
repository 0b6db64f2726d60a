"""Each edit on the untouched model, measured, and taken back: the protocol of most tables of the field.

``python -m easyedit_neuron.studies.single_edits --model smollm2-135m-instruct --methods MEMIT FiNE --edits
100``

Every record's numbers are appended to ``<data>-<method>.jsonl`` in the folder of the study, and the same
command continues there. The table has means with 95% bootstrap intervals over records.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import data
from ..edits.session import forget
from ..edits.write import restore
from ..errors import EditError
from ..evaluation import evaluate_all, locality_reference, perplexity
from ..evaluation.intervals import mean_interval
from ..lifelong.measurer import evenly, plain_metrics
from ..lifelong.run_folder import mean
from ..registry import get_method
from ..utils.io import append_text
from ..utils.progress import progress
from .command import StudiedModel, Study, add_data, add_model, hparams_of, load
from .output import Result, Table

COLUMNS = {
    "rel": "rewrite_acc",
    "gen": "rephrase_acc",
    "rel_written": "rewrite_generation_exact_match",
    "gen_written": "rephrase_generation_exact_match",
}
"""Column -> EasyEdit's name of the measure."""
SHOWN = (*COLUMNS, "loc", "port", "perplexity", "seconds")


def measure_edit(
    studied: StudiedModel, request: dict[str, Any], hparams, texts: Sequence[str] = ()
) -> dict[str, Any]:
    """Make one edit, measure it, and take it back.

    Returns:
        ``SHOWN`` (shares; perplexity of ``texts``, None without any; CPU seconds of the edit), and
        ``failed``.
    """
    model, tok = studied.model, studied.tok
    reference = locality_reference(model, tok, [request])
    apply, started = get_method(hparams.alg_name).load_apply(), time.process_time()
    failed, originals = False, {}
    try:
        _, originals = apply(model, tok, [request], hparams, return_orig_weights=True)
    except EditError:
        failed = True
    seconds = time.process_time() - started
    try:
        row = record_row(evaluate_all(model, tok, [request], reference=reference, exact_match=True)[0])
        row["perplexity"] = perplexity(model, tok, texts) if texts else None
    finally:
        restore(model, originals)
        forget(model)
    return row | {"seconds": seconds, "failed": failed}


def record_row(metrics: dict[str, Any]) -> dict[str, float | None]:
    """The shares of one record; every kind of locality and portability has the same weight in its mean."""
    plain = plain_metrics(metrics)
    row = {column: mean(plain.get(name, ())) for column, name in COLUMNS.items()}
    row["loc"] = mean(mean(kind) for kind in plain["locality"].values())
    row["port"] = mean(mean(kind) for kind in plain["portability"].values())
    return row


def table_row(label: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means with their intervals, as ``mean`` and ``low-high``."""
    row: dict[str, Any] = {"method": label, "edits": len(rows), "failed": sum(r["failed"] for r in rows)}
    for column in SHOWN:
        interval = mean_interval([record[column] for record in rows])
        row[column] = None if interval is None else interval[0]
        if column in ("rel", "gen", "loc", "port") and interval is not None:
            row[f"{column}_interval"] = f"{interval[1]:.3f}-{interval[2]:.3f}"
    return row


def _run_method(
    studied: StudiedModel, args: argparse.Namespace, method: str, requests: list[dict]
) -> list[dict]:
    file = _folder(args) / f"{Path(args.data).stem}-{method}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = [json.loads(line) for line in lines]
    hparams = hparams_of(method, args.model, None, **({"device": args.device} if args.device else {}))
    texts = evenly(data.text(args.text, "heldout"), 12) if args.perplexity else []
    with progress(method, len(requests), "edit", len(rows)) as shown:
        for number in range(len(rows), len(requests)):
            measured = texts if number < args.perplexity else ()
            rows.append(measure_edit(studied, requests[number], hparams, measured))
            append_text(file, json.dumps(rows[-1]) + "\n")
            shown.add(1)
    return rows


def _folder(args: argparse.Namespace) -> Path:
    folder = args.out or Path("single_edits")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, 100)
    parser.add_argument("--part", default="all", choices=("all", "choose", "report"), help="of the data")
    parser.add_argument("--methods", nargs="+", default=["MEMIT"], help="names of methods (MEMIT)")
    parser.add_argument("--perplexity", type=int, default=20, help="edits after which it is measured (20)")
    parser.add_argument("--text", default="real-world", help="text for perplexity")


def measure(args: argparse.Namespace) -> Result:
    requests = data.load(args.data, size=args.edits, rephrasings="all", part=args.part, invalid="skip")
    studied, methods = load(args), [get_method(name).name for name in args.methods]
    rows = [table_row(method, _run_method(studied, args, method, requests)) for method in methods]
    note = f"{len(requests)} edits of {args.data} in {args.model}, each on the untouched model"
    return Result(
        "single_edits",
        "Single edits",
        note,
        [],
        [Table(f"single-{Path(args.data).stem}", note, rows)],
        _folder(args),
    )


main = Study("single_edits", __doc__ or "", _add_arguments, measure).main

if __name__ == "__main__":
    raise SystemExit(main())
