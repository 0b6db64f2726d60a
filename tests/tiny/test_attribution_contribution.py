"""FiNE's contribution against the formula with a plain hook, prompt by prompt in float64."""

import pytest
import torch

from easyedit_neuron.arch import ModelView
from easyedit_neuron.attribution import contribution_scores, target_tokens
from easyedit_neuron.errors import NeuronEditError
from helpers.tiny_models import MODEL_TYPES, tiny_model

PROMPTS = ["Anna Berg was born in", "I", "The capital of Norway is", "Peter Olsen lives in"]
TARGETS = ["Oslo", " tennis and London", "Rome", "the place where Marie works"]
DOWN = {
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "gptj": "transformer.h.{}.mlp.fc_out",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
}


@torch.no_grad()
def plainly(model, model_type, tok, prompt, target, layer, predicted):
    """(rows [r, d_ff], tokens) of one prompt: a hook, the whole unembedding, one target token at a time."""
    start, answer = tok(prompt)["input_ids"], tok(" " + target.strip(), add_special_tokens=False)["input_ids"]
    module = model.get_submodule(DOWN.get(model_type, "model.layers.{}.mlp.down_proj").format(layer))
    seen = {}
    handle = module.register_forward_hook(lambda _module, args, out: seen.update(q=args[0][0], out=out[0]))
    logits = model(input_ids=torch.tensor([start + answer])).logits[0]
    handle.remove()
    down = module.weight if model_type == "gpt2" else module.weight.T  # [d_ff, d_model]
    rows, tokens = [], []
    for step, token in enumerate(answer):
        at = len(start) - 1 + step
        token = int(logits[at].argmax()) if predicted else token
        written = down
        if model_type == "granite":
            written = 0.3 * down  # the residual multiplier
        if model_type == "gemma2":
            norm = model.model.layers[layer].post_feedforward_layernorm
            written = down * (1 + norm.weight) / (seen["out"][at].square().mean() + norm.eps).sqrt()
        rows.append(seen["q"][at] * (written @ model.get_output_embeddings().weight.T)[:, token])
        tokens.append(token)
    return torch.stack(rows), tokens


@pytest.mark.parametrize("model_type", [*MODEL_TYPES, "granite"])
@pytest.mark.parametrize("predicted", [False, True])
def test_contribution_equals_the_formula(model_type, predicted):
    model, tok = tiny_model(model_type, dtype=torch.float64)
    view = ModelView.of(model)
    contributions = contribution_scores(
        view, target_tokens(tok, PROMPTS, TARGETS), range(4), predicted=predicted, prompt_batch=3
    )
    for layer in range(4):
        for number, (prompt, target) in enumerate(zip(PROMPTS, TARGETS)):
            rows, tokens = plainly(model, model_type, tok, prompt, target, layer, predicted)
            rows_of_prompt = contributions.owner == number
            assert contributions.token_ids[rows_of_prompt].tolist() == tokens and len(tokens) >= 1
            # the norms compute in float32 whatever the model's dtype
            torch.testing.assert_close(contributions.of(number)[layer], rows, rtol=1e-4, atol=1e-5)
            assert rows.abs().max() > 1e-2


def test_the_contributions_of_a_layer_add_up_to_its_part_of_the_logit():
    """Without bias and final norm, sum_i c_ti = W_u[t] . FFN output (FiNE, appendix A)."""
    model, tok = tiny_model("llama", dtype=torch.float64)
    view = ModelView.of(model)
    targets = target_tokens(tok, PROMPTS[:1], TARGETS[:1])
    contributions = contribution_scores(view, targets, [1])
    seen = []
    view.down_proj(1).register_forward_hook(
        lambda _module, _args, out: seen.append(out[0, targets.prompt_end[0]])
    )
    with torch.no_grad():
        model(**targets.batch.inputs)
    expected = model.lm_head.weight[targets.token_ids[0]] @ seen[0]
    torch.testing.assert_close(contributions.scores[1][0].sum(), expected.detach())


def test_rows_belong_to_requests_and_half_precision_is_computed_in_float32():
    model, tok = tiny_model("qwen2", dtype=torch.bfloat16)
    targets = target_tokens(tok, PROMPTS, TARGETS)
    contributions = contribution_scores(ModelView.of(model), targets, [0, 3])
    counts = [len(tok(" " + target.strip(), add_special_tokens=False)["input_ids"]) for target in TARGETS]
    assert (
        torch.bincount(contributions.owner).tolist() == counts
        and contributions.token_ids.tolist() == targets.token_ids.tolist()
    )
    assert all(
        s.dtype == torch.float32 and s.shape == (sum(counts), 48) for s in contributions.scores.values()
    )
    assert targets.first().token_ids.tolist() == [
        int(targets.token_ids[targets.owner == number][0]) for number in range(4)
    ]


def test_bad_input_is_refused():
    model, tok = tiny_model("llama")
    view, targets = ModelView.of(model), target_tokens(tok, PROMPTS, TARGETS)
    with pytest.raises(NeuronEditError, match="needs layers"):
        contribution_scores(view, targets, [])
    with pytest.raises(NeuronEditError, match="layer 4 does not exist"):
        contribution_scores(view, targets, [4])
    with pytest.raises(NeuronEditError, match="as many targets as prompts"):
        target_tokens(tok, PROMPTS, TARGETS[:2])
    with pytest.raises(NeuronEditError, match="prompt 0 has no tokens"):
        target_tokens(tiny_model("gpt2")[1], [""], ["Oslo and Rome"])
