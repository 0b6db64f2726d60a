"""Run the web application until the process is asked to end."""

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI


class _Server(uvicorn.Server):
    """A server that says when it has started, and lets texts that are being written end when it shall."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None], on_exit: Callable[[], None]):
        super().__init__(config)
        self._on_start, self._on_exit = on_start, on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    def handle_exit(self, sig, frame) -> None:
        self._on_exit()
        super().handle_exit(sig, frame)


def server_of(app: FastAPI, on_start: Callable[[], None] = lambda: None, seconds: int = 30) -> uvicorn.Server:
    """A server that runs, ``run(sockets=[...])``, until Ctrl-C, SIGTERM or ``should_exit``.

    Args:
        app: of ``build_app``.
        on_start: called once requests are answered.
        seconds: how long requests that run may take to end after the signal.
    """
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=seconds)
    return _Server(config, on_start, app.state.owner.stop_writing)
