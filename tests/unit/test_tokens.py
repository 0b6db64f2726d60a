"""Token batches and subject positions, against counts by character offsets; nothing depends on the padding
settings."""

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from easyedit_neuron.arch.tokens import encode, pad, subject_last_index, target_token_ids, token_ids
from easyedit_neuron.errors import RequestError
from helpers.tiny_models import tiny_tokenizer


def metaspace_tokenizer():
    """Marks the start of every text as the start of a word, as SentencePiece does for Llama-2."""
    words = {"<unk>": 0, "<s>": 1, "▁": 2, "▁Anna": 3, "▁lives": 4, "▁in": 5, "▁Paris": 6, "▁x": 7}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


def test_pad_by_hand():
    batch = pad([[5, 6, 7], [8]])
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.lengths.tolist() == [3, 1] and batch.last.tolist() == [2, 0]
    assert set(batch.inputs) == {"input_ids", "attention_mask"} and batch.input_ids.dtype == torch.int64
    assert batch.rows(1, 2).input_ids.tolist() == [[8]] and batch.rows(0, 2).input_ids.shape == (2, 3)


@pytest.mark.parametrize("rows, message", [([], "no prompts"), ([[1], []], "prompt 1 has no tokens")])
def test_nothing_to_pad(rows, message):
    with pytest.raises(RequestError, match=message):
        pad(rows)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("with_pad", [True, False])
def test_encode_is_right_padded_whatever_the_tokenizer_says(side, with_pad):
    tok = tiny_tokenizer(pad=with_pad)
    tok.padding_side = side
    settings = dict(vars(tok))
    texts = ["Anna Berg was born in", "I"]
    batch = encode(tok, texts, extra_ids=[[9, 8], []])
    rows = [tok(texts[0])["input_ids"] + [9, 8], tok(texts[1])["input_ids"]]
    assert [batch.input_ids[i, :n].tolist() for i, n in enumerate(batch.lengths)] == rows
    assert batch.input_ids[:, 0].tolist() == [tok.bos_token_id] * 2
    assert batch.attention_mask.sum(1).tolist() == [len(r) for r in rows]
    assert dict(vars(tok)) == settings


def test_extra_ids_must_fit():
    with pytest.raises(ValueError):
        encode(tiny_tokenizer(), ["a", "b"], extra_ids=[[1]])


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    "template, subject",
    [
        ("{} was born in", "Anna Berg"),
        ("The mother tongue of {} is", "Peter Olsen"),
        ("You know {}", "Marie Lund"),
        ("{}", "I"),
        ("The capital of {} is", "Østerdalen"),
        ("Therefore the sport that {}, who lives in Rome, plays is", "Anna"),
    ],
)
def test_subject_position_equals_the_count_by_offsets(bos, template, subject):
    tok = tiny_tokenizer(bos)
    text = template.format(subject)
    end = len(template.split("{}")[0]) + len(subject)
    encoded = tok(text, return_offsets_mapping=True)
    by_offsets = max(i for i, (start, stop) in enumerate(encoded["offset_mapping"]) if start < stop <= end)
    index = subject_last_index(tok, template, subject)
    assert index == by_offsets
    assert tok.decode(encoded["input_ids"][index]).strip() and text[:end].endswith(
        tok.decode(encoded["input_ids"][index]).strip()[-1:]
    )


def test_bos_moves_the_subject_by_one():
    assert (
        subject_last_index(tiny_tokenizer(True), "{} is", "Anna Berg")
        == subject_last_index(tiny_tokenizer(False), "{} is", "Anna Berg") + 1
    )


@pytest.mark.parametrize("template, subject", [("no place", "Anna"), ("{} and {}", "Anna"), ("{} is", " ")])
def test_subject_position_needs_one_place(template, subject):
    with pytest.raises(RequestError, match="exactly once"):
        subject_last_index(tiny_tokenizer(), template, subject)


@pytest.mark.parametrize("bos", [True, False])
def test_target_tokens_are_those_that_follow_a_prompt(bos):
    tok = tiny_tokenizer(bos)
    prompt = token_ids(tok, "Anna Berg was born in")
    for target in ("Paris", " Paris", "Rome and London", "1995", "Østerdalen"):
        ids = target_token_ids(tok, target)
        assert prompt + ids == token_ids(tok, "Anna Berg was born in " + target.strip())
        assert ids == tok(" " + target.strip(), add_special_tokens=False)["input_ids"]


def test_a_tokenizer_that_marks_the_start_of_a_text():
    tok = metaspace_tokenizer()
    assert token_ids(tok, " Paris") == [2, 6]  # alone: a blank piece that never follows a prompt
    assert token_ids(tok, "Anna lives in Paris") == [3, 4, 5, 6]
    assert target_token_ids(tok, "Paris") == [6]


def test_a_target_outside_of_the_vocabulary():
    with pytest.raises(RequestError, match="'Madrid' has no tokens"):
        target_token_ids(metaspace_tokenizer(), "Madrid")
