"""A small search over a method's settings, one field at a time, within a budget of time."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import EditError, HparamsError
from ..hyperparameters.base import HyperParams
from ..studies.edit_bench import EditBenchmark
from .layers import score_of

LOG = logging.getLogger(__name__)
GAIN = 0.005
"""Least gain in score for which a setting is changed."""
SMALLEST_POWER = 0.2
"""Steps are first a field's whole factor, then its square root, then the root of that."""


@dataclass(frozen=True)
class Factor:
    """A field that is multiplied and divided by ``factor``."""

    name: str
    factor: float


_Z = (Factor("v_lr", 2.0), Factor("v_num_grad_steps", 1.5), Factor("clamp_norm_factor", 2.0))
_RIDGE, _NULL = Factor("mom2_update_weight", 4.0), Factor("nullspace_threshold", 4.0)
_NULL_SPACE = (_NULL, Factor("L2", 4.0), *_Z)
_FT = (Factor("lr", 3.0), Factor("num_steps", 2.0))
SPACES: dict[str, tuple[Factor, ...]] = {
    "FT": _FT,
    "FiNE": (Factor("lr", 2.0), Factor("neuron_num", 2.0), Factor("beta", 3.0)),
    "KNE": (Factor("lr", 2.0), Factor("share_of_parameters", 3.0), Factor("num_steps", 2.0)),
    "Lasting": (*_Z, Factor("threshold", 1.4)),
    "ROME": (*_Z, Factor("v_weight_decay", 10.0)),
    "nullspace": _NULL_SPACE,
    "covariance": (_RIDGE, *_Z),
    "EasyEdit:FT": _FT,
    "EasyEdit:LoRA": (*_FT, Factor("rank", 2.0)),
    "EasyEdit:GRACE": (Factor("eps", 2.0), Factor("edit_lr", 3.0), Factor("n_iter", 2.0)),
    "EasyEdit:WISE": (Factor("edit_lr", 3.0), Factor("n_iter", 2.0), Factor("mask_ratio", 2.0)),
    "EasyEdit:ULTRAEDIT": (Factor("lr", 10.0),),
    "EasyEdit:EMMET": (_RIDGE, *_Z, Factor("emmet_lambda", 10.0)),
    "EasyEdit:SPHERE": (Factor("suppression_strength", 1.4), Factor("cumulative_ratio", 1.4), *_NULL_SPACE),
    "EasyEdit:AlphaEdit": _NULL_SPACE,
    "EasyEdit:MEMIT": (_RIDGE, *_Z),
    "EasyEdit:ROME": _Z,
}
"""Method, or what a locate-then-edit method preserves -> its fields, the most telling first."""


def space_of(hparams: Any) -> tuple[Factor, ...]:
    """The fields that are searched for a method; ``HparamsError`` for a method without such a list."""
    names = [f"EasyEdit:{hparams.alg_name}"]
    if isinstance(hparams, HyperParams):
        names = [hparams.ALG_NAME, getattr(hparams, "preserves", "")]
    for name in names:
        if name in SPACES:
            return SPACES[name]
    raise HparamsError(f"there is no list of fields to tune for {names[0]!r}: {', '.join(SPACES)}")


def changed(hparams: Any, changes: dict[str, Any]) -> Any:
    """A copy of ours or EasyEdit's hyperparameters with some fields set; fields that it lacks are left
    out."""
    if isinstance(hparams, HyperParams):
        return hparams.override(changes)
    names = {entry.name for entry in dataclasses.fields(hparams)}
    return dataclasses.replace(hparams, **{name: changes[name] for name in names & changes.keys()})


@dataclass(frozen=True)
class Trial:
    """Sequential edits under one setting.

    Attributes:
        changes: fields that differ from the start.
        values: ``rel``, ``gen``, ``loc`` and ``fluent`` (perplexity before / after, at most 1), and
            ``perplexity``, ``failed`` and ``seconds`` an edit.
        score: harmonic mean of the first four.
    """

    changes: dict[str, Any]
    values: dict[str, Any]
    score: float


@dataclass
class Search:
    """Trials of one method on one set of edits; ``trials`` has all of them in their order.

    Args:
        bench: model, edits and text.
        start: the setting to begin with.
        perplexity: of the untouched model on the bench's text.
        deadline: ``time.monotonic()`` after which no trial begins.
        before_trial: called with the hyperparameters of a trial, on the untouched model.
        after_trial: called with every trial.
    """

    bench: EditBenchmark
    start: Any
    perplexity: float
    deadline: float
    before_trial: Callable[[HyperParams], None] = lambda hparams: None
    after_trial: Callable[[Trial], None] = lambda trial: None
    trials: list[Trial] = field(default_factory=list)

    def run(self, candidates: Iterable[dict[str, Any]] = ()) -> Trial:
        """Try the start, then ``candidates``, then one field after the other; return the best trial.

        A field is moved in the direction that gains, as long as it gains. After a round in which a field
        moved, another round follows with steps of the square root.
        """
        best = self._try({})
        for changes in candidates:
            if self._is_time():
                best = self._better(best, changes)
        power, moved = 1.0, True
        while moved and power > SMALLEST_POWER:
            moved = False
            for factor in space_of(self.start):
                for direction in (1, -1):
                    reached = self._follow(best, factor, direction * power)
                    if reached is not best:
                        best, moved = reached, True
                        break
            power /= 2
        return best

    def _follow(self, best: Trial, factor: Factor, power: float) -> Trial:
        """Move one field in one direction as long as it gains."""
        while self._is_time():
            trial = self._better(best, self._moved(best, factor, power))
            if trial is best:
                break
            best = trial
        return best

    def _better(self, best: Trial, changes: dict[str, Any]) -> Trial:
        trial = self._try(changes)
        return trial if trial.score > best.score + GAIN else best

    def _is_time(self) -> bool:
        return time.monotonic() < self.deadline

    def _moved(self, best: Trial, factor: Factor, power: float) -> dict[str, Any]:
        value = best.changes.get(factor.name, getattr(self.start, factor.name))
        moved = value * factor.factor**power
        rounded = max(1, round(moved)) if isinstance(value, int) else float(f"{moved:.2g}")
        return best.changes | {factor.name: rounded}

    def _try(self, changes: dict[str, Any]) -> Trial:
        earlier = next((trial for trial in self.trials if trial.changes == changes), None)
        if earlier is not None:
            return earlier
        started = time.monotonic()
        try:
            hparams = changed(self.start, changes)
            self.before_trial(hparams)
            measured = self.bench.measure(hparams, sequential=True)
        except (HparamsError, EditError) as problem:  # out of range, or nothing is left to change
            LOG.info("%s: %s", changes, problem)
            trial = Trial(changes, {"failed": len(self.bench.requests), "problem": str(problem)}, 0.0)
        else:
            fluent = min(1.0, self.perplexity / measured["perplexity"])
            names = {"rel": "edit_success", "gen": "generality", "loc": "locality"}
            shares = {short: measured[name] for short, name in names.items()} | {"fluent": fluent}
            seconds = (time.monotonic() - started) / len(self.bench.requests)
            beside = {"perplexity": measured["perplexity"], "failed": measured["failed"], "seconds": seconds}
            trial = Trial(changes, shares | beside, score_of(*shares.values()))
        self.trials.append(trial)
        self.after_trial(trial)
        return trial


def layer_candidates(layer: int, counts: Iterable[int] = (1, 3, 5)) -> list[dict[str, Any]]:
    """Windows of layers that end at ``layer``."""
    return [{"layers": list(range(layer - count + 1, layer + 1))} for count in counts if count <= layer + 1]
