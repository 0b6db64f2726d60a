"""Edits as people read them: a prompt, what the model said to it, and what it says now."""

from collections.abc import Sequence
from typing import Any

WIDTH = 100  # columns of the terminal
ANSWER_WIDTH = 60
NOTHING = "(nothing)"  # the model ended its text at once


def sentences(examples: Sequence[dict[str, Any]]) -> str:
    """``examples`` of ``summary.json`` as text of at most ``WIDTH`` columns; empty without examples."""
    return "\n".join(_paragraph(example) for example in examples)


def open_ended(prompt: str) -> str:
    """The prompt as the beginning of a sentence: with an ellipsis, unless it is a question."""
    text = printable(prompt)
    return text if text.endswith("?") else f"{text} ..."


def spoken(answer: str) -> str:
    """The answer on one line, or a remark that there is none."""
    return printable(answer) or NOTHING


def printable(text: str) -> str:
    """The text on one line, without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _paragraph(example: dict[str, Any]) -> str:
    answers = example["answers"]
    rewrite, target = answers["rewrite"], printable(example["target_new"])
    lines = [
        _ending(open_ended(rewrite["prompt"]), WIDTH),
        f"{_head('before:')}{_beginning(spoken(rewrite['before']))}",
        f"{_head('now:')}{_with_target(_beginning(spoken(rewrite['final'])), target)}",
    ]
    for kind, label, moments in (
        ("rephrase", "rephrased", {"now": "final"}),
        ("neighbor", "neighbour", {"before": "before", "now": "final"}),
    ):
        if kind in answers:
            said = {name: _beginning(spoken(answers[kind][key])) for name, key in moments.items()}
            lines += _other_prompt(label, open_ended(answers[kind]["prompt"]), said)
    return "\n".join(lines) + "\n"


def _head(label: str) -> str:
    return f"    {label:<11}"


def _with_target(answer: str, target: str) -> str:
    return f"{answer}   (wanted: {_beginning(target, WIDTH - 30 - len(answer))})"


def _other_prompt(label: str, prompt: str, said: dict[str, str]) -> list[str]:
    """The prompt and the answers on one line, or on a line each where they are too long for one."""
    head = _head(label)
    line = f'{head}"{prompt}"' + "".join(f"  {name}: {answer}" for name, answer in said.items())
    if len(line) <= WIDTH:
        return [line]
    width = max(map(len, said)) + 1
    below = [f"{' ' * len(head)}{f'{name}:':<{width}} {answer}" for name, answer in said.items()]
    return [f'{head}"{_ending(prompt, WIDTH - len(head) - 2)}"', *below]


def _beginning(text: str, length: int = ANSWER_WIDTH) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def _ending(text: str, length: int) -> str:
    """The end of a prompt says what it asks for, so a long one loses its beginning."""
    return text if len(text) <= length else f"…{text[len(text) - length + 1 :].lstrip()}"
