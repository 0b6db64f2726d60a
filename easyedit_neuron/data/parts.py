"""Parts of requests that converters of several shapes make from a record's fields."""

from typing import Any

from ..utils.spelling import difference, tidied
from .record import Record


def request_of(
    record: Record, prompt: str, target: str, truth: str, rephrase: str, subject: str = "subject"
) -> dict[str, Any]:
    """A request without probes from the fields of those names."""
    request: dict[str, Any] = {"prompt": record.string(prompt), "subject": record.string(subject)}
    request["target_new"] = record.first(target) or record.string(target)
    request |= {"ground_truth": record.first(truth), "locality": {}, "portability": {}}
    name, text = (tidied(request)[field] for field in ("subject", "prompt"))
    if name not in text:
        problem = f"{name!r} does not occur in the prompt {text!r}{difference(text, name)}"
        raise record.error(subject, problem)
    rephrased = record.first(rephrase)
    if rephrased is not None:
        request["rephrase_prompt"] = rephrased
    return request


def templated(rewrite: Record) -> dict[str, Any]:
    """Prompt and subject of a rewrite whose prompt has ``{}`` for the subject."""
    subject, template = rewrite.string("subject"), rewrite.string("prompt")
    if template.count("{}") != 1:
        raise rewrite.error("prompt", f"must hold '{{}}' once, for the subject: {template!r}")
    return {"prompt": template.replace("{}", subject), "subject": subject}


def neighborhood_of(record: Record) -> dict[str, Any]:
    """The locality of a record with ``loc`` and ``loc_ans``; empty without them."""
    has_probe = record.has("loc") and record.has("loc_ans")
    return {"neighborhood": probe_of(record, "loc", "loc_ans")} if has_probe else {}


def paraphrases_of(record: Record) -> list[str]:
    """A record's paraphrases, if it has any."""
    return record.strings("paraphrase_prompts") if record.has("paraphrase_prompts") else []


def probe_of(record: Record, prompt: str, answer: str) -> dict[str, str]:
    """A locality or portability probe from the fields of those names."""
    return {"prompt": record.string(prompt), "ground_truth": record.first(answer) or record.string(answer)}
