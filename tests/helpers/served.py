"""A served model: in this process, and in one of its own that can be killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from openai import OpenAI

TOKEN = "a-token-of-the-tests"


@dataclass
class Served:
    """``url`` without a path; ``client`` sends the token and does not retry."""

    url: str
    process: subprocess.Popen | None = None

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=TOKEN, max_retries=0, timeout=60)

    def request(self, method: str, path: str, token: str | None = TOKEN, **options) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=60, **options)

    def edit(self, fact: dict, **fields) -> httpx.Response:
        body = {name: fact[name] for name in ("prompt", "subject", "target_new")}
        return self.request("POST", "/edits", json=body | fields)

    def say(self, prompt, **options) -> str:
        """A greedy completion, unless the options say otherwise."""
        options = {"temperature": 0, "max_tokens": 8} | options
        answer = self.client.completions.create(model="tiny-llama", prompt=prompt, **options)
        return answer.choices[0].text

    def kill(self) -> None:
        """SIGKILL: nothing of the process runs any more."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        assert self.process.wait(30) == -signal.SIGKILL


@contextmanager
def served(edited, **options) -> Iterator[Served]:
    """A uvicorn server in a thread of this process, on a free port."""
    from easyedit_neuron.serving.app import build_app
    from easyedit_neuron.serving.run import server_of

    started = threading.Event()
    app = build_app(edited, TOKEN, **options)
    server = server_of(app, started.set, app.state.owner.stop_writing)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        assert started.wait(30)
        try:
            yield Served(f"http://127.0.0.1:{bound.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def served_by_a_process(*options: str, before: str = "") -> Iterator[Served]:
    """``easyedit-neuron serve`` in a process of its own; ``before``: Python code that runs first in it."""
    code = "\n".join(["import sys", before, "from easyedit_neuron.cli import main", "sys.exit(main())"])
    command = [sys.executable, "-c", code, "serve", "--model", "tiny-llama", "--port", "0", *options]
    environment = os.environ | {"EASYEDIT_NEURON_TOKEN": TOKEN}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        url, started = None, time.monotonic()
        for line in process.stdout:
            url = url or re.search(r"(http://\S+)/v1", line)
            if line.startswith("token"):
                break
        assert url is not None and time.monotonic() - started < 120, "it does not start"
        yield Served(url[1], process)
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()
