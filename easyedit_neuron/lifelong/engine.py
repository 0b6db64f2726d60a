"""The loop of a run: edit, measure, save, from wherever its folder says that it was interrupted."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import NeuronEditError, StateError
from ..evaluation.guard import FACTS, Guard, Limits, Reading, RollBack
from ..evaluation.quality import prompt_tokenizer_of
from ..utils.io import refusing, save_tensors, write_text
from ..utils.lists import evenly
from ..utils.random_state import random_states, seed_everything, set_random_states
from ..utils.schema import damage_is
from ..utils.timing import Stopwatch
from .answers import compare_answers
from .checkpoint import StateFolder
from .drift import drifts
from .layer_statistics import MaskCounts
from .measurer import Measurer, means
from .memory import peak_memory, reset_peak_memory
from .method import BatchResult, ModelEditor
from .outlook import outlook, sentences, to_json
from .progress import Progress
from .results import RunResults, checkpoint_line, count_failed, edit_lines, immediate_means
from .resume import before_digest, edits_digest, read_before, read_lines
from .run_folder import RunFolder, as_json, csv_row, finite
from .run_log import RunLog
from .stream import Stream, cut
from .tracking.callbacks import Callbacks

LOG = logging.getLogger(__name__)
AUTO = "auto"
"""``runner.guard_every``: as often as the method's hyperparameters say (``GUARD_EVERY``), or never."""

_NUMBERS = {str: (None, float)}
STATE = {"position": int, "weights": {str: object}, "method": {str: object}, "masks": object}
STATE |= {"random": {str: object}, "checkpoints": [{str: object}], "seconds": _NUMBERS, "memory": _NUMBERS}
STATE |= {"resumed": int, "before": str, "edits": str, "guard": [{str: object}], "ends": (None, int)}
STATE |= {"log": {"entries": (None, int), "head": (None, str)}}
"""Form of a saved state, see ``utils.schema``."""


@dataclass(frozen=True)
class RunStorage:
    """Everything that a run writes: its result files, its saved states, the log of its edits.

    ``untouched``: the ``before.json`` of another run on the same edits, instead of measuring again.
    """

    files: RunFolder
    states: StateFolder
    log: RunLog
    untouched: Path | None = None


class Engine:
    """One run; ``settings`` are ``cli.settings.Settings``, ``watch`` has the seconds spent so far (such as
    for loading). ``ended_by``: what the guard read when it rolled the run back. ``callbacks`` are told what
    happens.

    ``lines`` and ``checkpoints`` are the objects of ``edits.jsonl`` and ``checkpoints.jsonl`` so far;
    ``resumed`` is how often the run was continued.
    """

    def __init__(
        self,
        editor: ModelEditor,
        stream: Stream,
        measurer: Measurer,
        storage: RunStorage,
        settings,
        watch: Stopwatch | None = None,
        ended_by: Reading | None = None,
        callbacks: Callbacks | None = None,
    ):
        self.editor, self.stream, self.measurer, self.storage = editor, stream, measurer, storage
        self.files, self.settings, self.runner = storage.files, settings, settings.runner
        self.watch = Stopwatch() if watch is None else watch
        self.progress = Progress(editor.method.name, len(stream), self.runner.quiet)
        self.masks, self.guard = MaskCounts(), Guard(None)
        self.callbacks = Callbacks() if callbacks is None else callbacks
        self.readings: list[dict] = []
        self._ended_by, self._is_cut = ended_by, False
        self._earlier_peaks: dict[str, float | None] = {}
        reset_peak_memory()
        self.lines: list[dict] = []
        self.checkpoints: list[dict] = []
        self.resumed = 0
        live = [i for i in range(len(stream)) if i not in stream.superseded_at_end]
        self._asked = evenly(live, settings.evaluation.answers)  # edits whose answers are kept in words
        self._final: list[dict] | None = None  # at the last checkpoint: what it adds to each line
        self._saved_at, self._saved_edits = time.monotonic(), 0

    def run(self) -> RunResults:
        """Go through the stream; afterwards all files but ``summary.json`` are complete."""
        self._begin()
        checkpoints = cut(self.runner.checkpoints, len(self.stream))
        self.progress.begin(len(self.lines))
        try:
            while len(self.lines) < len(self.stream):
                first = len(self.lines)
                self._edit_batch(self.stream.batch(first))
                is_checkpoint = any(first < count <= len(self.lines) for count in checkpoints)
                saves = is_checkpoint or self._save_is_due()
                if self.guard.due(first, len(self.lines)) or (saves and self.guard.rolls_back):
                    self._ask_canaries()
                    saves = saves or self.guard.rolls_back
                if is_checkpoint:
                    self._measure_checkpoint(first)
                if saves:
                    self._save()
        finally:
            self.progress.end()
        if self.checkpoints[-1]["edits"] < len(self.lines):  # the guard ended the run between checkpoints
            self._measure_checkpoint(self.checkpoints[-1]["edits"])
        self._finish()
        fingerprints = self.editor.weights.fingerprints()
        repeats = self.stream.repeats()
        return RunResults(self.lines, self.checkpoints, repeats, self.resumed, fingerprints, self.readings)

    # -- beginning and end -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        state = self.storage.states.load()
        before = read_before(self.files, None if state is None else state["before"])  # content of before.json
        if before is None and self.storage.untouched is not None:
            write_text(self.files.before, self.storage.untouched.read_text(encoding="utf-8"))
            before = read_before(self.files, None)
        if before is None:
            with self.watch.measure("measure before"):
                before = self.measurer.measure_untouched(self.editor.model)
                before["answers"] = self.measurer.read_answers(self.editor.model, self._asked)
            before["beside"] |= self._measure_ability(0)
            write_text(self.files.before, as_json(before))
        self.measurer.load(before)
        self.measurer.asked = self.editor.method.asked
        self.guard = self._make_guard()
        prompt_tok = prompt_tokenizer_of(self.editor.tok, self.editor.hparams)
        self.guard.begin(self.editor.model, self.editor.tok, prompt_tok)
        self._before, self._before_digest = before, before_digest(before)
        if state is None:
            self._add_checkpoint(means(before["metrics"]) | before["beside"], {})
            self.files.write_edits([])
            self.files.write_guard([])
            self.storage.log.begin()
            self._look_ahead()
            seed_everything(self.settings.seed)
        else:
            self._resume(state)
        self.files.write_checkpoints(self.checkpoints)
        self.callbacks.begin(self.files, self.lines, self.checkpoints, self.readings)

    def _make_guard(self) -> Guard:
        runner, measurer, every = self.runner, self.measurer, self.runner.guard_every
        if every == AUTO:
            every = getattr(self.editor.hparams, "GUARD_EVERY", None)
        facts = [fact for fact, is_known in zip(measurer.reference.facts, measurer.knows_fact) if is_known]
        limits = Limits(runner.guard_retained, runner.guard_perplexity, runner.guard_rel)
        texts, size = measurer.reference.texts, measurer.options.batch_size
        return Guard(every, evenly(facts, FACTS), texts, limits, runner.guard_action, size)

    def _look_ahead(self) -> None:
        """Say before a long run how far its edits will reach, and which of them disturb each other."""
        least = self.runner.forecast_from
        if least is None or len(self.stream) < least:
            return
        with self.watch.measure("forecast"):
            result = outlook(self.editor, self.stream)
        if result is not None:
            self.files.write_forecast(to_json(result))
            for sentence in sentences(result, self.stream):
                self.progress.say(sentence)

    def _resume(self, state: dict[str, Any]) -> None:
        lines = read_lines(self.files, state["edits"], state["position"])
        folder = self.storage.states.folder
        with damage_is(StateError, f"{folder}: the newest state is damaged; remove it to begin anew"):
            self.editor.load_state(state)
            self.masks.load_state(state["masks"])
            for checkpoint in state["checkpoints"]:
                csv_row(checkpoint)  # which is written when the next one is reached
            set_random_states(state["random"])  # an error comes before any file is changed
        self.storage.log.resume(state["log"])
        self._earlier_peaks = state["memory"]
        self.lines, self.checkpoints, self.resumed = lines, state["checkpoints"], state["resumed"] + 1
        spent, earlier = self.watch.seconds, state["seconds"]
        parts = {**earlier, **spent}
        self.watch.seconds = {part: spent.get(part, 0.0) + earlier.get(part, 0.0) for part in parts}
        self._saved_edits = len(lines)
        self.files.write_edits(lines)
        self.readings = state["guard"]
        if self._ended_by is not None:
            self.readings = [*self.readings, self._ended_by.to_dict()]
        self.files.write_guard(self.readings)
        if state["ends"] is not None:
            self.end_at(state["ends"])
        self.progress.say(f"continues after edit {len(lines)} of {len(self.stream)}")
        set_random_states(state["random"])

    def _finish(self) -> None:
        if self._final is None:  # the process before was interrupted after the last checkpoint
            with self.watch.measure("measure checkpoints"):
                self._final = self._measure_final()
        for line, values in zip(self.lines, self._final):
            line.update(values, superseded_by=self.stream.superseded_at_end.get(line["edit"]))
        self.files.write_edits(self.lines)
        weights = self.editor.weights
        if self.runner.keep_weights and weights.restorable:
            with refusing(self.files.weights):
                save_tensors(self.files.weights, weights.current(), {"method": self.editor.method.name})

    # -- edits -----------------------------------------------------------------------------------------------

    def _edit_batch(self, positions: range) -> None:
        start = time.perf_counter()
        result = self.editor.edit([self.stream.requests[i] for i in positions])
        seconds = time.perf_counter() - start
        self.watch.add("edit", seconds)
        stops = result.failure is not None and self.runner.on_failure == "stop"
        if stops:
            self._save()  # without the failed batch, so that the same command tries it again
        immediate: list[dict | None] = [None] * len(positions)
        if self.settings.evaluation.immediate:
            with self.watch.measure("measure immediately"):
                immediate = self.measurer.measure_edits(self.editor.measured_model, positions)
        self._record_batch(positions, result, seconds, immediate)
        if result.failure is not None:
            LOG.warning("edit %d failed and was rolled back: %s", positions.start, result.failure)
        if stops:
            raise NeuronEditError(
                f"edit {positions.start} failed and was rolled back: {result.failure}. The same command "
                "tries it again; runner.on_failure=continue leaves it and goes on"
            )
        self.progress.show(len(self.lines), *self._scores())

    def _record_batch(
        self, positions: range, result: BatchResult, seconds: float, immediate: list[dict | None]
    ) -> None:
        if result.failure is None:
            with self.watch.measure("log"):
                self.storage.log.add(result.records, positions, finite(immediate))
        self.masks.add(result.records)
        metrics = {"before": [self._before["metrics"][i] for i in positions], "immediate": immediate}
        lines = edit_lines(self.stream, positions, result, seconds, metrics)
        self.files.append_edits(lines)
        self.lines += lines
        self.callbacks.edits(lines)

    def _ask_canaries(self) -> None:
        count = len(self.lines)
        with self.watch.measure("measure guard"):
            requests = self.stream.requests[:count]
            reading = self.guard.read(self.editor.measured_model, self.editor.tok, count, requests)
        self.readings.append(reading.to_dict())
        self.files.write_guard(self.readings)
        self.callbacks.guard(self.readings[-1])
        if not reading.breaches:
            return
        if self.guard.rolls_back:
            raise RollBack(reading, self._saved_edits)
        LOG.warning("guard %s", reading)
        if self.runner.guard_action == "stop":
            self.progress.say(f"ends after edit {count}: {'; '.join(reading.breaches)}")
            self.end_at(count)

    def end_at(self, count: int) -> None:
        """Let the run end after so many edits, with this part of its stream."""
        self.stream, self._is_cut = self.stream.first(count), True

    # -- measuring -------------------------------------------------------------------------------------------

    def _measure_checkpoint(self, first: int) -> None:
        weights = self.editor.weights
        with self.watch.measure("measure checkpoints"):
            self._final = self._measure_final()
            self.files.write_final(len(self.lines), self._final)
            final = means([values["final"] for values in self._final if values["final"] is not None])
            final |= self.measurer.measure_side_effects(self.editor.measured_model)
            drift = drifts(self.editor.model, weights.current(), weights.base)
        final |= self._measure_ability(first)
        self._add_checkpoint(final, drift)
        scores = final.get("rewrite_acc"), final.get("loc"), count_failed(self.lines)
        self.progress.show_checkpoint(len(self.lines), *scores)

    def _measure_final(self) -> list[dict]:
        """What the model as it is adds to the line of every edit so far.

        ``final`` has the edit's metrics, None where a later edit superseded it. At the end of the stream,
        some lines also get ``answers``.
        """
        model, superseded = self.editor.measured_model, self.stream.superseded(len(self.lines))
        added: list[dict] = [{"final": None} for _ in self.lines]
        positions = [i for i in range(len(self.lines)) if i not in superseded]
        for position, metrics in zip(
            positions, self.measurer.measure_edits(model, positions, generated=True)
        ):
            added[position]["final"] = metrics
        if len(self.lines) == len(self.stream):
            asked = [position for position in self._asked if position < len(self.lines)]
            answers = self.measurer.read_answers(model, asked)
            for position, before, final in zip(asked, self._before["answers"], answers):
                added[position]["answers"] = compare_answers(before, final)
        return added

    def _measure_ability(self, first: int) -> dict:
        if not self.measurer.ability_due(first, len(self.lines)):
            return {}
        with self.watch.measure("measure ability"):
            return self.measurer.measure_ability(self.editor.measured_model)

    def _add_checkpoint(self, final: dict, drift: dict) -> None:
        costs = {"seconds": self.watch.seconds, "memory": peak_memory(self._earlier_peaks)}
        self.checkpoints.append(checkpoint_line(self.lines, self.stream, self.masks, final, drift, costs))
        self.files.write_checkpoints(self.checkpoints)
        self.callbacks.checkpoint(self.checkpoints[-1])

    def _scores(self) -> tuple[float | None, float | None, int]:
        """Rel and Loc of the last 100 edits (else of the last checkpoint), and the number of failed edits."""
        last = self.checkpoints[-1]
        values = immediate_means(self.lines[-100:]) or (last["final"] if last["edits"] else {})
        return values.get("rewrite_acc"), values.get("loc"), count_failed(self.lines)

    # -- state -----------------------------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        edits, minutes = self.runner.save_every_edits, self.runner.save_every_minutes
        return (edits is not None and len(self.lines) - self._saved_edits >= edits) or (
            minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        )

    def _save(self) -> None:
        """Write the state; nothing in it depends on when, or on whether it was written before."""
        if not self.editor.weights.restorable:
            return
        with self.watch.measure("save"):
            state = {"position": len(self.lines), **self.editor.saved_state()}
            state |= {"masks": self.masks.saved_state(), "random": random_states()}
            state |= {"checkpoints": self.checkpoints, "seconds": dict(self.watch.seconds)}
            state |= {"memory": peak_memory(self._earlier_peaks), "resumed": self.resumed}
            state |= {"before": self._before_digest, "edits": edits_digest(self.lines)}
            state |= {"guard": self.readings, "ends": len(self.stream) if self._is_cut else None}
            self.storage.states.save(state | {"log": self.storage.log.saved_state()})
        self._saved_at, self._saved_edits = time.monotonic(), len(self.lines)
