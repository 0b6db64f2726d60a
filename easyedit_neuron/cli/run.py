"""One run: what the settings name is loaded and checked, the lifelong runner does the rest."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path
from typing import Any

from .. import data
from ..errors import NeuronEditError, StateError
from ..hyperparameters.base import HyperParams
from ..lifelong.checkpoint import StateFolder, seed_everything
from ..lifelong.engine import Engine
from ..lifelong.measurer import Edits, Probes
from ..lifelong.meters import Clock
from ..lifelong.method import Method
from ..lifelong.progress import Progress
from ..lifelong.results import summarise
from ..lifelong.resume import Entry, identity
from ..lifelong.run_folder import RunFolder, as_json
from ..lifelong.stream import Stream
from ..utils.fingerprint import model_fingerprint, tokenizer_fingerprint
from ..utils.io import write_text
from . import report
from .load import check_layers, load_ability, load_probes, load_quietly, method_of, with_ability
from .settings import Settings


def run(
    settings: Settings, hparams: HyperParams, source: Path, output_dir: str, overrides: list[str]
) -> dict[str, Any]:
    """Edits and measures in the folder ``output_dir``, from where the same command was interrupted there;
    returns the summary.

    Raises ``NeuronEditError`` before the first edit when data, model and hyperparameters do not fit together,
    or when the folder is of another run.
    """
    method = method_of(settings)
    if settings.batch_size > 1 and not method.batchable:
        raise NeuronEditError(f"{method.name} edits one request at a time: batch_size=1")
    source_of, last = settings.data, settings.data.skip + settings.edits
    requests = data.load(source_of.path, source_of.shape, last, source_of.invalid)[source_of.skip :]
    facts, texts = load_probes(settings)
    settings, read = with_ability(settings, hparams)
    files, options = RunFolder(Path(output_dir)), settings.runner
    entry = Entry(
        files,
        identity(
            settings.to_dict(), hparams.to_dict(), {"edits": requests, "facts": facts, "text": texts, **read}
        ),
    )
    with contextlib.ExitStack() as stack:
        entry.open(stack)
        progress = Progress(method.name, len(requests), options.quiet)
        if entry.finished:
            progress.say(f"{files.folder} is finished")
            StateFolder(files.state, "").remove()  # where the process died between the summary and this
            summary = _read_summary(files)
        else:
            command = shlex.join(["python", "-m", "easyedit_neuron", *overrides])
            summary = _edit(
                settings, hparams, source, method, requests, facts, texts, entry, progress, command
            )
            if options.report:
                from ..report.page import write_look  # imports matplotlib, which takes a second
                from ..report.runs import read_runs

                write_look(read_runs([files.folder]), files.folder)
    if not options.quiet:
        paths = [
            path
            for path in (files.folder / "report.html", files.edits, files.table, files.summary)
            if path.is_file()
        ]
        report.show(report.table(summary) + "".join(f"\n{path}" for path in paths) + "\n")
    return summary


def _edit(
    settings: Settings,
    hparams: HyperParams,
    source: Path,
    method: Method,
    requests: list[dict],
    facts: list[dict],
    texts: list[str],
    entry: Entry,
    progress: Progress,
    command: str,
) -> dict[str, Any]:
    clock, files, options = Clock(), entry.files, settings.evaluation
    stream = Stream.of(requests, settings.runner.order, settings.seed, settings.batch_size)
    seed_everything(settings.seed)
    with clock("load"):
        ability = load_ability(options)
        model, tok = load_quietly(method, hparams)
        check_layers(model, hparams)
        if ability is not None:
            ability.check(model, tok)
        sample = [request["prompt"] for request in requests]
        weights = model_fingerprint(model)
        run_of = entry.confirm({"weights": weights, "tokenizer": tokenizer_fingerprint(tok, sample)}, command)
    state = StateFolder(files.state, run_of)
    probes = Probes(model, tok, facts, texts, sample, options, settings.seed, ability)
    engine = Engine(
        method,
        hparams,
        model,
        tok,
        stream,
        Edits(tok, stream.requests, hparams, options),
        probes,
        settings.runner,
        options,
        settings.seed,
        files,
        state,
        clock,
        progress,
        weights,
    )
    engine.run()
    summary = summarise(
        settings,
        hparams,
        source,
        command,
        engine.lines,
        engine.checkpoints,
        stream.repeats(),
        engine.resumed,
        engine.fingerprints(),
    )
    write_text(files.summary, as_json(summary))
    state.remove()
    return json.loads(as_json(summary))


def _read_summary(files: RunFolder) -> dict[str, Any]:
    try:
        return json.loads(files.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise StateError(
            f"{files.summary}: not readable ({problem}); remove it to measure the end of the run again"
        ) from None
