"""Edit requests: EasyEdit's dictionaries, checked once, before anything is changed."""

from dataclasses import dataclass, field

from ..errors import RequestError
from ..utils.shown import shown
from ..utils.spelling import difference, last_occurrence, tidied


@dataclass(frozen=True)
class EditRequest:
    """One validated request.

    Attributes:
        index: position in the caller's list.
        prompt: the prompt with the subject replaced by exactly one ``{}``.
        subject: the subject as it stands in the prompt.
        target_new: the new object with a leading space.
        ground_truth: the old object with a leading space, or None.
        raw: the caller's dictionary, as ``tidied``.
    """

    index: int
    prompt: str
    subject: str
    target_new: str
    ground_truth: str | None = None
    raw: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def text(self) -> str:
        """The prompt with its subject filled in."""
        return self.prompt.format(self.subject)

    @property
    def fact(self) -> "Fact":
        """Subject, prompt and new object."""
        return self.subject, self.prompt, self.target_new


Fact = tuple[str, str, str]
"""(subject, prompt template, new object) of an edit."""

_SUBJECT_REMEDY = (
    "; pass subject=[...] to the editor, one per prompt, spelled as there (EasyEdit's normal_edit takes no "
    "subject: call batch_edit)"
)


def _text(request: dict, name: str, index: int) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value.strip():
        remedy = _SUBJECT_REMEDY if name == "subject" else ""
        raise RequestError(
            f"request {index}: field {name!r} must be a non-empty string, got {shown(value)}{remedy}"
        )
    return value


def _first(value):
    """The first alias of a ground truth given as a list, or a list of lists."""
    while isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return value


def _template(prompt: str, subject: str, index: int) -> str:
    """The prompt with ``{}`` for the last occurrence of the subject, where a causal model has read all."""
    start = last_occurrence(prompt, subject)
    if start < 0:
        raise RequestError(
            f"request {index}: subject {subject!r} does not occur in prompt {prompt!r}; spell it as there"
            + difference(prompt, subject)
        )
    before, after = prompt[:start], prompt[start + len(subject) :]
    if "{" in before + after or "}" in before + after:
        raise RequestError(
            f"request {index}: prompt {prompt!r} holds braces besides the subject's '{{}}'; remove them"
        )
    return before + "{}" + after


def prepare(requests: list[dict]) -> list[EditRequest]:
    """Check EasyEdit's request dictionaries, without changing them; they are read as ``tidied``.

    Args:
        requests: dictionaries with ``prompt``, ``subject``, ``target_new`` and optionally ``ground_truth``.

    Raises:
        RequestError: a field is missing or wrong; the text names the request's index and the remedy.
    """
    if not isinstance(requests, (list, tuple)) or not requests:
        raise RequestError(
            "requests must be a non-empty list of dictionaries with prompt, subject and target_new"
        )
    prepared = []
    for index, raw in enumerate(requests):
        if not isinstance(raw, dict):
            raise RequestError(f"request {index}: must be a dictionary, got {type(raw).__name__}")
        request = tidied(raw)
        subject, prompt = _text(request, "subject", index), _text(request, "prompt", index)
        target, truth = _text(request, "target_new", index), _first(request.get("ground_truth"))
        prepared.append(
            EditRequest(
                index,
                _template(prompt, subject, index),
                subject,
                " " + target,
                " " + truth if isinstance(truth, str) and truth.strip() else None,
                request,
            )
        )
    return prepared


def plain_request(request: EditRequest) -> dict:
    """The fields of a request that make the edit."""
    return {
        "prompt": request.text,
        "subject": request.subject,
        "target_new": request.target_new.strip(),
        "ground_truth": request.ground_truth and request.ground_truth.strip(),
    }
