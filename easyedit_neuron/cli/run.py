"""One run: load and check what the settings name, then let the lifelong engine edit and measure."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import data, resources
from ..arch.plain_model import is_quantised
from ..data.splits import sample
from ..errors import NeuronEditError, StateError
from ..evaluation.guard import Reading, RollBack
from ..hyperparameters.base import HyperParams
from ..lifelong.checkpoint import StateFolder
from ..lifelong.engine import STATE, Engine, RunStorage
from ..lifelong.identity import OpenRun, open_run, run_identity, untouched_of
from ..lifelong.measurer import Measurer, ReferenceData
from ..lifelong.method import Method, ModelEditor
from ..lifelong.progress import Progress
from ..lifelong.results import RunOrigin, RunResults, summarise
from ..lifelong.run_folder import RunFolder, as_json
from ..lifelong.run_log import RunLog
from ..lifelong.stream import Stream
from ..lifelong.tracking.callback import RunCallback
from ..lifelong.tracking.callbacks import Callbacks
from ..lifelong.tracking.names import make_callbacks
from ..report.final import table
from ..utils.fingerprint import model_fingerprint, tokenizer_fingerprint
from ..utils.io import held, write_text
from ..utils.plain_trees import read_json
from ..utils.progress import silenced
from ..utils.random_state import seed_everything
from ..utils.timing import Stopwatch
from .load import (
    check_layers,
    load_ability,
    load_facts_and_texts,
    load_judge,
    load_method,
    load_quietly,
    with_ability,
)
from .output import show
from .settings import Settings


def run(
    settings: Settings,
    hparams: HyperParams,
    hparams_file: Path,
    output_dir: str,
    overrides: list[str],
    callbacks: Sequence[RunCallback] = (),
) -> dict[str, Any]:
    """Edit and measure in ``output_dir``, from where the same command was interrupted there;
    ``summary.json``.

    ``callbacks`` are told what happens, beside those that ``runner.callbacks`` names.

    ``NeuronEditError`` before the first edit where data, model and hyperparameters do not fit together, or
    the folder is of another run.
    """
    named = make_callbacks(settings.runner.callbacks, "setting 'runner.callbacks'")
    watching = Callbacks([*named, *callbacks])
    method = load_method(settings)
    if settings.batch_size > 1 and not method.batchable:
        raise NeuronEditError(f"{method.name} edits one request at a time: batch_size=1")
    requests, numbers = _requests(settings)
    facts, texts = load_facts_and_texts(settings, requests)
    resources.require_model(str(hparams.model_name))
    settings, task_identity = with_ability(settings, hparams)
    stream = Stream.of(requests, settings.runner.order, settings.seed, settings.batch_size, numbers)
    reference = ReferenceData(facts, texts, [request["prompt"] for request in requests])
    read = {"edits": requests, "facts": facts, "text": texts, **task_identity}
    identity = run_identity(settings.to_dict(), hparams.to_dict(), read)
    files, quiet = RunFolder(Path(output_dir)), settings.runner.quiet
    with held(files.folder, "this run"):
        opened = open_run(files, identity)
        if opened.finished:
            Progress(method.name, len(requests), quiet).say(f"{files.folder} is finished")
            StateFolder(files.state, "").remove()  # left if the process ended right after the summary
            summary = _read_summary(files)
        command = shlex.join(["python", "-m", "easyedit_neuron", *overrides])
        origin = RunOrigin(settings, hparams, hparams_file, command, watching)
        try:
            if opened.finished:
                watching.begin_finished(files)
            else:
                with silenced(quiet):
                    summary = _edit(origin, method, stream, reference, opened)
            # Also of a finished run that was killed while its report was drawn
            if settings.runner.report and not (opened.finished and files.report.is_file()):
                _write_report(files)
        except BaseException:
            watching.end(None, [])
            raise
        watching.end(summary, sorted((files.folder / "plots").glob("*.png")))
    if not quiet:
        paths = (files.report, files.edits, files.table, files.summary)
        show(table(summary) + "".join(f"\n{path}" for path in paths if path.is_file()) + "\n")
        if (files.log / "log.json").is_file():
            folder, here = files.folder.resolve(), Path.cwd()
            folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
            undo = f"easyedit-neuron undo {shlex.quote(str(folder))} 1 --out without-1"
            show(f"\ntake an edit back:  {undo}\n")
    return summary


def _requests(settings: Settings) -> tuple[list[dict], list[int] | None]:
    """The edits, and their positions in the data behind ``skip`` if they are a sample."""
    source = settings.data
    choice = source.invalid, source.rephrasings, source.part
    count = None if settings.edits == "all" else int(settings.edits)
    if source.sample_seed is None:
        last = None if count is None else source.skip + count
        return data.load(source.path, source.shape, last, *choice)[source.skip :], None
    whole = data.load(source.path, source.shape, None, *choice)[source.skip :]
    numbers = sample(len(whole), len(whole) if count is None else count, source.sample_seed)
    return [whole[number] for number in numbers], numbers


def _edit(
    origin: RunOrigin, method: Method, stream: Stream, reference: ReferenceData, opened: OpenRun
) -> dict[str, Any]:
    files, breach = opened.files, None
    try:
        results = _engine(origin, method, stream, reference, opened).run()
    except RollBack as problem:
        breach = problem.with_traceback(None)  # which holds the model, and the next needs room
    if breach is not None:
        results = _rolled_back(breach, origin, stream, reference, opened)
    summary = as_json(summarise(origin, results))
    write_text(files.summary, summary)
    StateFolder(files.state, "").remove()
    return json.loads(summary)


def _engine(
    origin: RunOrigin,
    method: Method,
    stream: Stream,
    reference: ReferenceData,
    opened: OpenRun,
    ended_by: Reading | None = None,
) -> Engine:
    settings, hparams, files, watch = origin.settings, origin.hparams, opened.files, Stopwatch()
    seed_everything(settings.seed)
    with watch.measure("load"):
        ability, judge = load_ability(settings.evaluation), load_judge(settings.evaluation)
        model, tok = load_quietly(hparams.model_name, "model.path=...", lambda: method.load_model(hparams))
        check_layers(model, hparams)
        if ability is not None:
            ability.check(model, tok)
        weights, tokenizer = model_fingerprint(model), tokenizer_fingerprint(tok, reference.prompts)
        fingerprints = {"weights": weights, "tokenizer": tokenizer}
        untouched = None
        if settings.runner.untouched is not None:
            other = Path(settings.runner.untouched).expanduser()
            untouched = untouched_of(other, opened.identity, fingerprints)
        run_fingerprint = opened.begin_or_continue(fingerprints, origin.command)
    # What was edited in 4 bits is exported on the whole model, which has the same edited weights alone.
    base = None if is_quantised(model) else weights
    log = RunLog(files.log, settings.runner.edit_log, base, stream.batches)
    storage = RunStorage(files, StateFolder(files.state, run_fingerprint, STATE), log, untouched)
    measurer = Measurer(tok, hparams, stream.requests, reference, settings, ability, judge)
    editor = ModelEditor(method, model, tok, hparams)
    return Engine(editor, stream, measurer, storage, settings, watch, ended_by, origin.callbacks)


def _rolled_back(
    breach: RollBack, origin: RunOrigin, stream: Stream, reference: ReferenceData, opened: OpenRun
) -> RunResults:
    """Finish a run with its newest saved state, of which the guard has seen that it is within the limits."""
    if not breach.saved:
        raise NeuronEditError(f"guard {breach}; no earlier state was within the limits, so nothing is kept")
    opened = open_run(opened.files, opened.identity)
    engine = _engine(origin, load_method(origin.settings), stream, reference, opened, breach.reading)
    engine.progress.say(f"rolled back to edit {breach.saved}: {breach}")
    engine.end_at(breach.saved)
    return engine.run()


def _write_report(files: RunFolder) -> None:
    from ..report.page import write_look  # imports matplotlib, which takes a second
    from ..report.runs import read_runs

    write_look(read_runs([files.folder]), files.folder)


def _read_summary(files: RunFolder) -> dict[str, Any]:
    try:
        return read_json(files.summary)
    except (OSError, ValueError) as problem:
        remedy = "remove it to measure the end of the run again"
        raise StateError(f"{files.summary}: not readable ({problem}); {remedy}") from None
