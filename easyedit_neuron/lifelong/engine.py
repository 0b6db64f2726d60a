"""The loop: edit, measure, save, until the stream is at its end; from wherever the folder says that it
was."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from ..errors import NeuronEditError
from ..utils.fingerprint import tensors_fingerprint
from ..utils.io import refusing, save_tensors, write_text
from . import layer_statistics as layers
from .checkpoint import StateFolder, random_states, seed_everything, set_random_states
from .drift import drifts
from .measurer import Edits, Probes, means
from .meters import Clock, Memory
from .method import FATAL, Method
from .progress import Progress
from .resume import before_digest, edits_digest, read_before, read_lines
from .run_folder import RunFolder, as_json, finite
from .runlog import RunLog
from .stream import Stream, cut

LOG = logging.getLogger(__name__)


class Engine:
    """One run in one folder.

    Args:
        method, hparams, model, tok: what edits what.
        stream: the edits.
        edits, probes: what is measured.
        options, evaluation: settings of the runner and of the evaluation.
        seed: of the global random generators at the first edit.
        files, state: the folder; it must belong to this run.
        clock, progress: seconds so far, and the terminal.
        fingerprint: of the untouched model, for the log of the edits.

    Attributes:
        lines, checkpoints: what has been written to the files of those names.
        resumed: how often the run was continued.
    """

    def __init__(
        self,
        method: Method,
        hparams,
        model: torch.nn.Module,
        tok,
        stream: Stream,
        edits: Edits,
        probes: Probes,
        options,
        evaluation,
        seed: int,
        files: RunFolder,
        state: StateFolder,
        clock: Clock,
        progress: Progress,
        fingerprint: str | None = None,
    ):
        self.method, self.hparams, self.model, self.tok, self.stream = method, hparams, model, tok, stream
        self.edits, self.probes, self.options, self.evaluation, self.seed = (
            edits,
            probes,
            options,
            evaluation,
            seed,
        )
        self._superseded = stream.superseded()
        self.files, self.state, self.clock, self.progress = files, state, clock, progress
        self.edited = model  # what is measured: a method may return another object
        self.weights = method.weights(model)
        self.log = RunLog(files.log, options.edit_log, fingerprint, -(-len(stream) // stream.batch_size))
        self.masks, self.memory = layers.MaskCounts(), Memory()
        self.lines: list[dict] = []
        self.checkpoints: list[dict] = []
        self.resumed = 0
        self._before: list[dict] = []
        self._last: list[dict | None] | None = None  # metrics of every edit at the last checkpoint
        self._saved_at = time.monotonic()
        self._saved_edits = 0

    def run(self) -> None:
        """Goes through the stream; afterwards ``lines`` and ``checkpoints`` are complete, and on the disk."""
        tree = self.state.load()
        self._begin(tree)
        due = cut(self.options.checkpoints, len(self.stream))
        self.progress.begin(len(self.lines))
        try:
            while len(self.lines) < len(self.stream):
                first = len(self.lines)
                self._batch(self.stream.batch(first))
                done = len(self.lines)
                if any(first < count <= done for count in due):
                    self._checkpoint(first)
                    self._save()
                elif self._save_is_due():
                    self._save()
        finally:
            self.progress.end()
        self._finish()

    # -- beginning and end
    # ---------------------------------------------------------------------------------------------

    def _begin(self, tree: dict[str, Any] | None) -> None:
        known = read_before(self.files, None if tree is None else tree["before"])
        if known is None:
            with self.clock("measure before"):
                known = {
                    "metrics": self.edits.begin(self.model),
                    "reference": self.edits.reference,
                    "known": self.probes.begin(),
                    "beside": finite(self.probes.measure(self.model)),
                }
            known["beside"] |= self._ability(0, 0)
            write_text(self.files.before, as_json(known))
        self._before_digest = before_digest(known)
        self.edits.reference, self._before = known["reference"], known["metrics"]
        self.probes.begin(known["known"])
        if tree is None:
            self._add(0, means(known["metrics"]) | known["beside"], {})
            self.files.write_edits([])
            self.log.begin()
            seed_everything(self.seed)
        else:
            self._resume(tree)
        self.files.write_checkpoints(self.checkpoints)

    def _resume(self, tree: dict[str, Any]) -> None:
        lines = read_lines(self.files, tree["edits"], tree["position"])
        self.log.begin(tree["log"])
        self.method.load(self.model, self.tok, self.hparams, tree["method"])
        self.weights.load(tree["weights"])
        self.masks.load(tree["masks"])
        self.memory.load(tree["memory"])
        self.lines, self.checkpoints, self.resumed = lines, tree["checkpoints"], tree["resumed"] + 1
        self.clock.seconds = {
            name: self.clock.seconds.get(name, 0.0) + tree["seconds"].get(name, 0.0)
            for name in [*tree["seconds"], *self.clock.seconds]
        }
        self._saved_edits = len(lines)
        self.files.write_edits(lines)
        self.progress.say(f"going on after edit {len(lines)} of {len(self.stream)}")
        set_random_states(tree["random"])

    def _finish(self) -> None:
        if self._last is None:
            with self.clock("measure checkpoints"):
                self._last = self._final()
        for line, metrics in zip(self.lines, self._last):
            line["final"] = metrics
        self.files.write_edits(self.lines)
        if self.options.keep_weights and self.weights.whole:
            with refusing(self.files.weights):
                save_tensors(self.files.weights, self.weights.now(), {"method": self.method.name})

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of every edited weight."""
        return {
            name: tensors_fingerprint([(name, value)]) for name, value in sorted(self.weights.now().items())
        }

    # -- edits
    # -----------------------------------------------------------------------------------------------------------

    def _batch(self, positions: range) -> None:
        requests = [self.stream.requests[i] for i in positions]
        start = time.perf_counter()
        records, reason = self._edit(requests)
        seconds = time.perf_counter() - start
        self.clock.add("edit", seconds)
        if reason is not None and self.options.on_failure == "stop":
            self._save()
        soon: list[dict | None] = [None] * len(requests)
        if self.evaluation.immediate:
            with self.clock("measure immediately"):
                soon = self.edits.measure(self.edited, positions)
        if reason is None:
            with self.clock("log"):
                self.log.add(records, positions, finite(soon))
        self.masks.add(records)
        about = {
            "batch": positions.start // self.stream.batch_size,
            "status": "ok" if reason is None else "failed",
            "reason": reason,
            "layers": layers.of_records(records),
            "seconds": seconds / len(requests),
            "stages_of_batch": layers.stages_of(records),
        }
        lines = [
            finite(
                {
                    "edit": i,
                    "record": self.stream.records[i],
                    "request": request,
                    "superseded_by": self._superseded.get(i),
                    "before": self._before[i],
                    "immediate": metrics,
                    "final": None,
                    **about,
                }
            )
            for i, request, metrics in zip(positions, requests, soon)
        ]
        self.files.append_edits(lines)
        self.lines += lines
        if reason is not None:
            LOG.warning("edit %d failed and was rolled back: %s", positions.start, reason)
            if self.options.on_failure == "stop":
                raise NeuronEditError(
                    f"edit {positions.start} failed and was rolled back: {reason}. The same command tries it "
                    "again; runner.on_failure=continue leaves it and goes on"
                )
        self.progress.show(len(self.lines), *self._scores())

    def _edit(self, requests: list[dict]) -> tuple[list, str | None]:
        """Records of a batch, and why it failed: then everything is as it was before."""
        begun, originals = self.method.begin(), None
        try:
            applied = self.method(self.model, self.tok, requests, self.hparams)
            originals = applied.originals
            self.weights.accept(originals)
        except FATAL:
            raise
        except Exception as problem:
            LOG.debug("failed edit", exc_info=True)
            reason = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        else:
            self.edited = applied.model
            if applied.model is not self.model:
                self.weights.whole = False
            return applied.records, None
        # outside of the handler: the traceback holds the tensors of the failed edit
        self.weights.undo(originals)
        self.method.undo(begun)
        return [], reason

    # -- checkpoints
    # ---------------------------------------------------------------------------------------------------

    def _final(self) -> list[dict | None]:
        """Metrics of every edit so far on the model as it is; None for those that a later one superseded."""
        count = len(self.lines)
        superseded = self.stream.superseded(count)
        asked = [i for i in range(count) if i not in superseded]
        found: list[dict | None] = [None] * count
        for i, metrics in zip(asked, self.edits.measure(self.edited, asked, self.evaluation.exact_match)):
            found[i] = metrics
        return found

    def _ability(self, first: int, done: int) -> dict:
        if not self.probes.ability_due(first, done, len(self.stream)):
            return {}
        with self.clock("measure ability"):
            return finite(self.probes.measure_ability(self.edited))

    def _checkpoint(self, first: int) -> None:
        with self.clock("measure checkpoints"):
            self._last = self._final()
            final = means([metrics for metrics in self._last if metrics is not None]) | self.probes.measure(
                self.edited
            )
            moved = drifts(self.model, self.weights.now(), self.weights.base)
        final |= self._ability(first, len(self.lines))
        self._add(len(self.lines), final, moved)
        self.progress.checkpoint(len(self.lines), final.get("rewrite_acc"), final.get("loc"), self._failed)

    def _add(self, count: int, final: dict, moved: dict) -> None:
        soon = means([line["immediate"] for line in self.lines if line["immediate"] is not None])
        stages: dict[str, float] = {}
        for line in self.lines:
            for stage, spent in (
                line["stages_of_batch"].items() if line["edit"] % self.stream.batch_size == 0 else ()
            ):
                stages[stage] = stages.get(stage, 0.0) + spent
        self.checkpoints.append(
            finite(
                {
                    "edits": count,
                    "failed": self._failed,
                    "superseded": len(self.stream.superseded(count)),
                    "final": final,
                    "immediate": soon,
                    "by_kind": {
                        group: {"final": final.get(group, {}), "immediate": soon.get(group, {})}
                        for group in ("locality", "portability")
                    },
                    "drift": moved,
                    "layers": layers.summary(self.lines, self.masks),
                    "seconds": dict(self.clock.seconds),
                    "stages": stages,
                    "evaluation_share": self.clock.evaluation_share,
                    "memory": self.memory.peaks(),
                }
            )
        )
        self.files.write_checkpoints(self.checkpoints)

    @property
    def _failed(self) -> int:
        return sum(line["status"] == "failed" for line in self.lines)

    def _scores(self) -> tuple[float | None, float | None, int]:
        """Rel and Loc so far, for the terminal: of the immediate protocol, or of the last checkpoint."""
        soon = means([line["immediate"] for line in self.lines[-100:] if line["immediate"] is not None])
        found = soon or (self.checkpoints[-1]["final"] if self.checkpoints[-1]["edits"] else {})
        return found.get("rewrite_acc"), found.get("loc"), self._failed

    # -- state
    # -----------------------------------------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        edits, minutes = self.options.save_every_edits, self.options.save_every_minutes
        return (
            edits is not None
            and len(self.lines) - self._saved_edits >= edits
            or minutes is not None
            and time.monotonic() - self._saved_at >= 60 * minutes
        )

    def _save(self) -> None:
        """Writes the state; nothing in it depends on when, or on whether it was written before."""
        if not self.weights.whole:
            return
        with self.clock("save"):
            self.state.save(
                {
                    "position": len(self.lines),
                    "weights": self.weights.now(),
                    "method": self.method.saved(self.model),
                    "masks": self.masks.saved(),
                    "random": random_states(),
                    "checkpoints": self.checkpoints,
                    "seconds": dict(self.clock.seconds),
                    "memory": self.memory.peaks(),
                    "resumed": self.resumed,
                    "before": self._before_digest,
                    "edits": edits_digest(self.lines),
                    "log": self.log.saved(),
                }
            )
        self._saved_at, self._saved_edits = time.monotonic(), len(self.lines)
