"""CounterFact's generation prompts, which stand as rephrasings in EasyEdit's flat file.

Three of four ``rephrase_prompt``s of ``counterfact-edit.json`` do not ask for the edited fact: "X's
surroundings include" where the fact is "X is in". CounterFact's own paraphrases follow an unrelated sentence:
164 of 173 are recognised by that, and none of 858 generation prompts.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

LEAST_SHARE = 0.05
"""Of a file's rephrasings that must follow a sentence, so that the others are generation prompts."""
KIND = "generation"


def has_generation_prompts(records: Iterable[Any]) -> bool:
    """Whether some rephrasings of flat CounterFact records follow a sentence, as its paraphrases do, and
    others do not."""
    behind = [
        _follows_sentence(record["rephrase_prompt"], record.get("subject"))
        for record in records
        if isinstance(record, dict) and "case_id" in record and isinstance(record.get("rephrase_prompt"), str)
    ]
    return bool(behind) and LEAST_SHARE * len(behind) <= sum(behind) < len(behind)


def separated(requests: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The requests with generation prompts as the portability kind ``generation``, and how many there are."""
    result, count = [], 0
    for request in requests:
        prompt = request.get("rephrase_prompt")
        if isinstance(prompt, str) and not _follows_sentence(prompt, request["subject"]):
            request = {name: value for name, value in request.items() if name != "rephrase_prompt"}
            probe = {"prompt": prompt, "ground_truth": request["target_new"]}
            request["portability"] = {**request["portability"], KIND: probe}
            count += 1
        result.append(request)
    return result, count


def _follows_sentence(prompt: str, subject: Any) -> bool:
    """Whether a sentence ends before the subject."""
    place = prompt.find(subject) if isinstance(subject, str) else -1
    return place > 0 and re.search(r"[.!?][\"')]*\s", prompt[:place]) is not None
