"""Tasks that have been loaded once, measured on any model at any time; nothing of model, tokenizer or random
state is changed."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..arch.frozen import eval_mode
from ..errors import HparamsError
from ..utils.random_state import random_states, seed_everything, set_random_states
from . import tasks as known_tasks

SEED = 1234  # of the shots, and of tasks that sample


class Ability:
    """Some tasks.

    Args:
        tasks: names, see :func:`.tasks.load`.
        folder: local documents of the papers' tasks; None: lm-eval asks the hub.
        limit: the first so many documents of every task (of every subject of MMLU, of every task of BBH);
            None: all.
        batch_size: sequences per forward pass.
        run_code: humaneval may run what the model writes.
        max_new_tokens: of every generated answer at most; None: what the task says (gsm8k and bbh 256,
            humaneval 1,024).
        quiet: without lm-eval's progress bars and remarks.

    Raises:
        HostError, HparamsError, DataError: see :func:`.tasks.load`; a number is out of range.
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
        self.tasks, self.limit, self.batch_size, self.quiet = (
            known_tasks.canonical(tasks),
            limit,
            batch_size,
            quiet,
        )
        self._run_code = known_tasks.code_allowed(run_code)
        self._max_new_tokens = max_new_tokens
        with self._surroundings():
            self._loaded = known_tasks.load(self.tasks, folder, run_code)
        for task in self._loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config("num_fewshot", 0)
            if max_new_tokens is not None and task.OUTPUT_TYPE == "generate_until":
                task.set_config("generation_kwargs", {"max_gen_toks": max_new_tokens}, update=True)

    def check(self, model: torch.nn.Module, tok) -> None:
        """Whether the model has room for what the tasks let it write.

        Raises:
            HparamsError: it has not; the message names task, numbers and setting.
        """
        with self._surroundings():
            self._wrap(model, tok)

    def measure(self, model: torch.nn.Module, tok) -> dict[str, dict[str, Any]]:
        """Every task's numbers on the model as it is now, by task; a group without a number of its own is
        replaced by its tasks.

        Returns:
            ``{"metric": name of the number that stands for the task, "value": it, "higher_is_better",
            "documents": how many, "shots", "metrics": {"name,filter": all of its numbers}, "tasks": {name:
            {"value", "documents"}} (groups only)}``. Numbers are shares (0 to 1) or perplexities.
        """
        states = random_states()
        try:
            from lm_eval.evaluator import evaluate

            with (
                self._surroundings(),
                known_tasks.code_environment(self._run_code),
                eval_mode(model),
                torch.no_grad(),
            ):
                seed_everything(SEED)
                for task in self._loaded["tasks"].values():
                    task.set_fewshot_seed(SEED)
                found = evaluate(
                    lm=self._wrap(model, tok),
                    task_dict=self._loaded,
                    limit=self.limit,
                    bootstrap_iters=0,
                    log_samples=False,
                    confirm_run_unsafe_code=self._run_code,
                )
            return {name: entry for task in self.tasks for name, entry in self._entries(task, found)}
        finally:  # lm-eval draws numbers even where it looks up names
            set_random_states(states)

    def timed(self, model: torch.nn.Module, tok) -> tuple[dict[str, dict[str, Any]], float]:
        """``measure``, and its seconds."""
        start = time.perf_counter()
        return self.measure(model, tok), time.perf_counter() - start

    # -- lm-eval
    # ------------------------------------------------------------------------------------------------------------

    def _wrap(self, model: torch.nn.Module, tok):
        """lm-eval's view of the model; its tokenizer is a copy, as it sets padding and may add a pad
        token."""
        from lm_eval.models.huggingface import HFLM

        with eval_mode(model):
            lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tok), batch_size=self.batch_size)
        for name, task in self._loaded["tasks"].items():
            if task.OUTPUT_TYPE == "generate_until":
                wanted = (task.config.generation_kwargs or {}).get("max_gen_toks", lm.max_gen_toks)
                if wanted >= lm.max_length:
                    raise HparamsError(
                        f"field 'ability_max_new_tokens': {name} lets the model write {wanted} tokens, and it has "
                        f"{lm.max_length} positions for prompt and answer together; set a smaller number, or "
                        "leave the task out"
                    )
        return lm

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """lm-eval's remarks and bars, kept from the terminal where they are not wanted."""
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

    def _entries(self, task: str, found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        group = self._loaded.get("groups", {}).get(task)
        if group is None:
            yield task, self._entry(task, [task], found)
            return
        leaves = [leaf.task_name for leaf in group.get_all_tasks()]
        if _metrics(found["results"].get(task, {})):
            parts = {leaf: self._entry(leaf, [leaf], found) for leaf in leaves}
            yield (
                task,
                {
                    **self._entry(task, leaves, found),
                    "tasks": {
                        leaf: {name: part[name] for name in ("value", "documents")}
                        for leaf, part in parts.items()
                    },
                },
            )
            return
        for leaf in leaves:
            yield leaf, self._entry(leaf, [leaf], found)

    def _entry(self, name: str, leaves: list[str], found: dict[str, Any]) -> dict[str, Any]:
        numbers = _metrics(found["results"][name])
        benchmark = next(
            (known for known in known_tasks.PRIMARY if name == known or name.startswith(f"{known}_")), None
        )
        first = known_tasks.PRIMARY.get(benchmark, next(iter(numbers)))
        first = first if first in numbers else next(iter(numbers))
        metric = first.partition(",")[0]
        better = found["higher_is_better"].get(leaves[0], {}).get(metric, True)
        return {
            "metric": metric,
            "value": numbers[first],
            "higher_is_better": better,
            "documents": sum(found["n-samples"][leaf]["effective"] for leaf in leaves),
            "shots": self._loaded["tasks"][leaves[0]].get_config("num_fewshot"),
            "metrics": numbers,
        }


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in row.items()
        if "," in name and "_stderr" not in name and isinstance(value, (int, float))
    }
