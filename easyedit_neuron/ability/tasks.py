"""Which tasks there are, and how lm-eval's task objects are made of them.

The papers' tasks are lm-eval's own: prompts, choices, shots and metrics come from the installed package's
YAML. With a folder the same YAML reads local documents (:mod:`.local`), and nothing asks the hub. Tasks of
tiny-world are in ``configs``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

from ..errors import HostError, HparamsError, NeuronEditError
from ..resources import ASSETS_DIR
from ..utils.fingerprint import text_fingerprint
from ..utils.suggest import did_you_mean

CONFIGS = Path(__file__).resolve().parent / "configs"
WORLD = "tiny_world"
WORLD_TASKS = ("tiny_world_facts", "tiny_world_hops", "tiny_world_cloze", "tiny_world_text")
PAPERS = {
    "mmlu": ("mmlu/default", "mmlu"),
    "gsm8k": ("gsm8k", "gsm8k"),
    "commonsense_qa": ("commonsense_qa", "commonsenseqa"),
    "bbh_zeroshot": ("bbh/zeroshot", "bbh"),
    "humaneval": ("humaneval", "humaneval"),
}
"""The papers' tasks: lm-eval's folder of the task, and the folder of its documents in a local copy."""
ALIASES = {"bbh": "bbh_zeroshot"}
"""In lm-eval ``bbh`` is the few-shot task with chains of thought (``bbh_cot_fewshot``); the papers measure
without shots."""
PRIMARY = {"gsm8k": "exact_match,strict-match", "bbh_zeroshot": "exact_match,flexible-extract"}
"""Which of a task's numbers stands for it where that is not its first metric."""
INSTALL = "pip install 'easyedit-neuron[eval]'"
REFUSED = (
    "runs Python code that the model has written, with your rights, on this machine. If that is what you want, say so: "
    "evaluation.ability_run_code=true, --run-code, or HF_ALLOW_CODE_EVAL=1 in the environment. Else leave the task out"
)


def available() -> bool:
    """Whether lm-eval is installed; it is not imported."""
    return importlib.util.find_spec("lm_eval") is not None


def canonical(tasks: Sequence[str]) -> list[str]:
    """Names as results have them, each once.

    Raises:
        HparamsError: no task at all, or not names.
    """
    if not tasks or any(not isinstance(task, str) or not task.strip() for task in tasks):
        raise HparamsError(f"tasks must be names of tasks, as in mmlu,gsm8k, not {tasks!r}")
    return list(dict.fromkeys(ALIASES.get(task.strip(), task.strip()) for task in tasks))


def code_allowed(flag: bool) -> bool:
    """The flag, or what the Hugging Face metric ``code_eval`` asks for."""
    return flag or os.environ.get("HF_ALLOW_CODE_EVAL") == "1"


def identity(tasks: Sequence[str], folder: str | Path | None) -> dict[str, Any]:
    """What the numbers depend on beside the model, as plain JSON; lm-eval is not imported.

    Raises:
        HostError: lm-eval is not installed.
        HparamsError: a folder was given and lacks that of a task.
    """
    _require()
    found: dict[str, Any] = {"lm_eval": metadata.version("lm_eval"), "datasets": metadata.version("datasets")}
    for task in canonical(tasks):
        if task in (WORLD, *WORLD_TASKS):
            files = [
                ASSETS_DIR / "tiny-world" / "questions.json",
                ASSETS_DIR / "tiny-world" / "text_heldout.txt",
            ]
        else:
            files = (
                []
                if folder is None
                else [path for path in sorted(_documents(task, folder).rglob("*")) if path.is_file()]
            )
        found[task] = text_fingerprint(
            f"{path.name} {path.stat().st_size} {path.read_bytes().hex()}" for path in files
        )
    return found


def load(tasks: Sequence[str], folder: str | Path | None = None, run_code: bool = False) -> dict[str, Any]:
    """What ``lm_eval.evaluator.evaluate`` takes: ``{"tasks", "groups", "group_map"}`` of all these tasks.

    Args:
        tasks: the papers' names, those of tiny-world, or any task or group of lm-eval's (without a folder).
        folder: local documents of the papers' tasks; None: lm-eval asks the hub (or its cache).
        run_code: humaneval may run what the model writes.

    Raises:
        HostError: lm-eval is not installed, or a task's documents cannot be had.
        HparamsError: an unknown task, or one that runs code and may not.
        DataError: a local file is missing or malformed.
    """
    names = canonical(tasks)
    _require()
    run_code = code_allowed(run_code)
    if any(name.startswith("humaneval") for name in names) and not run_code:
        raise HparamsError(f"humaneval {REFUSED}")
    manager = _manager(names, folder)
    specs = [
        name if folder is None or name in (WORLD, *WORLD_TASKS) else _local(name, folder, manager)
        for name in names
    ]
    for name, spec in zip(names, specs):
        if isinstance(spec, str) and spec not in manager.task_index:
            raise HparamsError(
                f"lm-eval has no task {name!r}: {did_you_mean(name, [*PAPERS, WORLD, *WORLD_TASKS])} "
                "Other names are those of lm-eval (lm-eval ls tasks)"
            )
    with code_environment(run_code):
        try:
            loaded = manager.load(specs)
        except NeuronEditError:
            raise
        except Exception as problem:  # whatever the hub, its cache or a task's module makes of it
            remedy = (
                "a local copy of the data (docs/guides/ability.md) needs no network"
                if folder is None
                else "see docs/guides/ability.md"
            )
            raise HostError(
                f"lm-eval cannot load {', '.join(names)}: {type(problem).__name__}: {problem}; {remedy}"
            ) from problem
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) and not run_code:
            raise HparamsError(f"{name} {REFUSED}")
    if (
        folder is not None
        and "gsm8k" in loaded["tasks"]
        and not (Path(folder) / "gsm8k" / "train.jsonl").is_file()
    ):
        # The shots are test questions then, and lm-eval leaves out the one that is asked only where it knows
        # that.
        loaded["tasks"]["gsm8k"].fewshot_cfg.split = loaded["tasks"]["gsm8k"].config.test_split
    return loaded


@contextmanager
def code_environment(allowed: bool) -> Iterator[None]:
    """The variable without which the Hugging Face metric refuses to run code, for as long as it is needed."""
    with mock.patch.dict(os.environ, {"HF_ALLOW_CODE_EVAL": "1"} if allowed else {}):
        yield


def _require() -> None:
    if not available():
        raise HostError(
            f"general ability is measured with lm-eval, which is not installed: {INSTALL}, or measure without it "
            "(evaluation.ability=[])"
        )


def _manager(names: Sequence[str], folder: str | Path | None):
    """An index of the tasks that are wanted: lm-eval's whole one takes a minute to build."""
    import lm_eval.tasks

    base = Path(lm_eval.tasks.__file__).parent
    known = (WORLD, *WORLD_TASKS, *PAPERS)
    everything = folder is None and any(name not in known for name in names)
    folders = [
        CONFIGS / WORLD,
        *([] if everything else [base / lm_folder for lm_folder, _ in PAPERS.values()]),
        *([] if folder is None else [CONFIGS / "local"]),
    ]  # later ones win: "mmlu" is then the packaged one
    return lm_eval.tasks.TaskManager(
        include_path=folders,
        include_defaults=everything,
        metadata={} if folder is None else {"folder": str(folder)},
    )


def _local(name: str, folder: str | Path, manager) -> Any:
    """What lm-eval is to load: the packaged group of a benchmark, or one task of it (of the others no file
    need be there)."""
    _documents(name, folder)
    benchmark = _benchmark(name)
    group = f"local_{benchmark}" if f"local_{benchmark}" in manager.task_index else benchmark
    if name == benchmark:
        return group
    from . import local

    members = {
        member["task"]: member for member in manager.task_index[group].cfg["task"] if isinstance(member, dict)
    }
    if name not in members:
        raise HparamsError(f"no task {name!r}: {did_you_mean(name, members)}")
    read = {"mmlu": local.mmlu, "bbh_zeroshot": local.bbh}[benchmark]
    return {"group": f"only_{name}", "task": [{**members[name], "custom_dataset": read}]}


def _documents(name: str, folder: str | Path) -> Path:
    found = Path(folder).expanduser() / PAPERS[_benchmark(name)][1]
    if not found.is_dir():
        raise HparamsError(
            f"task {name!r} reads its documents from {found}, and there is no such folder; docs/guides/ability.md shows "
            "what is expected (without a folder lm-eval asks the hub)"
        )
    return found


def _benchmark(name: str) -> str:
    for benchmark in PAPERS:
        if name == benchmark or name.startswith(f"{benchmark}_"):
            return benchmark
    raise HparamsError(
        f"task {name!r} cannot be read from local files: {did_you_mean(name, [*PAPERS, WORLD])}"
    )
