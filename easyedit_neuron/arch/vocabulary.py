"""Whether a tokenizer fits its model, and the texts that it is about to read."""

import functools
import logging
from collections.abc import Sequence

from ..errors import ArchitectureError, RequestError
from ..utils.spelling import folded_text
from .chat import plain_tokenizer
from .tokens import text_ids, token_ids

LOG = logging.getLogger(__name__)
MOST_UNKNOWN = 0.1
"""Share of unknown tokens in a text from which on its tokenizer does not fit."""
LEAST_SIZE = 0.8
"""Share of the model's tokens that a tokenizer of its own has at least; the rest is padding."""
REMEDY = "load tokenizer and model from the same folder"


def check_vocabulary(model, tok, texts: Sequence[str]) -> None:
    """Check that a tokenizer belongs to the model and can read some texts, before any work.

    A few unknown tokens, or a tokenizer that is much smaller than the model, are a warning.

    Raises:
        ArchitectureError: a text has token ids that the model does not have (EasyEdit loads GPT-2's tokenizer
            for every path with "gpt" in it), consists of unknown tokens to a tenth (a conversion may turn
            every blank into one), or is another text when it is decoded again.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    check_lengths(model, text_ids(tok, texts))
    tok = plain_tokenizer(tok)
    unknown_texts = []
    for number, text in enumerate(texts):
        ids = token_ids(tok, text, special=False)
        name = f"request {number}: the tokenizer ({type(tok).__name__})"
        largest = max(ids, default=0)
        if largest >= rows:
            raise ArchitectureError(
                f"{name} gives {text!r} the token id {largest}, but the model "
                f"({model.config.model_type}) has {rows} tokens; {REMEDY}"
            )
        unknown = 0 if tok.unk_token_id is None else ids.count(tok.unk_token_id)
        decoded = tok.decode(ids)
        if unknown >= MOST_UNKNOWN * max(1, len(ids)) or (
            not unknown and _letters(decoded) != _letters(text)
        ):
            raise ArchitectureError(
                f"{name} cannot read {text!r}: it gives {unknown} unknown of {len(ids)} tokens, which decode "
                f"to {decoded!r}. It does not fit the model, or was damaged when it was saved or converted; "
                f"{REMEDY}"
            )
        if unknown:
            unknown_texts.append(text)
    if unknown_texts:
        LOG.warning(
            "the tokenizer has unknown tokens in %d text(s), such as %r", len(unknown_texts), unknown_texts[0]
        )
    if len(tok) < LEAST_SIZE * rows:
        _warn_of_size(len(tok), rows)


@functools.cache
def _warn_of_size(tokens: int, rows: int) -> None:
    """Once, not at each of a thousand edits."""
    warning = "the tokenizer has %s tokens and the model %s: do they belong together? If not, %s"
    LOG.warning(warning, f"{tokens:,}", f"{rows:,}", REMEDY)


def positions(model) -> int | None:
    """The longest row of token ids that a model takes; None where its config does not say."""
    config = getattr(model, "config", None)
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)


def check_lengths(model, rows: Sequence[Sequence[int]]) -> None:
    """``RequestError`` for a row of token ids that is longer than the model's positions."""
    most = positions(model)
    for number, row in enumerate(rows):
        if most is not None and len(row) > most:
            raise RequestError(
                f"text {number} has {len(row):,} tokens, and the model has {most:,} positions; make it "
                "shorter"
            )


def _letters(text: str) -> str:
    """A text without blanks, which tokenizers add and leave out around signs, in lower case."""
    return "".join(folded_text(text).casefold().split())
