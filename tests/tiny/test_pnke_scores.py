"""Activations and attributions of PNKE: against one plain pass at a time, what they cost, and prompts that
are odd."""

import pytest
import torch
from captum.attr import LayerIntegratedGradients

from easyedit_neuron.arch import Capture, ModelView
from easyedit_neuron.arch.calls import ModelCalls
from easyedit_neuron.arch.tokens import encode
from easyedit_neuron.attribution import TargetTokens, integrated_gradients, target_tokens
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import HparamsError, RequestError
from easyedit_neuron.masks import ScoringContext
from easyedit_neuron.models.pnke.pnke_options import PNKEScoringOptions
from easyedit_neuron.models.pnke.pnke_scores import pnke_scores
from helpers.editing import CONTEXTS, REQUESTS
from helpers.pnke_cases import P_SEM, own_prompts, plain_activations  # noqa: F401
from helpers.tiny_models import MODEL_TYPES, tiny_model

pytestmark = pytest.mark.usefixtures("own_prompts")
GROUPS = [["{}"], list(CONTEXTS)]


def causal(context, **options):
    return pnke_scores(context, PNKEScoringOptions(**options))


def edit_of(model, tok, requests=REQUESTS, layers=(1, 2)):
    return ScoringContext(ModelView.of(model), tok, prepare(requests), GROUPS, list(layers))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_activations_and_attributions_are_those_of_single_passes(model_type):
    model, tok = tiny_model(model_type, dtype=torch.float64)
    scores = causal(edit_of(model, tok), ig_steps=3, ig_step_batch=4, prompt_batch=4)
    for layer in (1, 2):
        for request, request_scores in zip(REQUESTS, scores[layer]):
            # norms and softmax are float32 whatever the model's dtype
            close = dict(rtol=1e-4, atol=1e-5)
            semantic = plain_activations(model, tok, layer, P_SEM[request["subject"]])
            torch.testing.assert_close(request_scores.semantic, semantic, **close)
            torch.testing.assert_close(
                request_scores.specific, plain_activations(model, tok, layer, [request["prompt"]])[0], **close
            )
            targets = target_tokens(tok, [request["prompt"]], [request["target_new"]])
            alone = integrated_gradients(ModelView.of(model), targets, [layer], steps=3).scores[layer][0]
            torch.testing.assert_close(
                request_scores.attribution, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max())
            )


def test_at_the_subject_and_by_magnitude():
    model, tok = tiny_model("llama")
    edit = edit_of(model, tok, REQUESTS[:1])
    (request_scores,) = causal(
        edit, ig_steps=2, activation_position="subject_last", activation_value="magnitude"
    )[1]
    texts = [*P_SEM["Anna Berg"], REQUESTS[0]["prompt"]]
    ends = [len(tok(text[: text.index("Anna Berg") + 9])["input_ids"]) - 1 for text in texts]
    plain = plain_activations(model, tok, 1, texts, ends).abs()
    torch.testing.assert_close(request_scores.semantic, plain[:-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(request_scores.specific, plain[-1], rtol=1e-4, atol=1e-5)
    assert (plain_activations(model, tok, 1, texts, ends) < 0).any() and request_scores.attribution.min() < 0


def test_a_subject_at_the_end_is_the_last_token():
    model, tok = tiny_model("gpt2")
    request = {"prompt": "You know that Norway", "subject": "Norway", "target_new": "is Oslo"}
    edit = edit_of(model, tok, [request])
    last, subject = (
        causal(edit, strategy="trigger", ig_steps=2, activation_position=where)[1][0]
        for where in ("last", "subject_last")
    )
    assert torch.equal(last.specific, subject.specific) and torch.equal(last.attribution, subject.attribution)


def test_prompts_without_the_subject_are_left_out_and_counted(monkeypatch):
    monkeypatch.setitem(P_SEM, "Anna Berg", ["She was born in", "Anna Berg lives in", "Paris is where"])
    model, tok = tiny_model("llama")
    for where, rows, lost in (("subject_last", 1, 2), ("last", 3, 0)):
        edit = edit_of(model, tok, REQUESTS[:1])
        (request_scores,) = causal(edit, ig_steps=2, activation_position=where)[2]
        assert request_scores.semantic.shape == (rows, 48)
        (prompts,) = edit.report["identification"]["prompts"]
        assert (
            prompts["without_subject"] == lost
            and prompts["texts"] == P_SEM["Anna Berg"]
            and prompts["shortfall"] == 7
        )
    monkeypatch.setitem(P_SEM, "Anna Berg", ["She was born in"])
    (request_scores,) = causal(
        edit_of(model, tok, REQUESTS[:1]), ig_steps=2, activation_position="subject_last"
    )[2]
    assert request_scores.semantic.shape == (0, 48)


@pytest.mark.parametrize(
    "strategy, has",
    [
        ("entropy", (True, True)),
        ("trigger", (False, True)),
        ("background", (True, False)),
        ("activation", (False, False)),
    ],
)
def test_what_a_strategy_does_not_look_at_is_not_computed(strategy, has):
    model, tok = tiny_model("qwen2")
    edit = edit_of(model, tok)
    scores = causal(edit, strategy=strategy, ig_steps=2)
    for layer in (1, 2):
        assert all(
            (request_scores.semantic is not None, request_scores.attribution is not None) == has
            for request_scores in scores[layer]
        )
        plain = plain_activations(model, tok, layer, [r["prompt"] for r in REQUESTS])
        torch.testing.assert_close(
            torch.stack([request_scores.specific for request_scores in scores[layer]]),
            plain,
            rtol=1e-4,
            atol=1e-5,
        )
        if has[0]:
            assert [len(request_scores.semantic) for request_scores in scores[layer]] == [3, 2, 1]
    passes = edit.report["identification"]["passes"]
    assert (passes["backward_calls"] > 0) == has[1] and passes["forward_calls"] >= 1


def test_what_identification_costs():
    """Three requests, six prompts of P_sem, two layers of four, five points of each path, by hand."""
    model, tok = tiny_model("llama")
    edit = edit_of(model, tok)
    causal(edit, ig_steps=5)
    report = edit.report["identification"]
    # one call for P_sem (blocks 0 to 2), two for the keys of P_spec (blocks 0 and 1, then 1 and 2), one a
    # layer for the paths (from the layer on), and one for the probability (from block 2 on)
    assert report["passes"] == {
        "forward_calls": 6,
        "backward_calls": 2,
        "forward_equivalents": (6 * 3 + 3 * 2 + 3 * 2 + 15 * 3 + 15 * 2 + 3 * 2) / 4,
        "backward_equivalents": (15 * 3 + 15 * 2) / 4,
    }
    assert report["requests"] == 3 and set(report["seconds"]) == {
        "semantic prompts",
        "activations",
        "attribution",
    }
    # the same again for other requests adds up, as on the rome path
    causal(edit, ig_steps=5)
    assert report["passes"]["forward_calls"] == 12 and report["requests"] == 6 and len(report["prompts"]) == 6


def test_a_whole_target_of_many_tokens_and_the_models_own_token():
    model, tok = tiny_model("llama")
    view, edit = ModelView.of(model), edit_of(model, tok, REQUESTS[1:2])
    texts, new = [REQUESTS[1]["prompt"]], [REQUESTS[1]["target_new"]]
    targets = target_tokens(tok, texts, new)
    assert len(targets.token_ids) > 3
    top = int(model(input_ids=encode(tok, texts).input_ids).logits[0, -1].argmax())
    batch, zero = encode(tok, texts), torch.tensor([0])
    own = TargetTokens(batch, batch.last, zero, batch.last, torch.tensor([top]))
    old = target_tokens(tok, texts, [REQUESTS[1]["ground_truth"]])
    for options, tokens, whole in (
        ({}, targets, False),
        ({"whole_target": True}, targets, True),
        ({"attribution_target": "predicted"}, own, False),
        ({"attribution_target": "ground_truth", "whole_target": True}, old, True),
    ):
        (request_scores,) = causal(edit, strategy="trigger", ig_steps=3, **options)[2]
        expected = integrated_gradients(view, tokens, [2], whole_target=whole, steps=3).scores[2][0]
        torch.testing.assert_close(
            request_scores.attribution, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


def test_options_and_contexts_of_the_prompts_are_handed_on(own_prompts):  # noqa: F811
    model, tok = tiny_model("llama")
    psem = dict(
        psem_size=2,
        psem_sources=["context"],
        psem_translation_models=["a", "b"],
        psem_paraphrase_model="c",
        psem_cache_dir="d",
        psem_cache_by="text",
        psem_max_new_tokens=7,
        seed=3,
    )
    (scores,) = causal(edit_of(model, tok, REQUESTS[:1]), ig_steps=1, **psem)[1]
    ((options, contexts),) = own_prompts
    assert {name: getattr(options, name) for name in psem} == psem
    assert contexts == GROUPS and len(scores.semantic) == 2


def test_bad_input():
    model, tok = tiny_model("llama")
    with pytest.raises(RequestError, match="needs field 'ground_truth'"):
        causal(
            edit_of(model, tok, [{**REQUESTS[0], "ground_truth": None}]), attribution_target="ground_truth"
        )
    with pytest.raises(HparamsError, match="whole_target"):
        causal(edit_of(model, tok), attribution_target="predicted", whole_target=True)


def test_calls_are_counted_by_blocks():
    model, tok = tiny_model("gpt_neox")
    view, batch = ModelView.of(model), encode(tok, ["Anna Berg was born in", "Oslo"])
    before = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    with pytest.raises(KeyError), ModelCalls(view) as calls:
        model(**batch.inputs, use_cache=False).logits.sum().backward()
        with torch.no_grad(), Capture(view, [1], stop_after="key"):
            model(**batch.inputs, use_cache=False)
        raise KeyError
    assert calls.to_json() == {
        "forward_calls": 2,
        "backward_calls": 1,
        "forward_equivalents": 2 + 2 * 2 / 4,
        "backward_equivalents": 2.0,
    }
    assert before == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_captum_over_the_activations_as_a_layer():
    """LayerIntegratedGradients: the activations are a layer of their own, which is zero where the baseline
    is."""
    model, tok = tiny_model("gemma2", dtype=torch.float64, rms_norm_eps=1.0)
    view = ModelView.of(model)
    targets = target_tokens(tok, [REQUESTS[0]["prompt"]], [REQUESTS[0]["target_new"]])
    end, answer, layer = int(targets.prompt_end[0]), int(targets.token_ids[0]), torch.nn.Identity()

    def forward(q):
        def put(_module, args):
            moved = args[0].clone()
            moved[:, end] = layer(q)
            return (moved, *args[1:])

        handle = view.down_proj(2).register_forward_pre_hook(put)
        logits = model(input_ids=targets.batch.input_ids.expand(len(q), -1), use_cache=False).logits[:, end]
        handle.remove()
        return logits.softmax(-1)[:, answer]

    q = plain_activations(model, tok, 2, [REQUESTS[0]["prompt"]])
    method = LayerIntegratedGradients(forward, layer)
    captum_scores = method.attribute(q, baselines=torch.zeros_like(q), n_steps=20, method="gausslegendre")
    (request_scores,) = causal(edit_of(model, tok, REQUESTS[:1]), ig_steps=20)[2]
    torch.testing.assert_close(
        request_scores.attribution[None],
        captum_scores.detach(),
        rtol=1e-4,
        atol=1e-4 * float(captum_scores.abs().max()),
    )
