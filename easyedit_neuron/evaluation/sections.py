"""What a request asks to be measured: its prompts and answers, section by section."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import RequestError
from ..utils.shown import shown
from ..utils.spelling import tidied

_FIELDS = {"rewrite": "prompt", "rephrase": "rephrase_prompt"}


@dataclass(frozen=True)
class Section:
    """Prompts of a request, one answer each, that are measured together; EasyEdit puts them into one batch.

    ``name``: "rewrite", "rephrase", "locality" or "portability"; ``kind`` of the latter two, else "".
    """

    index: int
    name: str
    kind: str
    prompts: list[str]
    answers: list[str]

    @property
    def is_rewrite(self) -> bool:
        """Whether the section asks for the edited fact itself."""
        return self.name in _FIELDS


def plain_requests(requests: Sequence) -> list[dict]:
    """The users' dictionaries, of requests or of validated ``EditRequest`` objects."""
    return [request if isinstance(request, dict) else request.raw for request in requests]


def with_prompts(requests: Sequence[dict], asked: Callable[[list[str]], list[str]]) -> list[dict]:
    """Requests whose prompts are replaced by ``asked`` of them, all in one call."""
    measured = sections(requests)
    prompts = list(dict.fromkeys(prompt for section in measured for prompt in section.prompts))
    new = dict(zip(prompts, asked(prompts), strict=True))
    replaced = [{**request, "locality": {}, "portability": {}} for request in requests]
    for section in measured:
        texts = [new[prompt] for prompt in section.prompts]
        request = replaced[section.index]
        if section.is_rewrite:
            request[_FIELDS[section.name]] = texts
        else:
            request[section.name][section.kind] = {"prompt": texts, "ground_truth": section.answers}
    return replaced


def sections(requests: Sequence[dict]) -> list[Section]:
    """Everything that requests ask to be measured, request after request, in EasyEdit's order."""
    return [section for index, request in enumerate(requests) for section in _sections_of(index, request)]


def _sections_of(index: int, request: dict) -> Iterator[Section]:
    request = tidied(request)
    for field in ("prompt", "target_new"):
        if request.get(field) is None:
            raise RequestError(f"request {index}: field {field!r} is missing; the evaluation needs it")
    texts = [("rewrite", "", request["prompt"], request["target_new"])]
    if request.get("rephrase_prompt") is not None:
        texts.append(("rephrase", "", request["rephrase_prompt"], request["target_new"]))
    for name in ("locality", "portability"):
        kinds = request.get(name) or {}
        if not isinstance(kinds, dict):
            raise RequestError(f"request {index}: {name} must be a dictionary of kinds, not {shown(kinds)}")
        for kind, inputs in kinds.items():
            fields = inputs if isinstance(inputs, dict) else {}
            texts.append((name, kind, fields.get("prompt"), fields.get("ground_truth")))
    for name, kind, prompt, answer in texts:
        where = f"request {index}: " + _FIELDS.get(name, f"{name}.{kind}")
        if prompt is None or answer is None:
            raise RequestError(f"{where} must be a dictionary with 'prompt' and 'ground_truth'")
        for value in (prompt, answer):
            if not isinstance(value, (str, list, tuple)):
                raise RequestError(f"{where}: expected texts, found {shown(value)}")
        # A single answer to several prompts goes with each of them.
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        answers = [answer] * len(prompts) if isinstance(answer, str) else list(answer)
        if kind and not prompts:
            raise RequestError(f"{where} has no prompts; leave the key out")
        if len(prompts) != len(answers):
            counts = f"{len(prompts)} prompts but {len(answers)} answers"
            raise RequestError(f"{where}: {counts}; give one answer per prompt")
        for text in prompts + answers:
            if not isinstance(text, str):
                raise RequestError(f"{where}: expected texts, found {shown(text)}")
        yield Section(index, name, kind, prompts, answers)
