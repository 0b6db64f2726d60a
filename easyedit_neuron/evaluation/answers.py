"""What a model says: greedy continuations, cut where an answer ends, and whether they are the new object."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..arch.tokens import text_ids
from .batching import by_length, evaluating
from .decoding import greedy_tokens

ANSWER_TOKENS = 16
TOKENS_BEYOND_TARGET = 20
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_NEXT_SENTENCE = re.compile(r"[.!?]\s+\w")  # where a text breaks off, "3." may become "3.5"


def answers(
    model, tok, prompts: Sequence[str], max_new_tokens: int = ANSWER_TOKENS, batch_size: int = 64
) -> list[str]:
    """Continue every prompt greedily; cut at the end-of-text token, a new line or the end of a sentence.

    Returns:
        One text per prompt, without surrounding blanks and with its full stop; "" where the model ends at
        once.
    """
    steps = [max_new_tokens] * len(prompts)
    continued = _continue(model, tok, prompts, steps, batch_size, lambda _, text: _is_over(text))
    return [cut_answer(tok, ids) for ids in continued]


def _continue(
    model,
    tok,
    prompts: Sequence[str],
    steps: Sequence[int],
    batch_size: int,
    is_enough: Callable[[int, str], bool],
) -> list[list[int]]:
    """As many greedy tokens after each prompt as its number of steps, or fewer: up to the end of the text, or
    as soon as ``is_enough`` says so of the prompt's number and the text so far."""
    rows = text_ids(tok, prompts)
    continued: list[list[int]] = [[] for _ in rows]
    with evaluating(model):
        for batch in by_length([len(row) for row in rows], batch_size):

            def is_settled(row: int, ids: list[int], batch: list[int] = batch) -> bool:
                i = batch[row]
                if len(ids) >= steps[i] or tok.eos_token_id in ids:
                    return True
                # Half a character is no text yet.
                return is_enough(i, tok.decode(ids, skip_special_tokens=True).rstrip("\ufffd"))

            longest = max(steps[i] for i in batch)
            generated = greedy_tokens(model, [rows[i] for i in batch], longest, is_settled)
            for i, ids in zip(batch, generated):
                continued[i] = ids[: steps[i]]
    return continued


def cut_answer(tok, ids: Sequence[int]) -> str:
    """The text of generated tokens up to the end of the answer; see ``answers``."""
    text = _text_before_end(tok, ids).lstrip().partition("\n")[0]
    end = _SENTENCE_END.search(text)
    return (text[: end.end()] if end else text).strip()


def _is_over(text: str) -> bool:
    """Whether ``cut_answer`` stays as it is, whatever is written behind a text."""
    text = text.lstrip()
    return "\n" in text or _NEXT_SENTENCE.search(text) is not None


def _text_before_end(tok, ids: Sequence[int]) -> str:
    """The text of generated tokens up to the end-of-text token."""
    ids = list(ids)
    if tok.eos_token_id in ids:
        ids = ids[: ids.index(tok.eos_token_id)]
    return tok.decode(ids, skip_special_tokens=True)


@dataclass(frozen=True)
class Verdict:
    """A greedy continuation as a whole, 1.0 or 0.0 each; case, and signs at both ends, do not matter.

    Attributes:
        says: the answer begins with the target, as whole words, and does not hold the old object.
        equals: the answer is the target and nothing else.
        text_equals: so is the text up to the end-of-text token, without another cut (the measure of "The
            Mirage of Model Editing"). A model that goes on after its answer has 0.
        answer: what was compared; without ``to_the_end`` it may end where the three are settled.
    """

    says: float
    equals: float
    text_equals: float
    answer: str = field(default="", compare=False)


def judge_answers(
    model,
    tok,
    prompts: Sequence[str],
    targets: Sequence[str],
    old_objects: Sequence[str | None],
    batch_size: int = 64,
    to_the_end: bool = False,
) -> list[Verdict]:
    """Let the model answer every prompt without teacher forcing, and compare the whole answer.

    At most ``TOKENS_BEYOND_TARGET`` tokens more than the target has are generated; ``cut_answer`` says where
    an answer ends. ``old_objects``: the object before the edit, None where it is not known. ``to_the_end``:
    write every answer to its end, also where the verdict is settled before.
    """
    lengths = [len(ids) for ids in tok(list(targets), add_special_tokens=False)["input_ids"]]
    steps = [length + TOKENS_BEYOND_TARGET for length in lengths]
    new = [_words(target).split() for target in targets]

    def is_enough(i: int, text: str) -> bool:
        return _is_judged(text, new[i]) and (_is_over(text) or not to_the_end)

    continued = _continue(model, tok, prompts, steps, batch_size, is_enough)
    return [_judge(tok, *answer) for answer in zip(continued, targets, old_objects, strict=True)]


def _judge(tok, ids: list[int], target: str, old_object: str | None) -> Verdict:
    written = cut_answer(tok, ids)
    answer, new, old = _words(written), _words(target), _words(old_object or "")
    text = _words(_text_before_end(tok, ids)) if tok.eos_token_id in ids else None
    is_said = says(written, target)
    if old and f" {old} " not in f" {new} ":
        is_said &= f" {old} " not in f" {answer} "
    return Verdict(float(is_said), float(answer == new), float(text == new), written)


def says(answer: str, target: str) -> bool:
    """Whether an answer begins with an object, as whole words."""
    return f"{_words(answer)} ".startswith(f"{_words(target)} ")


def _is_judged(text: str, new: list[str]) -> bool:
    """Whether a verdict stays as it is, whatever is written behind a text: another word stands where the new
    object should, or the answer is over and the text goes on behind the new object."""
    complete = re.findall(r"\w+(?=\W)", text.casefold())
    if complete[: len(new)] != new[: len(complete)]:
        return True
    return _is_over(text) and len(complete) > len(new)


def _words(text: str) -> str:
    """The words of a text, in lower case, with single blanks and without other signs."""
    return " ".join(re.findall(r"\w+", text.casefold()))
