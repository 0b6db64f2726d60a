"""Runs what a model has written against a problem's tests: a process of its own, with limits, which is no
sandbox."""

from __future__ import annotations

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
    """Whether a Python program comes to its end in time without an exception.

    It runs isolated (``python -I``) in an empty folder with an empty environment; a program that leaves early
    with exit code 0 has not come to its end.
    """
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program.py")
        with open(path, "w", encoding="utf-8", errors="replace") as handle:
            handle.write(f"{program}\nimport os as _os\n_os.write(1, b'{token}')\n")
        try:
            done = subprocess.run(
                [sys.executable, "-I", path],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                preexec_fn=_limits if os.name == "posix" else None,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and done.stdout.endswith(token.encode())


def _limits() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
