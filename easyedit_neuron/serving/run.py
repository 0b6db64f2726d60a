"""Run the web application until the process is asked to end."""

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from ..errors import NeuronEditError


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


def server_of(
    app: FastAPI,
    on_start: Callable[[], None] = lambda: None,
    on_exit: Callable[[], None] = lambda: None,
    seconds: int = 30,
) -> uvicorn.Server:
    """A server that runs, ``run(sockets=[...])``, until Ctrl-C, SIGTERM or ``should_exit``.

    Args:
        app: the application.
        on_start: called once requests are answered.
        on_exit: called at the signal.
        seconds: how long requests that run may take to end after it.
    """
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=seconds)
    return _Server(config, on_start, on_exit)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address; it refuses connections until it is served.

    ``NeuronEditError`` where the address is taken or none.
    """
    if not 0 <= port <= 65535:
        raise NeuronEditError(f"--port {port}: a port is between 0 and 65535")
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as problem:
        raise NeuronEditError(f"--host {host}: {problem.strerror or problem}") from None
    family, kind, protocol, _, address = addresses[0]
    server = socket.socket(family, kind, protocol)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
    except OSError as problem:
        server.close()
        raise NeuronEditError(f"--host {host} --port {port}: {problem.strerror or problem}") from None
    return server


def url_of(host: str, server: socket.socket) -> str:
    """``http://HOST:PORT`` of a bound socket."""
    return f"http://{f'[{host}]' if ':' in host else host}:{server.getsockname()[1]}"
