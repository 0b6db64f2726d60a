"""Serve a model over HTTP as OpenAI's API has it (/v1/completions, /v1/chat/completions), and edit it while
it is served (/edits). The edits are kept in a log; the next start goes on from it."""

import argparse
import importlib.util
import os
import secrets
import socket
from contextlib import suppress

from ...errors import NeuronEditError
from ..output import show
from .editing import add_editing, edited_model
from .export import count_edits

TOKEN_VARIABLE = "EASYEDIT_NEURON_TOKEN"
LEAST_TOKEN = 16
INSTALL = "this needs fastapi and uvicorn: pip install 'easyedit-neuron[serve]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_editing(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    help_text = f"ask for the token of {TOKEN_VARIABLE} in every request, not only to edit"
    parser.add_argument("--token-for-all", action="store_true", help=help_text)


def run(args: argparse.Namespace) -> None:
    if any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn")):
        raise NeuronEditError(INSTALL)
    token, is_new = _token()
    with listening(args.host, args.port) as server, edited_model(args) as edited:
        from ...serving.app import build_app  # fastapi takes a second
        from ...serving.run import server_of

        app = build_app(edited, token, args.token_for_all)
        address = url_of(args.host, server)
        announced = f"{edited.name} with {count_edits(len(edited.log))} of {args.log}: {address}/v1\n"
        announced += f"edits with {edited.method.name}: {address}/edits\n"
        announced += f"token of this process: {token}\n" if is_new else f"token: that of {TOKEN_VARIABLE}\n"
        with suppress(KeyboardInterrupt):  # which is how a server ends; uvicorn raises it again
            server_of(app, lambda: show(announced)).run(sockets=[server])


def _token() -> tuple[str, bool]:
    """The token that edits need, and whether it was made now."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return secrets.token_urlsafe(24), True
    if len(token) < LEAST_TOKEN or not token.isascii():
        problem = f"must have {LEAST_TOKEN} ASCII characters or more"
        raise NeuronEditError(f"{TOKEN_VARIABLE} {problem}; without it a token is made")
    return token, False


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address, before anything is loaded; it refuses connections until it is served."""
    if not 0 <= port <= 65535:
        raise NeuronEditError(f"--port {port}: a port is between 0 and 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind, protocol)
    except OSError as problem:
        raise NeuronEditError(f"--host {host}: {problem.strerror or problem}") from None
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
