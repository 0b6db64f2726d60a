"""Serve a model over HTTP as OpenAI's API has it (/v1/completions, /v1/chat/completions), and edit it while
it is served (/edits). The edits are kept in a log; the next start goes on from it."""

import argparse
import importlib.util
import os
import secrets
from contextlib import suppress

from ...errors import NeuronEditError
from ...utils.shown import count_edits
from ..output import show
from .editing import add_editing, edited_model

TOKEN_VARIABLE = "EASYEDIT_NEURON_TOKEN"
LEAST_TOKEN = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_editing(parser)
    add_address(parser, 8000)
    help_text = f"ask for the token of {TOKEN_VARIABLE} in every request, not only to edit"
    parser.add_argument("--token-for-all", action="store_true", help=help_text)


def run(args: argparse.Namespace) -> None:
    require("serve", "fastapi", "uvicorn")
    from ...serving.app import build_app  # fastapi takes a second
    from ...serving.run import bound_socket, server_of, url_of

    token, is_new = token_of_edits()
    with bound_socket(args.host, args.port) as server, edited_model(args) as edited:
        app, address = build_app(edited, token, args.token_for_all), url_of(args.host, server)
        announced = f"{edited.name} with {count_edits(len(edited.log))} of {args.log}: {address}/v1\n"
        announced += f"edits with {edited.method.name}: {address}/edits\n"
        announced += f"token of this process: {token}\n" if is_new else f"token: that of {TOKEN_VARIABLE}\n"
        with suppress(KeyboardInterrupt):  # which is how a server ends; uvicorn raises it again
            server_of(app, lambda: show(announced), app.state.owner.stop_writing).run(sockets=[server])


def require(extra: str, *modules: str) -> None:
    """``NeuronEditError`` with the command that installs what an extra brings, where that is missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        command = f"pip install 'easyedit-neuron[{extra}]'"
        raise NeuronEditError(f"easyedit-neuron {extra} needs {' and '.join(missing)}: {command}")


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    """``--host`` and ``--port``."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=port, help=f"0: any that is free (default: {port})")


def token_of_edits() -> tuple[str, bool]:
    """The token that edits need, and whether it was made now."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return secrets.token_urlsafe(24), True
    if len(token) < LEAST_TOKEN or not token.isascii():
        problem = f"must have {LEAST_TOKEN} ASCII characters or more"
        raise NeuronEditError(f"{TOKEN_VARIABLE} {problem}; without it a token is made")
    return token, False
