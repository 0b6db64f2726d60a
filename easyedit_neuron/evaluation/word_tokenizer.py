"""Words of a generated text, counted as EasyEdit's fluency counts them, without a download.

EasyEdit calls ``nltk.word_tokenize``, which splits sentences with a trained model (``punkt_tab``, a download)
and words by the Penn Treebank conventions. Here both are rules: a sentence ends at ``.``, ``!`` or ``?``
before white space (not at an initial or one of the abbreviations below), and only the full stop that ends a
sentence is a word of its own. On plain text the words are the same; they may differ at rarer abbreviations.
"""

import re

_ABBREVIATIONS_TEXT = """
mr mrs ms dr prof sr jr st vs etc inc ltd corp co u.s u.k e.g i.e a.m p.m
jan feb aug sept oct nov dec gen col maj sen rep gov
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS_TEXT.split())

_SENTENCE_END = re.compile(r"""(\S*[.!?])[\])}"'»”’]*(?=\s+(\S))""")
_FINAL_STOP = re.compile(r"""(?<=[^.])\.(?=[\])}>"'»”’\s]*$)""")
_OPENING_QUOTE = re.compile(r"""(?:(?<=^)|(?<=[\s(\[{<]))(?:"|'')""")
_APART = re.compile(r"""\.{2,}|--|``+|''|"|[?!;@#$%&*()\[\]{}<>«»“”„‘’\u2012-\u2015]|[:,](?!\d)""")
_OPENING_APOSTROPHE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_CLOSING_APOSTROPHE = re.compile(r"(?<=[^'\s])'(?=\s|$)")
_CLITIC = re.compile(r"(?<=[^'\s])('s|'m|'d|'ll|'re|'ve|n't)(?=\s|$)", re.IGNORECASE)
_JOINED = re.compile(r"\b(can)(not)\b|\b(gim|lem)(me)\b|\b(gon|wan)(na)\b|\b(got)(ta)\b", re.IGNORECASE)


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space at their ends removed."""
    parts, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        word, following = match.groups()
        bare = word.rstrip(".!?").lstrip("([{\"'«“‘").lower()
        if word.endswith(".") and (bare in ABBREVIATIONS or _continues(bare, following)):
            continue
        parts.append(text[start : match.end()])
        start = match.end()
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _continues(bare: str, following: str) -> bool:
    """Whether the sentence goes on: after an initial (``J. Lund``), or a number before a small letter."""
    if len(bare) == 1 and bare.isalpha():
        return following.isalpha() or following in ";:,.!?"
    return bare.isdigit() and following.islower()


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text in order."""
    tokens: list[str] = []
    for sentence in sentences(text):
        sentence = _OPENING_QUOTE.sub(" `` ", sentence)
        sentence = _OPENING_APOSTROPHE.sub("' ", sentence)
        sentence = _FINAL_STOP.sub(" . ", sentence)
        sentence = _APART.sub(lambda mark: f" {mark.group()} ", sentence).replace('"', "''")
        sentence = _CLOSING_APOSTROPHE.sub(" '", sentence)
        sentence = _CLITIC.sub(r" \1", sentence)
        sentence = _JOINED.sub(lambda match: " ".join(part for part in match.groups() if part), sentence)
        tokens += sentence.split()
    return tokens
