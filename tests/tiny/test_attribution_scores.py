"""Neuron scores against the formulas with everything materialised, in float64, for every architecture."""

import math
from types import SimpleNamespace

import pytest
import torch

from easyedit_neuron.arch import Capture, ModelView
from easyedit_neuron.arch.tokens import encode
from easyedit_neuron.attribution import neuron_scores, projection
from easyedit_neuron.attribution.projection import amplified_log_probs
from easyedit_neuron.attribution.readings import read_prompts
from easyedit_neuron.errors import NeuronEditError
from helpers.prompts import TEXTS, right_padded
from helpers.tiny_models import MODEL_TYPES, tiny_model

CASES = [(name, {}) for name in MODEL_TYPES] + [
    ("gpt_neox", {"use_parallel_residual": False}),
    ("gemma2", {"final_logit_softcapping": None}),
    ("granite", {}),
    ("cohere", {}),
    ("falcon", {}),
    ("opt", {}),
]
LAYERS = [0, 2]


def _states(model, view, tok, text):
    """Last-token states of one unpadded prompt, and the model's real logits there."""
    ids = torch.tensor([tok(text)["input_ids"]])
    want = {"key", "resid_mid", "ffn_out", "final_hidden"}
    with torch.no_grad(), Capture(view, range(4), want=want) as seen:
        logits = model(input_ids=ids).logits[0, -1]
    return seen, logits


def _naive_logits(model, view, vectors, final_hidden):
    """Real modules' numbers, spelled out: vectors [n, d_model] through the norm frozen at final_hidden and
    the head."""
    norm = view.final_norm
    head = model.get_submodule(view.arch.lm_head_module)
    if view.arch.norm == "layer":
        mean = vectors.mean(-1, keepdim=True)
        eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
        std = torch.sqrt(((final_hidden - final_hidden.mean()) ** 2).mean() + eps)
        normed = (vectors - mean) / std * norm.weight + getattr(norm, "bias", 0.0)
    else:
        eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
        gain = norm.weight + 1 if view.arch.norm == "rms_unit_offset" else norm.weight
        normed = vectors / torch.sqrt((final_hidden**2).mean() + eps) * gain
    logits = normed @ head.weight.T
    if getattr(head, "bias", None) is not None:
        logits = logits + head.bias
    # Cohere multiplies its logits by 1/4 and Granite divides them by 4.
    logits = logits / 4.0 if model.config.model_type in ("cohere", "granite") else logits
    cap = getattr(model.config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


def _naive_directions(model, view, layer, ffn_out):
    """[d_ff, d_model]: what each neuron writes for an activation of one."""
    module = view.down_proj(layer)
    columns = module.weight if view.arch.model_type == "gpt2" else module.weight.T
    if view.arch.model_type == "granite":
        columns = 0.3 * columns  # the residual multiplier
    if view.arch.model_type == "gemma2":
        post = model.model.layers[layer].post_feedforward_layernorm
        columns = columns * (1 + post.weight) / torch.sqrt((ffn_out**2).mean() + post.eps)
    return columns


@torch.no_grad()
def _naive(model, view, tok, text, layer, amplify=30.0, target=None):
    seen, real = _states(model, view, tok, text)
    last = {name: getattr(seen, name)[layer][0, -1] for name in ("key", "resid_mid", "ffn_out")}
    final = seen.final_hidden[0, -1]
    target = int(real.argmax()) if target is None else target
    written = _naive_directions(model, view, layer, last["ffn_out"])
    moved = last["resid_mid"] + amplify * last["key"][:, None] * written
    before = torch.softmax(_naive_logits(model, view, last["resid_mid"][None], final), -1)[0, target].clamp(
        min=1e-8
    )
    after = torch.softmax(_naive_logits(model, view, moved, final), -1)[:, target].clamp(min=1e-8)
    return {
        "lps": after.log() - before.log(),
        "psa": after - before,
        "mpc": last["key"].abs() * written.norm(dim=1),
        "target": target,
    }


@pytest.mark.parametrize("model_type,overrides", CASES)
@pytest.mark.parametrize("kind", ["lps", "psa", "mpc"])
def test_scores_equal_the_formula_written_out(model_type, overrides, kind):
    model, tok = tiny_model(model_type, dtype=torch.float64, **overrides)
    view = ModelView.of(model)
    result = neuron_scores(
        view, right_padded(tok), LAYERS, kind=kind, neuron_chunk=13, vocab_chunk=77, prompt_batch=3
    )
    for layer in LAYERS:
        naive = [_naive(model, view, tok, text, layer) for text in TEXTS]
        assert (
            kind == "mpc"
            and result.target_ids is None
            or result.target_ids.tolist() == [score["target"] for score in naive]
        )
        expected = torch.stack([score[kind] for score in naive])
        assert result.scores[layer].dtype == torch.float32
        # the norms of the model itself compute in float32, so padded and single runs differ by about 1e-6
        torch.testing.assert_close(result.scores[layer].double(), expected, rtol=2e-5, atol=2e-5)
        assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_chunks_do_not_change_the_sum(model_type):
    """In float64 on the same readings the running softmax equals log_softmax of the whole vocabulary to
    1e-10."""
    model, tok = tiny_model(model_type, dtype=torch.float64)
    view = ModelView.of(model)
    readings = read_prompts(view, right_padded(tok), LAYERS)
    targets = readings.top1
    chunked = amplified_log_probs(view, readings, targets, 30.0, neuron_chunk=5, vocab_chunk=11)
    for layer in LAYERS:
        for row in range(len(TEXTS)):
            with torch.no_grad():
                written = _naive_directions(model, view, layer, readings.ffn_out[layer][row])
                x = readings.resid_mid[layer][row]
                moved = x + 30.0 * readings.activations[layer][row][:, None] * written
                vectors = torch.cat([x[None], moved])
                expected = _naive_logits(model, view, vectors, readings.final_hidden[row]).log_softmax(-1)[
                    :, targets[row]
                ]
            torch.testing.assert_close(chunked[layer].base[row], expected[:1], rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(chunked[layer].amplified[row], expected[1:], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_float32_follows_float64(model_type):
    single, tok = tiny_model(model_type)
    double, _ = tiny_model(model_type, dtype=torch.float64)
    low = neuron_scores(ModelView.of(single), right_padded(tok), LAYERS)
    high = neuron_scores(ModelView.of(double), right_padded(tok), LAYERS)
    for layer in LAYERS:
        torch.testing.assert_close(low.scores[layer], high.scores[layer], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            low.activations[layer], high.activations[layer].float(), rtol=1e-3, atol=1e-4
        )


def test_given_targets_are_followed():
    model, tok = tiny_model("llama", dtype=torch.float64)
    view = ModelView.of(model)
    targets = [5, 299, 0, 123]
    result = neuron_scores(view, right_padded(tok), [2], target=torch.tensor(targets), vocab_chunk=64)
    assert result.target_ids.tolist() == targets
    for row, text in enumerate(TEXTS):
        expected = _naive(model, view, tok, text, 2, target=targets[row])["lps"]
        torch.testing.assert_close(result.scores[2][row].double(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("amplify", [0.0, 1.0, 300.0])
def test_amplification(amplify):
    model, tok = tiny_model("gptj", dtype=torch.float64)
    view = ModelView.of(model)
    scores = neuron_scores(view, right_padded(tok), [1], amplify=amplify).scores[1]
    expected = torch.stack([_naive(model, view, tok, text, 1, amplify)["lps"] for text in TEXTS])
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-4)
    if amplify == 0.0:
        assert not scores.any()


def test_scores_are_clamped_where_the_probability_vanishes():
    """A saturated softmax: log p from the clamp, never from minus hundreds."""
    model, tok = tiny_model("gpt2", dtype=torch.float64)
    view = ModelView.of(model)
    scores = neuron_scores(view, right_padded(tok), [1], amplify=30000.0, target=[3, 4, 5, 6])
    naive = [_naive(model, view, tok, text, 1, 30000.0, target=3 + row) for row, text in enumerate(TEXTS)]
    expected = torch.stack([score["lps"] for score in naive])
    torch.testing.assert_close(scores.scores[1].double(), expected, rtol=1e-4, atol=1e-4)
    floor = math.log(1e-8)
    assert scores.scores[1].min() >= floor and (scores.scores[1] < floor + 15).float().mean() > 0.3


def test_one_prompt_scores_the_same_alone_and_in_a_batch():
    for model_type in ("llama", "gpt2"):
        model, tok = tiny_model(model_type)
        view = ModelView.of(model)
        together = neuron_scores(view, right_padded(tok), LAYERS).scores
        for row, text in enumerate(TEXTS):
            alone = neuron_scores(view, right_padded(tok, [text]), LAYERS).scores
            for layer in LAYERS:
                assert alone[layer].shape == (1, 48)
                torch.testing.assert_close(alone[layer][0], together[layer][row], rtol=1e-3, atol=1e-3)


def test_scoring_leaves_the_model_alone():
    model, tok = tiny_model("gemma2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    neuron_scores(ModelView.of(model), right_padded(tok), LAYERS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights(dtype):
    model, tok = tiny_model("llama", dtype=dtype)
    result = neuron_scores(ModelView.of(model), right_padded(tok), LAYERS)
    for layer in LAYERS:
        assert result.scores[layer].dtype == torch.float32 and torch.isfinite(result.scores[layer]).all()
        assert result.scores[layer].std() > 0


def test_non_finite_scores_count_as_zero_and_are_logged(caplog):
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    view.down_matrix(2)[:, 7] = float("inf")
    with caplog.at_level("WARNING", logger="easyedit_neuron"):
        scores = neuron_scores(view, right_padded(tok), [0]).scores[0]
    assert not scores.any() and "not finite" in caplog.text


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(kind="lsp"), "did you mean 'lps'"),
        (dict(target="top1"), 'expected "predicted"'),
        (dict(target=[1, 2]), "expected 4 token ids"),
        (dict(target=torch.ones(4)), "expected 4 token ids"),
        (dict(target=[0, 1, 2, 300]), "0..299"),
        (dict(amplify=float("nan")), "amplify"),
        (dict(neuron_chunk=0), "neuron_chunk must be at least 1"),
        (dict(layers=[4]), "layer 4 does not exist"),
    ],
)
def test_bad_options_are_refused(options, words):
    model, tok = tiny_model("llama")
    with pytest.raises(NeuronEditError, match=words):
        neuron_scores(ModelView.of(model), right_padded(tok), **{"layers": LAYERS, **options})


def test_an_empty_batch_is_refused():
    model, _ = tiny_model("llama")
    empty = SimpleNamespace(
        input_ids=torch.zeros(0, 3, dtype=torch.long),
        attention_mask=torch.zeros(0, 3),
        lengths=torch.zeros(0),
    )
    with pytest.raises(NeuronEditError, match="empty"):
        neuron_scores(ModelView.of(model), empty, [0])


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2"])
def test_sampled_sums_give_the_scores_of_exact_ones(model_type, monkeypatch):
    """With a tolerance of nothing every neuron gets the exact sum; with the usual one scores are close."""
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    batch = encode(tok, ["Anna Berg lives in", "The capital of Norway is"])
    for tolerance, close in ((-1.0, 1e-5), (0.5, 0.2)):
        monkeypatch.setattr(projection, "TOLERANCE", tolerance)
        exact, sampled = (
            neuron_scores(view, batch, [1, 2], amplify=3.0, vocab_sum=kind).scores
            for kind in ("exact", "sampled")
        )
        for layer, expected in exact.items():
            difference = (sampled[layer] - expected).abs() / expected.std(1, keepdim=True)
            assert float((difference < close).float().mean()) > 0.97
