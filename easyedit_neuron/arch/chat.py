"""Prompts inside the chat template of an instruct model: a prompt is the user's turn, an object the answer.

``tokens`` puts every prompt of a ``ChatTokenizer`` into the template; to everything else it is the tokenizer.
Methods and measures take it in place of the tokenizer where ``use_chat_template`` is on, and need not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..errors import HparamsError

_PROMPT, _ANSWER = "EASYEDITNEURONPROMPT", "EASYEDITNEURONANSWER"
MOST_CHARACTERS = 100_000
"""Of a template around a prompt: tokenizers take time that grows with the square of a word's length."""
_FIELD = "field 'use_chat_template'"
_easyedit_measures: ContextVar[bool] = ContextVar("easyedit_measures", default=False)


@dataclass(frozen=True)
class ChatTokenizer:
    """A tokenizer whose prompts are read inside its chat template; its attributes and calls are the
    tokenizer's.

    Attributes:
        tok: the tokenizer, never changed.
        head: what the template puts before the user's text (a BOS and a system turn, where it has them).
        tail: what follows the text, with the generation prompt: the answer comes next.
        answer_start: what stands between ``tail`` and the answer, "" or a blank.
    """

    tok: Any
    head: str
    tail: str
    answer_start: str

    def __call__(self, *args, **kwargs):
        return self.tok(*args, **kwargs)

    def __len__(self) -> int:
        return len(self.tok)

    def __getattr__(self, name: str):
        if name == "tok" or name.startswith("__"):  # a copy asks for them before it has its fields
            raise AttributeError(name)
        return getattr(self.tok, name)

    def ids(self, text: str) -> list[int]:
        """Token ids of a piece of the rendered chat, which has all special tokens itself."""
        return list(self.tok(text, add_special_tokens=False, verbose=False)["input_ids"])

    def prompt_ids(self, text: str) -> list[int]:
        """Those of the user's turn with the generation prompt, as ``apply_chat_template`` makes them."""
        return self.ids(self.head + text + self.tail)

    def unfinished_ids(self, text: str) -> list[int]:
        """Those of the user's turn up to the end of a text that goes on."""
        return self.ids(self.head + text)

    def pair_ids(self, text: str, answer: str) -> list[int]:
        """Those of the user's turn and the answer."""
        return self.ids(self.head + text + self.tail + self.answer_start + answer.lstrip(" "))

    def answer_ids(self, answer: str) -> list[int]:
        """Those of an answer behind the generation prompt."""
        asked, with_answer = self.prompt_ids(_PROMPT), self.pair_ids(_PROMPT, answer)
        if with_answer[: len(asked)] == asked:
            return with_answer[len(asked) :]
        return self.ids(self.answer_start + answer.lstrip(" "))


def plain_tokenizer(tok):
    """The tokenizer itself, for texts that are no prompts: what the model writes, and texts of statistics."""
    return tok.tok if isinstance(tok, ChatTokenizer) else tok


def prompt_tokenizer(tok, hparams):
    """The tokenizer for the prompts of an edit: a ``ChatTokenizer`` if ``hparams.use_chat_template``.

    Raises:
        HparamsError: the tokenizer has no chat template, or one that does not show the user's text.
    """
    is_on = getattr(hparams, "use_chat_template", False)
    return chat_tokenizer(tok) if is_on else plain_tokenizer(tok)


def chat_tokenizer(tok) -> ChatTokenizer:
    """The ``ChatTokenizer`` of a tokenizer; errors as ``prompt_tokenizer``."""
    if isinstance(tok, ChatTokenizer):
        return tok
    if getattr(tok, "chat_template", None) is None:
        raise HparamsError(
            f"{_FIELD}: the tokenizer has no chat template; set the field to false, load an instruct model, "
            "or set tok.chat_template"
        )
    asked = _rendered(tok, [{"role": "user", "content": _PROMPT}], add_generation_prompt=True)
    if asked.count(_PROMPT) != 1:
        raise HparamsError(
            f"{_FIELD}: the chat template holds the user's text {asked.count(_PROMPT)} times, not once; set "
            "the field to false, or mend tok.chat_template"
        )
    head, _, tail = asked.partition(_PROMPT)
    if _easyedit_measures.get():
        return ChatTokenizer(tok, _missing_bos(tok, head) + head, tail, " ")
    return ChatTokenizer(tok, head, tail, _answer_start(tok, asked))


def _missing_bos(tok, head: str) -> str:
    """The BOS that the tokenizer puts before a text, if the template has none."""
    bos = tok.bos_token or ""
    adds_bos = bos and tok(_PROMPT)["input_ids"][:1] == [tok.bos_token_id]
    return bos if adds_bos and not head.startswith(bos) else ""


def _rendered(tok, messages: list[dict[str, str]], **options) -> str:
    try:
        text = tok.apply_chat_template(messages, tokenize=False, **options)
    except Exception as problem:  # whatever the template raises
        raise HparamsError(
            f"{_FIELD}: the chat template cannot be applied ({problem}); set the field to false, or mend "
            "tok.chat_template"
        ) from problem
    if len(text) > MOST_CHARACTERS:
        problem = f"makes {len(text):,} characters of a short prompt"
        raise HparamsError(f"{_FIELD}: the chat template {problem}; mend tok.chat_template")
    return text


def _answer_start(tok, asked: str) -> str:
    """What the template puts before the assistant's text; a blank where that would run into a word."""
    messages = [{"role": "user", "content": _PROMPT}, {"role": "assistant", "content": _ANSWER}]
    try:
        before, is_there, _ = _rendered(tok, messages).partition(_ANSWER)
    except HparamsError:
        before, is_there = "", ""
    gap = before.removeprefix(asked)
    if is_there and before.startswith(asked) and not gap.strip():
        return gap
    return " " if asked[-1:].isalnum() else ""


@contextmanager
def easyedit_measures() -> Iterator[None]:
    """A block in which a chat is as EasyEdit's measure reads it: ``template + " " + answer``.

    It begins with a BOS where the tokenizer adds one, but with no second one where the template has it too.
    """
    token = _easyedit_measures.set(True)
    try:
        yield
    finally:
        _easyedit_measures.reset(token)
