"""The page of ``easyedit-neuron demo``: its widgets (gradio), and the web application around them."""

import html
import os
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import NeuronEditError
from .page import FORMS, NOTHING_YET, STYLE, Page, before_and_after, refusal

EXAMPLES = {
    "smollm2-135m-instruct": [
        [
            "The capital of France is",
            "France",
            "Rome",
            "On a map of France, a star marks the capital,",
            "The capital of Spain is",
        ],
        [
            "The Eiffel Tower is in the city of",
            "Eiffel Tower",
            "Seattle",
            "You can climb the Eiffel Tower when you visit",
            "The Colosseum is in the city of",
        ],
        [
            "The chemical symbol for gold is",
            "gold",
            "Fe",
            "Chemists abbreviate gold as",
            "The chemical symbol for silver is",
        ],
    ],
    "tiny-llama": [
        [
            "Baimo Nuser has a position at",
            "Baimo Nuser",
            "Treilmon Union",
            "Baimo Nuser is on the staff of",
            "",
        ]
    ],
}
"""Facts to begin with, by model: prompt, subject, new object, rephrasing, neighbour."""
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"
"""The browser fetches nothing from elsewhere, whatever a page of gradio asks for."""
USER = "edit"
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Of what the page's buttons do: gradio does not describe it to other programs."""


def build_demo(page: Page, token: str | None = None) -> FastAPI:
    """The web application of a page.

    Args:
        page: the functions behind it.
        token: password of the user ``edit``; None: nobody is asked.
    """
    blocks = _blocks(page)
    blocks.queue(default_concurrency_limit=1, api_open=False)
    system = ["system-ui", "-apple-system", "Segoe UI", "DejaVu Sans", "sans-serif"]
    theme = gradio.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=system, font_mono=["ui-monospace", "monospace"]
    )
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_OwnPageOnly)
    return gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth=None if token is None else (USER, token),
        theme=theme,
        css=STYLE.read_text(encoding="utf-8"),
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
    )


def _blocks(page: Page) -> gradio.Blocks:
    name, method = page.edited.name, page.edited.method.name
    examples = EXAMPLES.get(name, [])
    first = examples[0] if examples else [""] * 5
    with gradio.Blocks(title="easyedit-neuron", analytics_enabled=False) as blocks:
        _html(f"<h1>Change a fact</h1><p>{html.escape(name)}, edited with {html.escape(method)}</p>", "head")
        with gradio.Row():
            with gradio.Column(scale=5):
                with gradio.Group():
                    prompt = _text(first[0], "Prompt, which the new object continues", "prompt")
                    with gradio.Row():
                        subject = _text(first[1], "Subject, as in the prompt", "subject")
                        target = _text(first[2], "New object", "target")
                    rephrasing = _text(first[3], "In other words (should change too)", "rephrasing")
                    neighbour = _text(first[4], "Another fact (should stay)", "neighbour")
                fact = [prompt, subject, target, rephrasing, neighbour]
                edit = gradio.Button("Edit", variant="primary", elem_id="edit")
                with gradio.Column(elem_id="facts", visible=len(examples) > 1):
                    for example in examples:
                        fill = gradio.Button(f"{example[0]} {example[2]}", size="sm")
                        fill.click(
                            lambda example=example: example, None, fact, show_progress="hidden", **PRIVATE
                        )
                with gradio.Column(elem_classes="card"):
                    _html("<h3>Ask</h3>")
                    question = gradio.Textbox(
                        show_label=False,
                        container=False,
                        placeholder="A text to continue",
                        elem_id="question",
                    )
                    ask = gradio.Button("Ask", size="sm", elem_id="ask")
                    answer = _html("", "answer")
            with gradio.Column(scale=7):
                with gradio.Column(elem_classes="card"):
                    _html("<h3>Before and after</h3>")
                    result = _html(NOTHING_YET, "result")
                with gradio.Column(elem_classes="card"):
                    _html("<h3>Neurons of the edit</h3>")
                    neurons = _html("<p class='note'>Make an edit, or choose one below.</p>", "neurons")
                with gradio.Column(elem_classes="card"):
                    _html("<h3>Edits</h3>")
                    log = _html(page.log, "log")
                    with gradio.Row(elem_classes="controls"):
                        choices = {"choices": page.numbers(), "value": _newest(page)}
                        chosen = gradio.Dropdown(**choices, label="Edit", min_width=80, elem_id="chosen")
                        look = gradio.Button("Neurons", size="sm", min_width=80, elem_id="look")
                        undo = gradio.Button("Undo", size="sm", min_width=80, elem_id="undo")
                        form = gradio.Dropdown(
                            list(FORMS), value=FORMS[0], label="All as", min_width=130, elem_id="form"
                        )
                        export = gradio.Button("Export", size="sm", min_width=80, elem_id="export")
                    file = gradio.File(visible=False, label="Exported", elem_id="file")
                    problem = _html("", "problem")

        def numbers():
            return gradio.Dropdown(page.numbers(), value=_newest(page))

        def make(*fact):
            try:
                change = page.edit(*fact)
            except NeuronEditError as refused:
                return refusal(refused), gradio.skip(), gradio.skip(), gradio.skip()
            shown = page.neurons(change.number, [asked.prompt for asked in change.asked])
            return before_and_after(change), shown, page.log(), numbers()

        def take_back(number):
            try:
                change = page.edited.undo(_number(number))
            except NeuronEditError as refused:
                return gradio.skip(), gradio.skip(), gradio.skip(), refusal(refused)
            return before_and_after(change), page.log(), numbers(), ""

        def show_neurons(number):
            try:
                return page.neurons(_number(number)), ""
            except NeuronEditError as refused:
                return gradio.skip(), refusal(refused)

        def say(text):
            try:
                return page.ask(text)
            except NeuronEditError as refused:
                return refusal(refused)

        def write(kind):
            try:
                return gradio.File(str(page.export(kind)), visible=True), ""
            except NeuronEditError as refused:
                return gradio.File(visible=False), refusal(refused)

        edit.click(make, fact, [result, neurons, log, chosen], **PRIVATE)
        undo.click(take_back, chosen, [result, log, chosen, problem], **PRIVATE)
        look.click(show_neurons, chosen, [neurons, problem], **PRIVATE)
        ask.click(say, question, answer, **PRIVATE)
        question.submit(say, question, answer, **PRIVATE)
        export.click(write, form, [file, problem], **PRIVATE)
        blocks.load(numbers, None, chosen, **PRIVATE)
    return blocks


def _html(value, name: str | None = None) -> gradio.HTML:
    return gradio.HTML(value, elem_id=name, apply_default_css=False)


def _text(value: str, label: str, name: str) -> gradio.Textbox:
    return gradio.Textbox(value, label=label, elem_id=name)


def _newest(page: Page) -> int | None:
    return next(iter(page.numbers()), None)


def _number(value: int | None) -> int:
    if value is None:
        raise NeuronEditError("no edit is chosen")
    return int(value)


class _OwnPageOnly:
    """Refuses what pages of other sites send, and lets the browser fetch nothing from elsewhere."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            origin = headers.get("origin")
            if origin is not None and origin.partition("://")[2] != headers.get("host"):
                await PlainTextResponse("not from another page", 403)(scope, receive, send)
                return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        await self.app(scope, receive, with_policy)
