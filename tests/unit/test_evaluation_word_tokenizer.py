"""Words, sentences and n-gram entropy by hand."""

import math

import pytest

from easyedit_neuron.evaluation.fluency import ngram_entropy
from easyedit_neuron.evaluation.word_tokenizer import sentences, words


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Anna lives in Rome. She works.", ["Anna", "lives", "in", "Rome", ".", "She", "works", "."]),
        ("It's Anna's, isn't it?", ["It", "'s", "Anna", "'s", ",", "is", "n't", "it", "?"]),
        (
            'He said "no" (twice); why?!',
            ["He", "said", "``", "no", "''", "(", "twice", ")", ";", "why", "?", "!"],
        ),
        ("Mr. Berg paid $3.50, or 3,50.", ["Mr.", "Berg", "paid", "$", "3.50", ",", "or", "3,50", "."]),
        ("Well... I cannot -- so.", ["Well", "...", "I", "can", "not", "--", "so", "."]),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_sentences_end_before_white_space_only():
    assert sentences("A b c.d ef. G h! J. Lund said so? Yes") == [
        "A b c.d ef.",
        "G h!",
        "J. Lund said so?",
        "Yes",
    ]


def test_entropy_by_hand():
    # bigrams: ab, ba, ab, ba -> 1 bit; trigrams: aba, bab, aba -> H(2/3, 1/3)
    trigrams = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert ngram_entropy("a b a b a") == pytest.approx((2 / 3 * 1 + 4 / 3 * trigrams) / 2)
    assert ngram_entropy("a a a a a a") == 0.0
    assert ngram_entropy("a") == 0.0 and ngram_entropy("") == 0.0
