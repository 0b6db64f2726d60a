"""What a model wrote becomes a prompt of P_sem, or is refused with a reason."""

import re

from ....edits.request import EditRequest

_LIST_MARK = r"[-*•]\s+|\(?\d{1,2}[.):]\s+"
_LABEL_WORDS = r"(?:in other words|rewritten prompt|rewritten|prompt|paraphrase)\s*:\s*"
_LABEL = re.compile(rf"^(?:{_LIST_MARK}|{_LABEL_WORDS})", re.IGNORECASE)
_BLANK = re.compile(r"\s*(?:_{2,}|\.{3,}|…|\[[^\]]*\])[.?!]?$")
_QUOTES = '"“”«»`'


def normalised(text: str) -> str:
    """Form in which two texts are compared: single spaces between words, no difference between cases."""
    return " ".join(text.split()).casefold()


def answer_line(written: str, subject: str) -> str:
    """The first line with the subject, or ``""``; list mark, label, quotes and a blank for the answer at its
    end are removed."""
    line = next((line.strip() for line in written.splitlines() if subject in line), "")
    previous = None
    while line != previous:
        previous = line
        candidates = [
            _LABEL.sub("", line),
            line.strip(_QUOTES).strip() if line[:1] in _QUOTES else line,
            _BLANK.sub("", line),
        ]
        # The subject must survive: a name can begin with a number or stand in brackets.
        line = next((text for text in candidates if text != line and subject in text), line)
    return line


def without_full_stop(text: str, original: str) -> str:
    """The text without a full stop that ``original`` does not have: translators end every text with one."""
    return text.rstrip(".").rstrip() if text.endswith(".") and not original.endswith(".") else text


def objection(text: str, request: EditRequest, written_by_model: bool = True) -> str | None:
    """Why a text cannot be in the request's P_sem, or None.

    Args:
        written_by_model: a model may have given the answer away or have finished the sentence with it.
    """
    if not text.strip():
        return "is empty"
    if request.subject not in text:
        return "lacks the subject"
    if normalised(text) == normalised(request.text):
        return "is the prompt"
    if normalised(text) == normalised(request.subject):
        return "is the subject alone"
    if not written_by_model:
        return None
    if "\n" in text:
        return "has several lines"
    for field, phrase in (("target_new", request.target_new), ("ground_truth", request.ground_truth)):
        # An answer that is part of the subject or of the prompt gives nothing away.
        if phrase and _says(text.replace(request.subject, " "), phrase) and not _says(request.prompt, phrase):
            return f"holds the {field}"
    if text[-1] in ".!" and request.text[-1] not in ".!" and not text.endswith(request.subject):
        return "is a finished sentence"
    return None


def _says(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(normalised(phrase))}(?!\w)", normalised(text)) is not None
