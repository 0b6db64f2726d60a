"""Names of the tasks of general ability, and lm-eval's task objects for them.

The papers' tasks are lm-eval's own: prompts, choices, shots and metrics come from the YAML of the installed
package. With a folder the same YAML reads local documents (``local``) and nothing asks the hub. ``configs``
holds the YAML of tiny-world's tasks, and that which points lm-eval's tasks to local documents.
"""

import importlib.util
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
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
WORLD_FILES = ("questions.json", "text_heldout.txt")
PAPER_TASKS = {
    "mmlu": ("mmlu/default", "mmlu"),
    "gsm8k": ("gsm8k", "gsm8k"),
    "commonsense_qa": ("commonsense_qa", "commonsenseqa"),
    "bbh_zeroshot": ("bbh/zeroshot", "bbh"),
    "humaneval": ("humaneval", "humaneval"),
}
"""The papers' benchmarks: lm-eval's folder of the task, and the folder of its documents in a local copy."""
CLOZE_TASKS = {"mmlu_cloze": "mmlu", "commonsense_qa_cloze": "commonsenseqa"}
"""Of our own, for models too small to answer by a letter: the folder of the documents in a local copy."""
LOCAL = {name: folder for name, (_, folder) in PAPER_TASKS.items()} | CLOZE_TASKS
ALIASES = {"bbh": "bbh_zeroshot"}
"""In lm-eval ``bbh`` is ``bbh_cot_fewshot``; the papers measure without shots."""
PRIMARY_METRICS = {
    "gsm8k": "exact_match,strict-match",
    "bbh_zeroshot": "exact_match,flexible-extract",
    **dict.fromkeys(CLOZE_TASKS, "acc_norm,none"),
}
"""The metric that stands for a benchmark where that is not its first one."""
CODE_REFUSED = (
    "runs Python code that the model has written, with your rights, on this machine. To allow it, give "
    "evaluation.ability_run_code=true, --run-code, or HF_ALLOW_CODE_EVAL=1 in the environment; "
    "otherwise leave the task out"
)


def available() -> bool:
    """Whether lm-eval is installed; it is not imported."""
    return importlib.util.find_spec("lm_eval") is not None


def canonical(tasks: Sequence[str]) -> list[str]:
    """Task names as results have them, each once; ``HparamsError`` for none or something that is no name."""
    if not tasks or any(not isinstance(task, str) or not task.strip() for task in tasks):
        raise HparamsError(f"tasks must be names of tasks, as in mmlu,gsm8k, not {tasks!r}")
    return list(dict.fromkeys(ALIASES.get(task.strip(), task.strip()) for task in tasks))


def code_allowed(flag: bool) -> bool:
    """The flag, or the environment variable that the Hugging Face metric ``code_eval`` reads."""
    return flag or os.environ.get("HF_ALLOW_CODE_EVAL") == "1"


def benchmark_of(task: str) -> str | None:
    """The benchmark that a task is or belongs to, as ``mmlu`` for ``mmlu_anatomy``."""
    if task in LOCAL:
        return task
    return next((name for name in PAPER_TASKS if task.startswith(f"{name}_")), None)


def identity(tasks: Sequence[str], folder: str | Path | None) -> dict[str, Any]:
    """What results depend on beside the model, as plain JSON: versions and fingerprints of documents."""
    _require_lm_eval()
    parts: dict[str, Any] = {name: metadata.version(name) for name in ("lm_eval", "datasets")}
    for task in canonical(tasks):
        if task in (WORLD, *WORLD_TASKS):
            files = [ASSETS_DIR / "tiny-world" / name for name in WORLD_FILES]
        elif folder is None:
            files = []
        else:
            files = [path for path in sorted(_documents_folder(task, folder).rglob("*")) if path.is_file()]
        contents = (f"{path.name} {path.stat().st_size} {path.read_bytes().hex()}" for path in files)
        parts[task] = text_fingerprint(contents)
    return parts


def load(tasks: Sequence[str], folder: str | Path | None = None, run_code: bool = False) -> dict[str, Any]:
    """Load tasks as ``lm_eval.evaluator.evaluate`` takes them: ``{"tasks", "groups", "group_map"}``.

    ``tasks`` are the papers' names, those of tiny-world, or (without a folder of local documents) any of
    lm-eval's, which asks the hub or its cache. ``run_code``: humaneval may run what the model writes.
    ``HostError`` where lm-eval or a task's documents are missing, ``HparamsError`` for an unknown task, or
    one that runs code without permission, ``DataError`` for a local file that is malformed.
    """
    names = canonical(tasks)
    _require_lm_eval()
    run_code = code_allowed(run_code)
    if not run_code and any(name.startswith("humaneval") for name in names):
        raise HparamsError(f"humaneval {CODE_REFUSED}")
    manager = _task_manager(names, folder)
    specs = [_task_spec(name, folder, manager) for name in names]
    with code_environment(run_code):
        try:
            loaded = manager.load(specs)
        except NeuronEditError:
            raise
        except Exception as problem:  # the hub, its cache or a task's module may raise anything
            remedy = "see" if folder else "a local copy of the data needs no network, see"
            reason = f"{type(problem).__name__}: {problem}; {remedy} docs/guides/ability.md"
            raise HostError(f"lm-eval cannot load {', '.join(names)}: {reason}") from problem
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) and not run_code:
            raise HparamsError(f"{name} {CODE_REFUSED}")
    if folder is not None and "gsm8k" in loaded["tasks"]:
        gsm8k = loaded["tasks"]["gsm8k"]
        # Without train.jsonl the shots are test questions; lm-eval then excludes the question that is asked.
        if not (Path(folder) / "gsm8k" / "train.jsonl").is_file():
            gsm8k.fewshot_cfg.split = gsm8k.config.test_split
    return loaded


def code_environment(allowed: bool) -> AbstractContextManager:
    """Set the variable without which the Hugging Face metric refuses to run code, inside the block."""
    return mock.patch.dict(os.environ, {"HF_ALLOW_CODE_EVAL": "1"} if allowed else {})


def _require_lm_eval() -> None:
    if not available():
        remedy = "pip install 'easyedit-neuron[eval]', or measure without it (evaluation.ability=[])"
        raise HostError(f"general ability is measured with lm-eval, which is not installed: {remedy}")


def _task_manager(names: Sequence[str], folder: str | Path | None):
    """lm-eval's index of the named tasks: its index of all tasks takes a minute to build."""
    import lm_eval.tasks

    packaged = Path(lm_eval.tasks.__file__).parent
    index_all = folder is None and any(name not in (WORLD, *WORLD_TASKS, *LOCAL) for name in names)
    folders = [CONFIGS / WORLD, CONFIGS / "cloze"]
    if not index_all:
        folders += [packaged / lm_eval_folder for lm_eval_folder, _ in PAPER_TASKS.values()]
    if folder is not None:
        folders.append(CONFIGS / "local")  # the last folder that has a name wins
    fields = {} if folder is None else {"folder": str(folder)}
    return lm_eval.tasks.TaskManager(include_path=folders, include_defaults=index_all, metadata=fields)


def _task_spec(name: str, folder: str | Path | None, manager) -> Any:
    """What ``manager.load`` takes for a task: a name, or a group with one task of local documents."""
    if folder is None or name in (WORLD, *WORLD_TASKS):
        if name not in manager.task_index:
            raise HparamsError(
                f"lm-eval has no task {name!r}: {did_you_mean(name, [*LOCAL, WORLD, *WORLD_TASKS])} "
                "Other names are those of lm-eval (lm-eval ls tasks)"
            )
        return name
    _documents_folder(name, folder)
    benchmark = benchmark_of(name)
    group = f"local_{benchmark}" if f"local_{benchmark}" in manager.task_index else benchmark
    if name == benchmark:
        return group
    # One task of a group: the files of the others need not be there.
    from . import local

    members = manager.task_index[group].cfg["task"]
    members = {member["task"]: member for member in members if isinstance(member, dict)}
    if name not in members:
        raise HparamsError(f"no task {name!r}: {did_you_mean(name, members)}")
    read = {"mmlu": local.mmlu, "bbh_zeroshot": local.bbh}[benchmark]
    return {"group": f"only_{name}", "task": [{**members[name], "custom_dataset": read}]}


def _documents_folder(task: str, folder: str | Path) -> Path:
    benchmark = benchmark_of(task)
    if benchmark is None:
        suggestion = did_you_mean(task, [*LOCAL, WORLD])
        raise HparamsError(f"task {task!r} cannot be read from local files: {suggestion}")
    documents = Path(folder).expanduser() / LOCAL[benchmark]
    if not documents.is_dir():
        raise HparamsError(
            f"task {task!r} reads its documents from {documents}, and there is no such folder; "
            "docs/guides/ability.md shows what is expected (without a folder lm-eval asks the hub)"
        )
    return documents
