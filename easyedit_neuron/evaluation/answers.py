"""What a model says: greedy continuations, cut where an answer ends."""

import re
from collections.abc import Sequence

from .batched import greedy_tokens
from .batching import by_length, evaluating, token_ids

ANSWER_TOKENS = 16
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def answers(
    model, tok, prompts: Sequence[str], max_new_tokens: int = ANSWER_TOKENS, batch_size: int = 64
) -> list[str]:
    """Continue every prompt greedily; cut at the end-of-text token, a new line or the end of a sentence.

    Returns:
        One text per prompt, without surrounding blanks and with its full stop; "" where the model ends at
        once.
    """
    rows = token_ids(tok, prompts)
    texts = [""] * len(rows)
    with evaluating(model):
        for batch in by_length([len(row) for row in rows], batch_size):
            generated = greedy_tokens(model, [rows[i] for i in batch], max_new_tokens)
            for i, ids in zip(batch, generated):
                texts[i] = cut_answer(tok, ids)
    return texts


def cut_answer(tok, ids: Sequence[int]) -> str:
    """The text of generated tokens up to the end of the answer; see ``answers``."""
    ids = list(ids)
    if tok.eos_token_id in ids:
        ids = ids[: ids.index(tok.eos_token_id)]
    text = tok.decode(ids, skip_special_tokens=True).lstrip().partition("\n")[0]
    end = _SENTENCE_END.search(text)
    return (text[: end.end()] if end else text).strip()
