"""A page to play with: type a fact, see what the model says before and after, which neurons answer, and take
it back. The edits are kept in a log, as those of edit and serve."""

import argparse
from contextlib import suppress

from ..output import show
from .common import load_base_of
from .editing import add_editing, edited_model
from .serve import add_address, require, token_of_edits

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_editing(parser)
    add_address(parser, 7860)


def run(args: argparse.Namespace) -> None:
    require("demo", "gradio")
    from ...serving.demo import USER, build_demo  # gradio takes seconds
    from ...serving.page import Page
    from ...serving.run import bound_socket, server_of, url_of

    with bound_socket(args.host, args.port) as server, edited_model(args) as edited:
        page = Page(edited, lambda: load_base_of(edited.log, args))
        token = None if args.host in LOOPBACK else token_of_edits()[0]
        announced = f"{edited.name}, edited with {edited.method.name}: {url_of(args.host, server)}\n"
        announced += "" if token is None else f"user {USER}, password {token}\n"
        with suppress(KeyboardInterrupt):
            server_of(build_demo(page, token), lambda: show(announced)).run(sockets=[server])
