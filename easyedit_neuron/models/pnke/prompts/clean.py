"""From what a model wrote to a prompt that can stand in P_sem, or to the reason why it cannot."""

from __future__ import annotations

import re

from ....edits.request import EditRequest

_LABEL = re.compile(
    r"^(?:[-*•]\s+|\(?\d{1,2}[.):]\s+|(?:in other words|rewritten prompt|rewritten|prompt|paraphrase)\s*:\s*)",
    re.IGNORECASE,
)
_BLANK = re.compile(r"\s*(?:_{2,}|\.{3,}|…|\[[^\]]*\])[.?!]?$")
_QUOTES = '"“”«»`'


def normal(text: str) -> str:
    """Form in which two texts are compared: one space between words, no difference between cases."""
    return " ".join(text.split()).casefold()


def answer_line(written: str, subject: str) -> str:
    """The first line with the subject, or ``""``: without list mark, label, quotes, and the blank for the
    answer at its end."""
    line = next((line.strip() for line in written.splitlines() if subject in line), "")
    before = None
    while line != before:
        before = line
        shorter = [
            _LABEL.sub("", line),
            line.strip(_QUOTES).strip() if line[:1] in _QUOTES else line,
            _BLANK.sub("", line),
        ]
        # none of it may cost the subject: a name can begin with a number or stand in brackets
        line = next((one for one in shorter if one != line and subject in one), line)
    return line


def without_full_stop(text: str, model: str) -> str:
    """The text without a full stop that ``model`` does not have: translators end every text as a sentence."""
    return text.rstrip(".").rstrip() if text.endswith(".") and not model.endswith(".") else text


def objection(text: str, request: EditRequest, written: bool = True) -> str | None:
    """Why a text cannot stand in the request's P_sem, or None.

    Args:
        written: by a model, which may have given the answer away or have ended the sentence after it.
    """
    if not text.strip():
        return "is empty"
    if request.subject not in text:
        return "lacks the subject"
    if normal(text) == normal(request.text):
        return "is the prompt"
    if normal(text) == normal(request.subject):
        return "is the subject alone"
    if not written:
        return None
    if "\n" in text:
        return "has several lines"
    for name, phrase in (("target_new", request.target_new), ("ground_truth", request.ground_truth)):
        # an answer that is part of the subject or of the prompt gives nothing away
        if phrase and _says(text.replace(request.subject, " "), phrase) and not _says(request.prompt, phrase):
            return f"holds the {name}"
    if text[-1] in ".!" and request.text[-1] not in ".!" and not text.endswith(request.subject):
        return "is a finished sentence"
    return None


def _says(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(normal(phrase))}(?!\w)", normal(text)) is not None
