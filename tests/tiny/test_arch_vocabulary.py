"""Tokenizers that add tokens behind a text, and those that do not fit their model."""

import copy
import json
import logging

import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from easyedit_neuron.arch.tokens import encode, subject_last_index, text_ids, token_ids
from easyedit_neuron.arch.vocabulary import check_vocabulary
from easyedit_neuron.errors import ArchitectureError, RequestError
from easyedit_neuron.evaluation import evaluate_all
from easyedit_neuron.host.checks import check_requests
from helpers.contract import apply, fresh, parameters, settings
from helpers.editing import REQUESTS, make_hparams
from helpers.tiny_models import tiny_model

TEXTS = ["Anna Berg was born in Paris", "Rome", "You know the capital of Norway"]


def adding(tok, template):
    """The tokenizer, with special tokens around every text."""
    tok = copy.deepcopy(tok)
    ids = [(name, tok.convert_tokens_to_ids(name)) for name in ("<s>", "</s>")]
    tok.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=f"{template} $B", special_tokens=ids
    )
    return tok


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_tokens_behind_a_text_are_left_out(kind):
    """ "<s> text </s>" and "text </s>" are read as "<s> text" and "text"."""
    _, tok = tiny_model(kind)
    eos, bos = tok.convert_tokens_to_ids("</s>"), tok.convert_tokens_to_ids("<s>")
    for template, front in (("<s> $A </s>", [bos]), ("$A </s>", []), ("<s> $A", [bos]), ("$A", [])):
        odd = adding(tok, template)
        own = [tok(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
        assert (odd(TEXTS[0])["input_ids"][-1] == eos) == template.endswith("</s>")
        assert text_ids(odd, TEXTS) == [front + ids for ids in own]
        assert token_ids(odd, TEXTS[0]) == front + own[0]
        assert token_ids(odd, TEXTS[0], special=False) == own[0]
        assert encode(odd, TEXTS).lengths.tolist() == [len(front) + len(ids) for ids in own]
        index = subject_last_index(odd, "{} was born in", "Anna Berg")
        assert (front + own[0])[: index + 1] == token_ids(odd, "Anna Berg")
    assert text_ids(tok, []) == []


def test_a_text_that_ends_in_such_a_token_keeps_its_own():
    _, tok = tiny_model("gpt2")
    odd = adding(tok, "$A </s>")
    own = tok("Rome</s>", add_special_tokens=False)["input_ids"]
    assert own[-1] == tok.convert_tokens_to_ids("</s>") and token_ids(odd, "Rome</s>") == own


METHODS = {
    **{
        method: lambda method, folder: settings(method, folder)
        for method in ("FiNE", "KNE", "PNKE", "NMKE", "Lasting")
    },
    **dict.fromkeys(("ROME", "MEMIT", "AlphaEdit"), make_hparams),
}


@pytest.mark.parametrize("method", METHODS)
def test_edits_and_measures_are_those_without_the_token(method, tmp_path):
    """Weights bit for bit, and every metric."""
    results = []
    for template in ("<s> $A", "<s> $A </s>"):
        model, tok = fresh("llama")
        tok = adding(tok, template)
        folder = tmp_path / str(len(template))
        folder.mkdir()
        hparams = METHODS[method](method, folder)
        apply(model, tok, REQUESTS[:2], hparams)
        results.append((parameters(model), evaluate_all(model, tok, REQUESTS)))
    (plain, plain_metrics), (odd, odd_metrics) = results
    assert all(torch.equal(value, odd[name]) for name, value in plain.items())
    assert str(plain_metrics) == str(odd_metrics)


def broken_blanks(tok, folder):
    """The tokenizer after a conversion that turns every blank into the unknown token."""
    tok.save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "Isolated",
        "invert": False,
    }
    content["model"]["unk_token"] = "<unk>"
    content["model"]["vocab"]["<unk>"] = len(content["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), unk_token="<unk>")


def test_a_tokenizer_that_loses_blanks(tmp_path):
    model, tok = tiny_model("gpt2", vocab_size=400)
    odd = broken_blanks(tok, tmp_path)
    assert odd.unk_token_id in odd(TEXTS[0])["input_ids"]
    for hparams in (make_hparams("MEMIT", tmp_path), settings("FiNE", tmp_path)):
        before = {name: value.clone() for name, value in parameters(model).items()}
        with pytest.raises(
            ArchitectureError, match="request 0: the tokenizer .* unknown of .* tokens.*damaged"
        ):
            apply(model, odd, REQUESTS, hparams)
        with pytest.raises(ArchitectureError, match="cannot read"):
            check_requests(hparams, REQUESTS, model, odd)
        assert all(torch.equal(value, parameters(model)[name]) for name, value in before.items())


def test_a_tokenizer_of_another_text(tmp_path):
    """No unknown token, and another text when it is decoded."""
    model, tok = tiny_model("gpt2")

    class Shifted:
        unk_token_id = None

        def __call__(self, text, **options):
            return tok(text, **options)

        def decode(self, ids):
            return tok.decode([number + 1 for number in ids])

        def __len__(self):
            return len(tok)

    check_vocabulary(model, tok, TEXTS)
    with pytest.raises(ArchitectureError, match="decode to .* load tokenizer and model from the same folder"):
        check_vocabulary(model, Shifted(), TEXTS)


def test_small_deviations_are_a_warning(tmp_path, caplog):
    """One unknown token in a long text; a model with many more tokens than the tokenizer."""
    model, tok = tiny_model("gpt2", vocab_size=400)
    odd = broken_blanks(tok, tmp_path)
    with caplog.at_level(logging.WARNING):
        check_vocabulary(
            model, odd, ["annabergwasborninparisandplaystennis norway" + "romeandlondonareincities" * 3]
        )
    assert "unknown tokens in 1 text(s)" in caplog.text
    caplog.clear()
    for _ in range(2):
        check_vocabulary(tiny_model("gpt2", vocab_size=1000)[0], tok, TEXTS)
    assert caplog.text.count("the tokenizer has 300 tokens and the model 1,000") == 1, "once is enough"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_texts_longer_than_the_models_positions(kind, tmp_path):
    """Silent on one architecture, an IndexError on the other: one error before the work."""
    model, tok = tiny_model(kind)
    long = REQUESTS[0] | {"prompt": "You know " * 80 + REQUESTS[0]["prompt"]}
    assert len(tok(long["prompt"])["input_ids"]) > 128
    for hparams in (make_hparams("MEMIT", tmp_path), settings("FiNE", tmp_path)):
        with pytest.raises(RequestError, match="tokens, and the model has 128 positions"):
            apply(model, tok, [long], hparams)
        with pytest.raises(RequestError, match="128 positions"):
            check_requests(hparams, [long], model, tok)
    with pytest.raises(RequestError, match="128 positions"):
        evaluate_all(model, tok, [long])
