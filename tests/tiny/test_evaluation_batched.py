"""Batched evaluation against one-prompt-at-a-time forwards written out here."""

import math

import pytest
import torch

from easyedit_neuron.errors import RequestError
from easyedit_neuron.evaluation import exact_match_by_generation, perplexity, predict_targets, token_accuracy
from easyedit_neuron.evaluation.batching import accepted, evaluating, logits_at, right_pad
from helpers.tiny_models import MODEL_TYPES, tiny_model

PROMPTS = [
    "Anna Berg was born in",
    "The place where Marie Lund works is",
    "Oslo",
    "Peter Olsen lives in the capital of",
]
TARGETS = ["Paris", "London and Rome", "Norway is Oslo", "French"]


def one_by_one(model, tok, prompt, target, offset=0):
    ids = tok(prompt + " " + target)["input_ids"]
    start = len(tok(prompt)["input_ids"])
    positions = torch.arange(offset, offset + len(ids))[None]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), position_ids=positions).logits[0]
    return logits.argmax(-1).tolist()[start - 1 : -1], ids[start:]


@pytest.mark.parametrize("kind", MODEL_TYPES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_predictions_equal_single_forwards_under_either_padding_side(kind, side):
    model, tok = tiny_model(kind)
    tok.padding_side = side
    before = dict(vars(tok))
    predictions = predict_targets(model, tok, PROMPTS, TARGETS, batch_size=3)
    for prediction, prompt, target in zip(predictions, PROMPTS, TARGETS):
        assert (prediction.predicted, prediction.target) == one_by_one(model, tok, prompt, target)
    assert tok.padding_side == side and dict(vars(tok)) == before


def test_no_pad_token_is_needed_and_a_pad_token_in_the_target_counts_as_a_token():
    model, tok = tiny_model("llama")
    tok.pad_token = None
    (prediction,) = predict_targets(model, tok, ["Oslo is"], ["Paris</s>"])
    assert prediction.target[-1] == tok.eos_token_id
    assert (prediction.predicted, prediction.target) == one_by_one(model, tok, "Oslo is", "Paris</s>")


@pytest.mark.parametrize("kind", MODEL_TYPES)
@pytest.mark.parametrize("head", ["module", "unknown"])
def test_logits_of_chosen_positions_are_those_of_all(kind, head, monkeypatch):
    model, _ = tiny_model(kind)
    inputs, unembedding = (
        right_pad([[5, 6, 7, 8, 9], [7, 8, 9], [10, 11]], "cpu"),
        model.get_output_embeddings(),
    )
    if head == "unknown":
        monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    rows, places = [0, 0, 2, 1], [3, 2, 1, 1]
    with evaluating(model):
        chosen = logits_at(model, inputs, rows, places)
        expected = model(**accepted(model, inputs), use_cache=False).logits[rows, places]
        nothing = logits_at(model, inputs, [], [])
    torch.testing.assert_close(chosen, expected)
    assert torch.equal(chosen.argmax(-1), expected.argmax(-1)) and len(nothing) == 0
    assert not unembedding._forward_pre_hooks, "nothing stays behind"


def test_groups_shift_absolute_positions_as_left_padding_does():
    model, tok = tiny_model("gpt2")
    lengths = [len(tok(p + " " + t)["input_ids"]) for p, t in zip(PROMPTS, TARGETS)]
    offsets = [max(lengths[:3]) - n for n in lengths[:3]] + [0]
    predictions = predict_targets(model, tok, PROMPTS, TARGETS, group_sizes=[3, 1])
    for prediction, prompt, target, offset in zip(predictions, PROMPTS, TARGETS, offsets):
        assert prediction.predicted == one_by_one(model, tok, prompt, target, offset)[0]
    assert [p.predicted for p in predictions] != [
        p.predicted for p in predict_targets(model, tok, PROMPTS, TARGETS)
    ]


def test_token_accuracy_is_the_share_of_equal_tokens():
    from easyedit_neuron.evaluation import Prediction

    values = token_accuracy([Prediction([1, 2, 3, 4], [1, 9, 3, 4]), Prediction([], [])])
    assert values[0] == 0.75 and math.isnan(values[1])


def test_bad_input_names_what_is_wrong():
    model, tok = tiny_model("gpt2")
    with pytest.raises(RequestError, match="2 prompts but 1 targets"):
        predict_targets(model, tok, PROMPTS[:2], TARGETS[:1])
    with pytest.raises(RequestError, match="no tokens"):
        predict_targets(model, tok, [""], ["Paris"])
    with pytest.raises(RequestError, match="batch_size"):
        predict_targets(model, tok, PROMPTS, TARGETS, batch_size=0)
    with pytest.raises(RequestError, match="group_sizes add up to 3"):
        predict_targets(model, tok, PROMPTS, TARGETS, group_sizes=[3])
    assert predict_targets(model, tok, [], []) == []


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_exact_match_finds_what_greedy_decoding_writes(kind):
    """The reference decodes without cache or padding, one prompt at a time."""
    model, tok = tiny_model(kind)
    targets, expected = [], []
    for prompt in PROMPTS:
        ids = tok(prompt)["input_ids"]
        for _ in range(4):
            with torch.no_grad():
                ids = ids + [int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        written = ids[len(tok(prompt)["input_ids"]) :]
        # a target must survive the tokenizer: build it from the model's own continuation and check the
        # premise
        target = tok.decode(written)[1:] if tok.decode(written).startswith(" ") else "Paris"
        targets.append(target)
        target_ids = tok(prompt + " " + target)["input_ids"][len(tok(prompt)["input_ids"]) :]
        expected.append(float(target_ids == written[: len(target_ids)]))
    assert exact_match_by_generation(model, tok, PROMPTS, targets, batch_size=3) == expected


def test_exact_match_agrees_with_teacher_forcing_that_is_right_everywhere():
    """Greedy decoding writes the target's tokens if and only if teacher forcing predicts each of them."""
    model, tok = tiny_model("llama")
    torch.manual_seed(0)
    with torch.no_grad():  # a model that repeats its last token: the attention and the FFN write nothing
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(
            torch.nn.functional.normalize(torch.randn_like(model.model.embed_tokens.weight))
        )
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    prompts = ["a a", "Paris Paris", "Paris Paris Paris"]
    targets = ["a a", "Paris", "Rome"]
    forced = [p.predicted == p.target for p in predict_targets(model, tok, prompts, targets)]
    assert exact_match_by_generation(model, tok, prompts, targets) == [float(x) for x in forced]
    assert exact_match_by_generation(model, tok, [], []) == []


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_perplexity_weighs_tokens_not_texts(kind):
    model, tok = tiny_model(kind)
    texts = ["Anna Berg lives in Rome.", "Oslo is", "Because I think that You know the capital"]
    nll = count = 0.0
    for text in texts:
        ids = torch.tensor([tok(text)["input_ids"]])
        with torch.no_grad():
            logs = model(input_ids=ids).logits.double().log_softmax(-1)
        for t in range(1, ids.shape[1]):
            nll -= float(logs[0, t - 1, ids[0, t]])
            count += 1
    assert perplexity(model, tok, texts, batch_size=2) == pytest.approx(math.exp(nll / count), rel=1e-5)
    with pytest.raises(RequestError, match="perplexity"):
        perplexity(model, tok, [])


def test_training_flags_are_put_back_and_dropout_is_off():
    model, tok = tiny_model("gpt2")
    model.train()
    model.transformer.h[1].eval()
    flags = [m.training for m in model.modules()]
    first = predict_targets(model, tok, PROMPTS, TARGETS)
    assert first == predict_targets(model, tok, PROMPTS, TARGETS)
    assert [m.training for m in model.modules()] == flags


def test_bfloat16_weights():
    model, tok = tiny_model("llama", dtype=torch.bfloat16)
    assert len(predict_targets(model, tok, PROMPTS, TARGETS)) == 4
    assert perplexity(model, tok, PROMPTS) > 1
