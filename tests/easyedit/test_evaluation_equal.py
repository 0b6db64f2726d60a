"""Our metrics are EasyEdit's: the same dictionaries from the same models."""

import sys
from types import SimpleNamespace

import pytest
import torch

from easyedit_neuron.evaluation import compute_edit_quality, evaluate_all, summarize
from easyedit_neuron.evaluation.word_tokenizer import words
from helpers.edit_cases import RECORDS, taught

HPARAMS = SimpleNamespace(alg_name="Dummy", max_length=5, device="cpu")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "gpt_neox"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_every_number(easyeditor, kind, side):
    model, tok = taught(kind)
    tok.padding_side = side
    expected = [
        easyeditor.compute_edit_quality(model, kind, HPARAMS, tok, record, "cpu") for record in RECORDS
    ]
    assert [compute_edit_quality(model, kind, HPARAMS, tok, record, "cpu") for record in RECORDS] == expected
    assert evaluate_all(model, tok, RECORDS, hparams=HPARAMS, batch_size=5) == expected
    assert tok.padding_side == side
    values = [
        v
        for m in expected
        for v in m["rewrite_acc"] + [v for kind in m["portability"].values() for v in kind]
    ]
    assert min(values) < max(values), values


@pytest.mark.parametrize("metric", ["ppl", "ood_ppl"])
def test_perplexity_metrics(easyeditor, metric):
    model, tok = taught("llama")
    for record in RECORDS[:2]:
        expected = easyeditor.compute_edit_quality(
            model, "llama", HPARAMS, tok, record, "cpu", eval_metric=metric
        )
        result = compute_edit_quality(model, "llama", HPARAMS, tok, record, "cpu", eval_metric=metric)
        for name in [name for name in expected if name.endswith(("_ppl", "ood_acc"))]:
            assert result.pop(name) == pytest.approx(expected.pop(name), rel=1e-5)
        assert result == expected


def test_chat_templates(easyeditor):
    model, tok = taught("qwen2")
    tok.chat_template = "{% for m in messages %}Q {{ m['content'] }} A{% endfor %}"
    hparams = SimpleNamespace(**vars(HPARAMS), use_chat_template=True)
    expected = easyeditor.compute_edit_quality(model, "qwen2", hparams, tok, RECORDS[0], "cpu")
    assert compute_edit_quality(model, "qwen2", hparams, tok, RECORDS[0], "cpu") == expected
    assert expected != easyeditor.compute_edit_quality(model, "qwen2", HPARAMS, tok, RECORDS[0], "cpu")


@pytest.fixture
def nltk_words(easyeditor, monkeypatch):
    """``nltk.word_tokenize`` without the download: NLTK's word tokenizer on the sentences of an untrained
    Punkt."""
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    def tokenize(text):
        return [
            word
            for sentence in PunktSentenceTokenizer().tokenize(text)
            for word in NLTKWordTokenizer().tokenize(sentence)
        ]

    monkeypatch.setattr("nltk.word_tokenize", tokenize)
    return tokenize


@pytest.mark.parametrize(
    "text",
    [
        "Anna Berg was born in Paris. She lives in Rome, and works in London!",
        "Is this \"plain\" text? Yes: it's (mostly) plain; isn't it -- or can't it be... so? ",
        "J. Lund paid $3.50 for 1,000 of Anna's things & 20% of the rest. I'll say: cannot, won't.",
        "",
        "one",
        "two words",
        "A line.\nAnother line? [x] {y} <z>",
    ],
)
def test_words_are_nltks_on_plain_text(nltk_words, text):
    assert words(text) == nltk_words(text)


def test_fluency_of_the_same_sampled_text(easyeditor, nltk_words):
    model, tok = taught("llama")
    model.name_or_path = "llama"  # elsewhere EasyEdit hides the prompt from the cache
    torch.manual_seed(7)
    expected = easyeditor.compute_edit_quality(
        model, "llama", HPARAMS, tok, RECORDS[0], "cpu", test_generation=True
    )
    state = torch.get_rng_state()
    torch.manual_seed(7)
    result = compute_edit_quality(model, "llama", HPARAMS, tok, RECORDS[0], "cpu", test_generation=True)
    assert torch.equal(torch.get_rng_state(), state)
    # a random model writes anything but plain text, so the words may differ: compare the formula on the same
    # text
    texts = sys.modules["easyeditor.util.generate"].generate_fast
    torch.manual_seed(7)
    (text,) = texts(model, tok, [RECORDS[0]["prompt"]], max_out_len=100)
    from easyedit_neuron.evaluation.fluency import sample_texts

    torch.manual_seed(7)
    assert sample_texts(model, tok, [RECORDS[0]["prompt"]], 100) == [text]
    assert result["fluency"]["ngram_entropy"] == pytest.approx(expected["fluency"]["ngram_entropy"], abs=0.2)
    result.pop("fluency"), expected.pop("fluency")
    assert result == expected


def test_entropy_formula(easyeditor, nltk_words):
    from easyedit_neuron.evaluation import ngram_entropy

    easyedit_entropy = sys.modules["easyeditor.evaluate.evaluate_utils"].n_gram_entropy
    for text in (
        "Anna Berg was born in Paris. Anna Berg lives in Rome.",
        "a a a a a",
        "the cat saw the dog and the dog saw the cat",
        "word",
    ):
        assert ngram_entropy(text) == pytest.approx(easyedit_entropy([text]), abs=1e-12)


def test_summaries(easyeditor, capsys):
    model, tok = taught("llama")
    metrics = [{"pre": m, "post": m} for m in evaluate_all(model, tok, RECORDS[:2])]
    sys.modules["easyeditor.editors.utils"].summary_metrics(metrics)
    printed = capsys.readouterr().out
    summary = summarize(metrics)
    for value in (summary["rewrite_acc"], summary["portability"]["Reasoning_acc"]):
        assert f"{value}" in printed
