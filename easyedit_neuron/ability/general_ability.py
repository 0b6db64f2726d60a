"""Measure lm-eval's tasks on a model in memory, leaving model, tokenizer and random state as they are."""

import contextlib
import copy
import io
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..arch.view import eval_mode
from ..errors import HparamsError
from ..utils.random_state import random_states, seed_everything, set_random_states
from . import tasks as task_loader

SEED = 1234  # of the shots, and of tasks that sample


class GeneralAbility:
    """Tasks of general ability, loaded once and measured on any model.

    Args:
        tasks, folder, run_code: see ``tasks.load``, also for the errors.
        limit: number of documents of every task (and subject of MMLU, task of BBH); None: all.
        max_new_tokens: longest generated answer; None: what the task says (gsm8k, bbh 256, humaneval 1,024).
        quiet: hide lm-eval's progress bars and remarks.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        folder: str | Path | None = None,
        limit: int | None = None,
        batch_size: int = 64,
        run_code: bool = False,
        max_new_tokens: int | None = None,
        quiet: bool = True,
    ):
        for name, value in (("limit", limit), ("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
            if value is not None and value < 1:
                raise HparamsError(f"field 'ability_{name}': must be at least 1, not {value}")
        self.tasks, self.limit = task_loader.canonical(tasks), limit
        self.batch_size, self.quiet = batch_size, quiet
        self._run_code = task_loader.code_allowed(run_code)
        with self._quiet_lm_eval():
            self._loaded = task_loader.load(self.tasks, folder, run_code)
        for task in self._loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config("num_fewshot", 0)
            if max_new_tokens is not None and task.OUTPUT_TYPE == "generate_until":
                task.set_config("generation_kwargs", {"max_gen_toks": max_new_tokens}, update=True)

    def check(self, model: torch.nn.Module, tok) -> None:
        """``HparamsError`` where the model's context has no room for the answers that the tasks ask for."""
        with self._quiet_lm_eval():
            self._wrap(model, tok)

    def measure(self, model: torch.nn.Module, tok) -> dict[str, dict[str, Any]]:
        """Measure all tasks on the model; a group without a metric of its own is replaced by its tasks.

        Returns:
            A row by task: ``metric`` (name of the primary), ``value``, ``higher_is_better``, ``documents``
            (their number), ``shots``, ``metrics`` ({"name,filter": value}), ``outcomes`` (of each document,
            None for a metric that is no mean over documents); for groups also ``tasks`` ({name: {"value",
            "documents"}}). Values are shares (0 to 1) or perplexities.
        """
        states = random_states()
        try:
            from lm_eval.evaluator import evaluate

            with (
                self._quiet_lm_eval(),
                task_loader.code_environment(self._run_code),
                eval_mode(model),
                torch.no_grad(),
            ):
                seed_everything(SEED)
                for task in self._loaded["tasks"].values():
                    task.set_fewshot_seed(SEED)
                options = {"limit": self.limit, "confirm_run_unsafe_code": self._run_code}
                options |= {"bootstrap_iters": 0, "log_samples": True}
                results = evaluate(lm=self._wrap(model, tok), task_dict=self._loaded, **options)
            return {name: row for task in self.tasks for name, row in self._rows(task, results).items()}
        finally:  # lm-eval draws random numbers even where it looks up names
            set_random_states(states)

    def _wrap(self, model: torch.nn.Module, tok):
        """lm-eval's view of the model and of a copy of the tokenizer, which it changes."""
        from .lm import BoundedLM  # imports lm-eval, which takes seconds

        with eval_mode(model):
            lm = BoundedLM(pretrained=model, tokenizer=copy.deepcopy(tok), batch_size=self.batch_size)
        for name, task in self._loaded["tasks"].items():
            if task.OUTPUT_TYPE == "generate_until":
                answer_tokens = (task.config.generation_kwargs or {}).get("max_gen_toks", lm.max_gen_toks)
                if answer_tokens >= lm.max_length:
                    raise HparamsError(
                        f"field 'ability_max_new_tokens': {name} lets the model write {answer_tokens} "
                        f"tokens, and it has {lm.max_length} positions for prompt and answer together; set a "
                        "smaller number, or leave the task out"
                    )
        return lm

    @contextlib.contextmanager
    def _quiet_lm_eval(self) -> Iterator[None]:
        loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "evaluate")]
        levels = [logger.level for logger in loggers]
        with contextlib.ExitStack() as stack:
            if self.quiet:
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
                stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            try:
                yield
            finally:
                for logger, level in zip(loggers, levels):
                    logger.setLevel(level)

    def _rows(self, task: str, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
        group = self._loaded.get("groups", {}).get(task)
        if group is None:
            return {task: self._row(task, [task], results)}
        members = [member.task_name for member in group.get_all_tasks()]
        rows = {member: self._row(member, [member], results) for member in members}
        if not _metrics(results["results"].get(task, {})):
            return rows
        values = {member: {key: row[key] for key in ("value", "documents")} for member, row in rows.items()}
        return {task: {**self._row(task, members, results), "tasks": values}}

    def _row(self, name: str, members: list[str], results: dict[str, Any]) -> dict[str, Any]:
        metrics = _metrics(results["results"][name])
        primary = task_loader.PRIMARY_METRICS.get(task_loader.benchmark_of(name))
        primary = primary if primary in metrics else next(iter(metrics))
        metric = primary.partition(",")[0]
        return {
            "metric": metric,
            "value": metrics[primary],
            "higher_is_better": results["higher_is_better"].get(members[0], {}).get(metric, True),
            "documents": sum(results["n-samples"][member]["effective"] for member in members),
            "shots": self._loaded["tasks"][members[0]].get_config("num_fewshot"),
            "metrics": metrics,
            "outcomes": _outcomes(results["samples"], members, primary, metrics[primary]),
        }


def _outcomes(
    samples: dict[str, list[dict[str, Any]]], members: list[str], primary: str, value: float
) -> list[float] | None:
    """The metric of every document of the tasks, in their order; None unless ``value`` is their mean."""
    metric, _, filtered = primary.partition(",")
    own = [
        sample.get(metric)
        for member in members
        for sample in sorted(samples[member], key=lambda sample: sample["doc_id"])
        if sample.get("filter", filtered) == filtered
    ]
    if not own or not all(isinstance(outcome, (int, float)) for outcome in own):
        return None
    outcomes = [float(outcome) for outcome in own]
    return outcomes if math.isclose(sum(outcomes) / len(outcomes), value, abs_tol=1e-9) else None


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in row.items()
        if "," in name and "_stderr" not in name and isinstance(value, (int, float))
    }
