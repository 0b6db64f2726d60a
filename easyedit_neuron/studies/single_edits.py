"""Each edit on the untouched model, measured, and taken back: the protocol of most tables of the field.

``python -m easyedit_neuron.studies.single_edits --model smollm2-135m-instruct --methods MEMIT EasyEdit:GRACE
--edits 100``

Every record's numbers are appended to ``<data>-<method>.jsonl`` in the folder of the study, and the same
command continues there; ``--devices`` divides the records among processes. The table has means with 95%
bootstrap intervals over records. Methods that search for the same z* search once; the seconds count the
search for each of them.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import data
from ..errors import EditError
from ..evaluation import locality_reference
from ..evaluation.intervals import mean_interval
from ..hyperparameters.variant import Variant
from ..lifelong import EASYEDIT_PREFIX
from ..lifelong.measurer import kind_means, mean_of_kinds, plain_metrics
from ..locate_then_edit.shared_targets import SharedTargets, shared_targets
from ..registry import get_method
from ..utils.lists import evenly, mean
from ..utils.progress import progress
from .command import Study, add_data, add_model, hparams_of, load
from .edit_rows import add_row, first_rows, mend, read_rows, rows_file
from .output import Result, Table
from .over_editing import other_facts, rates
from .untouched import BESIDE, EasyEditUntouched, Untouched

COLUMNS = {
    "rel": "rewrite_acc",
    "gen": "rephrase_acc",
    "rel_written": "rewrite_generation_exact_match",
    "gen_written": "rephrase_generation_exact_match",
}
"""Column -> EasyEdit's name of the measure."""
UNTOUCHED = "Untouched"
"""Named among the methods: nothing is edited, so that every question is asked of the model as it is."""
SHOWN = (*COLUMNS, "loc", "port", "perplexity", "fluency", "over_edited", "unchanging", "seconds")
INTERVALS = ("rel", "gen", "loc", "port")


def measure_edit(
    subject: Untouched,
    request: dict[str, Any],
    hparams,
    texts: Sequence[str] = (),
    fluency_tokens: int = 0,
    over_editing: bool = False,
) -> dict[str, Any]:
    """Make one edit, measure it, and take it back; without ``hparams`` make none.

    Returns:
        ``SHOWN`` (shares; perplexity of ``texts``, None without any; n-gram entropy in bits of
        ``fluency_tokens`` that the model writes behind the prompt, None for 0; with ``over_editing``
        ``over_editing.rates``, else None; CPU seconds of the edit),
        ``kinds`` (``locality.KIND``, ``portability.KIND``), and ``failed``.
    """
    reference = locality_reference(subject.model, subject.tok, [request])
    asked = other_facts(request) if over_editing else []
    before = subject.answers(asked)
    shared, started = SharedTargets.of(subject.model), time.process_time()
    saved, failed = shared.saved_seconds if shared else 0.0, False
    try:
        try:
            if hparams is not None:
                subject.edit([request], hparams)
        except EditError:
            failed = True
        seconds = time.process_time() - started
        if shared:
            seconds += shared.saved_seconds - saved
        row = record_row(subject.evaluate([request], reference, exact_match=True)[0])
        row["perplexity"] = subject.perplexity(list(texts)) if texts else None
        row["fluency"] = subject.fluency([request["prompt"]], fluency_tokens) if fluency_tokens else None
        row |= rates(before, subject.answers(asked), request["target_new"])
    finally:
        subject.restore()
    return row | {"seconds": round(seconds, 3), "failed": failed}


def record_row(metrics: dict[str, Any]) -> dict[str, Any]:
    """The shares of one record; every kind of locality and portability has the same weight in its mean.
    ``rel_exact``, ``gen_exact``, ``loc_exact``: of prompts whose every token is right, or as before."""
    plain = plain_metrics(metrics)
    row = {column: mean(plain.get(name, ())) for column, name in COLUMNS.items()}
    row["loc"], row["port"] = (mean_of_kinds(plain[group]) for group in ("locality", "portability"))
    row["rel_exact"], row["gen_exact"] = (
        _share_of_ones(plain.get(COLUMNS[name], ())) for name in ("rel", "gen")
    )
    row["loc_exact"] = mean(_share_of_ones(values) for values in plain["locality"].values())
    return row | {"kinds": kind_means(plain)}


def _share_of_ones(values: Sequence[float | None]) -> float | None:
    return mean(float(value == 1.0) for value in values if value is not None)


def table_row(label: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means with their intervals, as ``mean`` and ``low-high``."""
    row: dict[str, Any] = {"method": label, "edits": len(rows), "failed": sum(r["failed"] for r in rows)}
    for column in SHOWN:
        interval = mean_interval([record.get(column) for record in rows])
        row[column] = None if interval is None else interval[0]
        if column in INTERVALS and interval is not None:
            row[f"{column}_interval"] = f"{interval[1]:.3f}-{interval[2]:.3f}"
    return row


def _subjects(args: argparse.Namespace, methods: Sequence[str]) -> dict[str, tuple[Untouched, Any]]:
    """Variant -> model and hyperparameters. Our methods share one model, EasyEdit's have one each."""
    subjects: dict[str, tuple[Untouched, Any]] = {}
    own = None
    path = {"model_name": args.model_path} if args.model_path else {}
    for text in methods:
        variant = Variant.of(text)
        if variant.method.startswith(EASYEDIT_PREFIX):
            theirs = EasyEditUntouched(variant.method, args.model, changes=variant.fields() | path)
            subjects[text] = theirs, theirs.hparams
            continue
        if own is None:
            place = argparse.Namespace(model=args.model_path or args.model, device=args.device)
            studied = load(place)
            own = Untouched(studied.model, studied.tok)
        if variant.method == UNTOUCHED:
            subjects[text] = own, None
            continue
        fields = variant.fields() | path | ({"device": args.device} if args.device else {})
        hparams = hparams_of(variant.method, args.model, None, **fields)
        beside = BESIDE.get(get_method(variant.method).name)
        subjects[text] = beside(own.model, own.tok, hparams) if beside else own, hparams
    return subjects


def _measure_all(
    args: argparse.Namespace,
    requests: list[dict],
    subjects: dict[str, tuple[Untouched, Any]],
    files: dict[str, Path],
) -> None:
    """Append the rows that the methods' files do not have; of the records of this process alone."""
    rows = {method: read_rows(file) for method, file in files.items()}
    texts = evenly(data.text(args.text, "heldout"), 12) if args.perplexity else []
    share, shares = args.share or (0, 1)
    left = [
        (number, method)
        for number in range(share, len(requests), shares)
        for method in subjects
        if number not in rows[method]
    ]
    with progress("single edits", len(left), "edit") as shown:
        for number, method in left:
            subject, hparams = subjects[method]
            options = texts if number < args.perplexity else (), args.fluency, args.over_editing
            add_row(files[method], number, measure_edit(subject, requests[number], hparams, *options))
            shown.add(1)


def _in_processes(args: argparse.Namespace) -> None:
    """Let one process for each device measure its share of the records.

    Raises:
        EditError: one of them has failed; what the others have measured is kept.
    """
    places = args.devices
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(places)))}
    running: list[subprocess.Popen] = []
    for share, device in enumerate(places):
        words = [*args.words, "--device", device, "--share", str(share), str(len(places))]
        command = [sys.executable, "-m", f"{__package__}.single_edits", *words]
        quiet = None if share == 0 else subprocess.DEVNULL  # one progress is enough
        streams = {"stdout": subprocess.DEVNULL, "stderr": quiet}
        running.append(subprocess.Popen(command, env=threads | os.environ, **streams))
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:
            process.kill()
    failed = [device for device, code in zip(places, codes) if code]
    if failed:
        remedy = "the same command without --devices says why"
        raise EditError(f"the processes on {', '.join(failed)} have failed: {remedy}")


def _folder(args: argparse.Namespace) -> Path:
    folder = args.out or Path("single_edits")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, 100, with_all=True)
    parser.add_argument("--part", default="all", choices=("all", "choose", "report"), help="of the data")
    help_text = "of ours, EasyEdit:GRACE, 'FiNE method.neuron_num=5' as a variant, or Untouched (MEMIT)"
    parser.add_argument("--methods", nargs="+", default=["MEMIT"], help=help_text)
    parser.add_argument("--perplexity", type=int, default=20, help="edits after which it is measured (20)")
    parser.add_argument("--text", default="real-world", help="text for perplexity")
    parser.add_argument("--fluency", type=int, default=0, metavar="TOKENS", help="to write after an edit (0)")
    help_text = "ask other facts of the subject: over-editing and unchanging rates"
    parser.add_argument("--over-editing", action="store_true", help=help_text)
    help_text = "a process on each, which takes its share of the records: cuda:0 cuda:1, or cpu cpu"
    parser.add_argument("--devices", nargs="+", metavar="DEVICE", help=help_text)
    parser.add_argument("--share", nargs=2, type=int, help=argparse.SUPPRESS)  # of those processes
    parser.add_argument("--model-path", metavar="PATH", help="where the model called --model is")


def _canonical(text: str) -> str:
    """The text of a variant with the method as the registry calls it."""
    variant = Variant.of(text)
    if variant.method.startswith(EASYEDIT_PREFIX) or variant.method == UNTOUCHED:
        return text
    return Variant(get_method(variant.method).name, variant.changes).text


def measure(args: argparse.Namespace) -> Result:
    requests = data.load(args.data, size=args.edits, rephrasings="all", part=args.part, invalid="skip")
    methods = [_canonical(text) for text in args.methods]
    folder = _folder(args)
    files = {method: rows_file(folder, args.data, method) for method in methods}
    if not args.share:
        for file in files.values():
            mend(file)
    if args.devices and not args.share:
        _in_processes(args)
    else:
        subjects = _subjects(args, methods)
        with shared_targets(next(iter(subjects.values()))[0].model):
            _measure_all(args, requests, subjects, files)
    measured = {method: first_rows(file, len(requests)) for method, file in files.items()}
    rows = [table_row(Variant.of(method).label, measured[method]) for method in methods]
    note = f"{len(requests)} edits of {args.data} in {args.model}, each on the untouched model"
    return Result(
        "single_edits",
        "Single edits",
        note,
        [],
        [Table(f"single-{Path(args.data).stem}", note, rows)],
        folder,
    )


main = Study("single_edits", __doc__ or "", _add_arguments, measure).main

if __name__ == "__main__":
    raise SystemExit(main())
