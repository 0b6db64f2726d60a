"""``/v1/completions``, ``/v1/chat/completions`` and ``/v1/models``, as OpenAI's clients expect them."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from ..errors import NeuronEditError
from .edited_model import EditedModel
from .generation import Continuation, Sampling, check_room, continue_text, prompt_ids
from .owner import Owner
from .refusals import Refusal, answer_of
from .requests import ChatBody, CompletionBody, SamplingFields

CHAT_TOKENS = 512
"""Longest answer in a chat that names no length, in tokens."""
END_OF_STREAM = "data: [DONE]\n\n"


@dataclass
class _Reply:
    """What all parts of one answer have: id, time, name of the model, and which of two forms it takes."""

    model: str
    chat: bool
    fingerprint: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = ""

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}"

    def whole(self, texts: list[Continuation], prompt_tokens: int) -> dict[str, Any]:
        """The answer in one piece."""
        choices = []
        for index, text in enumerate(texts):
            said = (
                {"message": {"role": "assistant", "content": text.text}} if self.chat else {"text": text.text}
            )
            choices.append({"index": index, **said, "logprobs": None, "finish_reason": text.finish_reason})
        usage = _usage(prompt_tokens, sum(text.tokens for text in texts))
        kind = "chat.completion" if self.chat else "text_completion"
        return self._head(kind) | {"choices": choices, "usage": usage}

    def chunk(self, index: int, text: str | None, finish_reason: str | None = None) -> dict[str, Any]:
        """A piece of a streamed answer; ``text`` None: the first of a chat, with the role."""
        said: dict[str, Any] = {"text": text or ""}
        if self.chat:
            delta = {"role": "assistant", "content": ""} if text is None else {"content": text}
            said = {"delta": {} if finish_reason else delta}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish_reason}
        return self._chunk_head() | {"choices": [choice]}

    def last_chunk(self, prompt_tokens: int, tokens: int) -> dict[str, Any]:
        """Token counts at the end of a stream."""
        return self._chunk_head() | {"choices": [], "usage": _usage(prompt_tokens, tokens)}

    def _chunk_head(self) -> dict[str, Any]:
        return self._head("chat.completion.chunk" if self.chat else "text_completion")

    def _head(self, kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return head | {"system_fingerprint": self.fingerprint}


def router(edited: EditedModel, owner: Owner) -> APIRouter:
    """The routes for a model, which ``owner`` runs."""
    routes, started = APIRouter(prefix="/v1"), int(time.time())

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        model = {"id": edited.name, "object": "model", "created": started, "owned_by": "easyedit-neuron"}
        return {"object": "list", "data": [model]}

    @routes.post("/completions")
    async def completions(body: CompletionBody, request: Request):
        _check_model(edited, body)

        def ids() -> list[list[int]]:
            return [prompt_ids(edited.model, edited.tok, prompt) for prompt in body.prompts]

        return await _answer(edited, owner, request, body, ids, body.max_tokens, _Reply(edited.name, False))

    @routes.post("/chat/completions")
    async def chat(body: ChatBody, request: Request):
        _check_model(edited, body)
        limit = body.max_completion_tokens or body.max_tokens

        def ids() -> list[list[int]]:
            return [chat_ids(edited, [message.plain for message in body.messages])]

        reply = _Reply(edited.name, True)
        return await _answer(edited, owner, request, body, ids, limit or CHAT_TOKENS, reply)

    return routes


def chat_ids(edited: EditedModel, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a chat up to the assistant's next turn; ``Refusal`` where the model has no template."""
    if getattr(edited.tok, "chat_template", None) is None:
        problem = "has no chat template: use /v1/completions, or serve an instruct model"
        raise Refusal(400, f"the model {edited.name} {problem}", "messages")
    try:
        text = edited.tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as problem:  # whatever a template raises, as about turns that do not alternate
        raise Refusal(
            400, f"the model's chat template refuses these messages: {problem}", "messages"
        ) from problem
    return prompt_ids(edited.model, edited.tok, text, special=False)


async def _answer(
    edited: EditedModel,
    owner: Owner,
    request: Request,
    body: SamplingFields,
    ids: Callable[[], list[list[int]]],
    max_tokens: int,
    reply: _Reply,
):
    def tokenized() -> list[list[int]]:
        rows = ids()
        for row in rows:
            check_room(edited.model, row, max_tokens)
        return rows

    try:
        rows = await owner.change(tokenized)
    except NeuronEditError as problem:
        raise Refusal(400, str(problem), "messages" if reply.chat else "prompt") from None
    sampling = Sampling(max_tokens, body.temperature, body.top_p, body.stop_texts, body.seed)
    prompt_tokens = sum(map(len, rows))

    def texts(
        on_text: Callable[[int, str], None], is_cancelled: Callable[[], bool]
    ) -> Iterator[Continuation]:
        """All texts of the request, from one state of the model."""
        with edited.whole() as newest:
            reply.fingerprint = f"edits-{newest}"
            for number, row in enumerate(rows):
                if not is_cancelled():
                    yield continue_text(
                        edited.model, edited.tok, row, sampling, partial(on_text, number), is_cancelled
                    )

    if not body.stream:
        written = await owner.answer(request, lambda is_cancelled: list(texts(lambda *_: None, is_cancelled)))
        return reply.whole(written, prompt_tokens)

    def give_chunks(give: Callable[[dict], None], is_cancelled: Callable[[], bool]) -> None:
        begun: set[int] = set()
        tokens = 0

        def on_text(number: int, text: str) -> None:
            if reply.chat and number not in begun:
                begun.add(number)
                give(reply.chunk(number, None))
            give(reply.chunk(number, text))

        for number, text in enumerate(texts(on_text, is_cancelled)):
            if reply.chat and number not in begun:
                on_text(number, "")
            give(reply.chunk(number, "", text.finish_reason))
            tokens += text.tokens
        if body.stream_options.include_usage:
            give(reply.last_chunk(prompt_tokens, tokens))

    events = _events(owner.stream(give_chunks))
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(chunks: AsyncIterator[dict]) -> AsyncIterator[str]:
    """Server-sent events; what fails when the answer has begun is an event too."""
    try:
        async for chunk in chunks:
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
    except Exception as problem:
        yield f"data: {json.dumps(answer_of(problem)['content'], ensure_ascii=False)}\n\n"
    yield END_OF_STREAM


def _check_model(edited: EditedModel, body: SamplingFields) -> None:
    if body.model != edited.name:
        message = f"field 'model': there is no {body.model!r} here; this server has {edited.name!r}"
        raise Refusal(404, message, "model", "model_not_found")


def _usage(prompt_tokens: int, tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": prompt_tokens + tokens,
    }
