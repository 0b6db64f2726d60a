"""Texts of requests as they are meant: blanks at their ends, ``{}`` for the subject, and the subject's
spelling.

A table's cells often end in a blank, and a blank that a user does not see makes other tokens. Everything that
edits or measures reads requests through ``tidied``, so that both read the same.
"""

import logging
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from ..errors import RequestError
from .plain_trees import check_tree
from .shown import shown

LOG = logging.getLogger(__name__)
BLANKS = " \t\u00a0\u2007\u202f\u3000"
"""What is cut off at the end of a prompt, where a line end may be meant."""
ANSWERS = ("target_new", "ground_truth", "target_neg")
PROMPTS = ("prompt", "rephrase_prompt", "loc_prompt")
SECTIONS = ("locality", "portability")
_ALIKE = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-"})
SHOWN = 3


def tidied(request: dict[str, Any]) -> dict[str, Any]:
    """A request without blanks at the ends of its texts, with its subject filled in and spelled as there.

    - Blanks and line ends around answers and subject, and blanks behind a prompt, are cut off: a target that
      follows a prompt gets its one blank anyway.
    - ``{}`` in a prompt stands for the subject where the subject is not in it.
    - A subject that looks like a part of the prompt, but is written with other characters (composed or
      decomposed accents, non-breaking blanks, typographic apostrophes), is spelled as there.

    The request itself where nothing changes; it is never changed. Values that are no texts stay as they are.

    Raises:
        RequestError: it is no dictionary, is nested too deeply, or has texts that are no Unicode.
    """
    if not isinstance(request, dict):
        raise RequestError(f"a request must be a dictionary, not {shown(request)}")
    try:
        check_tree(request)
    except ValueError as problem:
        raise RequestError(f"a request {problem}") from None
    result = dict(request)
    for name in ANSWERS:
        if name in result:
            result[name] = _each(result[name], str.strip)
    subject = result.get("subject")
    if isinstance(subject, str):
        subject = result["subject"] = subject.strip()
    for name in PROMPTS:
        if name in result:
            result[name] = _each(result[name], lambda text: _filled(text.rstrip(BLANKS), subject))
    for name in SECTIONS:
        if isinstance(result.get(name), dict):
            result[name] = {kind: _tidied_section(inputs) for kind, inputs in result[name].items()}
    prompt = result.get("prompt")
    if isinstance(prompt, str) and isinstance(subject, str) and subject and subject not in prompt:
        result["subject"] = spelled_as_in(prompt, subject) or subject
    return request if result == request else result


def tidied_all(requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``tidied`` of every request, with a warning that names those that changed; idempotent.

    Raises:
        RequestError: names the request by its number.
    """
    results = []
    for index, request in enumerate(requests):
        try:
            results.append(tidied(request))
        except RequestError as problem:
            raise RequestError(str(problem).replace("a request", f"request {index}", 1)) from None
    changed = [index for index, (old, new) in enumerate(zip(requests, results)) if old is not new]
    if changed:
        named = ", ".join(map(str, changed[:SHOWN])) + (" ..." if len(changed) > SHOWN else "")
        first = changed[0]
        fields = [name for name, value in results[first].items() if value != requests[first].get(name)]
        LOG.warning(
            "%d request(s) (%s) are read without blanks at the ends of texts, and with their subject filled "
            "in and spelled as in the prompt; request %d: %s",
            *(len(changed), named, first),
            ", ".join(f"{name} {results[first][name]!r}" for name in fields if name not in SECTIONS)
            or ", ".join(fields),
        )
    return results


def fact_of(request: dict[str, Any]) -> tuple:
    """What two requests of the same fact have in common: prompt and subject."""
    return request["prompt"].strip(), request.get("subject")


def spelled_as_in(text: str, name: str) -> str | None:
    """The last part of a text that looks like a name; None where there is none."""
    folded = folded_text(name)
    if folded not in folded_text(text):
        return None
    for start in range(len(text) - 1, -1, -1):
        # Decomposed accents make a spelling longer or shorter by at most a few times.
        for stop in range(start + 1, min(len(text), start + 4 * len(name)) + 1):
            part = text[start:stop]
            if folded_text(part) == folded and not unicodedata.combining(part[0]):
                while stop < len(text) and unicodedata.combining(text[stop]):
                    stop += 1
                return text[start:stop] if folded_text(text[start:stop]) == folded else None
    return None


def folded_text(text: str) -> str:
    """A text in one of the spellings that look alike."""
    return unicodedata.normalize("NFKC", text).translate(_ALIKE)


def difference(text: str, name: str) -> str:
    """What may keep a name from being in a text, to be added to an error; empty where nothing is seen."""
    if name.casefold() in text.casefold():
        return " (it differs in upper and lower case)"
    if not (name + text).isascii():
        codes = (part.encode("unicode_escape").decode("ascii") for part in (name, text))
        return " (by code points: '{}' in '{}')".format(*codes)
    return ""


def last_occurrence(text: str, name: str) -> int:
    """Where a name last begins in a text, as words of its own if it does so anywhere; -1 where it does not.

    "C" is the first word of "C was made by Cook".
    """
    words = list(re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text))
    return words[-1].start() if words else text.rfind(name)


def _filled(text: str, subject: Any) -> str:
    if not isinstance(subject, str) or not subject or text.count("{}") != 1:
        return text
    is_there = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", text)
    return text if is_there else text.replace("{}", subject)


def _tidied_section(inputs: Any) -> Any:
    if not isinstance(inputs, dict):
        return inputs
    result = dict(inputs)
    for name, cut in (("prompt", lambda text: text.rstrip(BLANKS)), ("ground_truth", str.strip)):
        if name in result:
            result[name] = _each(result[name], cut)
    return result


def _each(value: Any, change) -> Any:
    """A changed text, or a list of changed texts, at any depth; a text that would be empty stays."""
    if isinstance(value, str):
        return change(value) or value
    if isinstance(value, (list, tuple)):
        return type(value)(_each(item, change) for item in value)
    return value
