"""Run code that a model has written against a problem's tests, in a process with limits (no sandbox)."""

import os
import secrets
import subprocess
import sys
import tempfile
from typing import Any

SECONDS = 3.0  # per problem, as in the Hugging Face metric "code_eval"
MEMORY = 4 << 30  # bytes of address space


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """``pass@1`` of one greedy completion: 1 where the prompt with it passes the problem's tests."""
    program = f"{doc['prompt']}{results[0]}\n{doc['test']}\ncheck({doc['entry_point']})"
    return {"pass@1": float(passes(program))}


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether a Python program reaches its last line in time without an exception.

    It runs isolated (``python -I``) in an empty folder with an empty environment. Exiting early with code 0
    does not count: a secret token must be printed at the end.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program.py")
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            file.write(f"{program}\nimport os as _os\n_os.write(1, b'{token}')\n")
        try:
            alone = {"cwd": folder, "env": {}, "stdin": subprocess.DEVNULL, "capture_output": True}
            limits = {"preexec_fn": _limit_resources if os.name == "posix" else None, "timeout": seconds}
            process = subprocess.run([sys.executable, "-I", path], check=False, **alone, **limits)
        except subprocess.TimeoutExpired:
            return False
    return process.returncode == 0 and process.stdout.endswith(token.encode())


def _limit_resources() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
