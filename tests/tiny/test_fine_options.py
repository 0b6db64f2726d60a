"""FiNE's options and ablations, and edits that come to nothing."""

import copy

import pytest
import torch

from easyedit_neuron.arch import ModelView
from easyedit_neuron.attribution import contribution_scores, target_tokens, top_tokens
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import ArchitectureError, EditError, HparamsError, NeuronEditError, RequestError
from easyedit_neuron.models.fine.locate import locate
from helpers.editing import REQUESTS, changed_tensors, snapshot
from helpers.fine_edits import chosen, edit, fine, terms_of_edited, written
from helpers.tiny_models import MODEL_TYPES, tiny_model


def neurons_of(model_type="llama", requests=REQUESTS, **changes):
    """[{(layer, neuron), ...} ...], a list for each request."""
    model, tok = tiny_model(model_type)
    located = locate(ModelView.of(model), tok, prepare(requests), fine(**changes))
    return [list(zip(n.layers.tolist(), n.units.tolist())) for n in located]


@pytest.mark.parametrize("option, index", [({}, 1), ({"kl_direction": "after_before"}, 2)])
@pytest.mark.parametrize("paper", [False, True])
def test_the_forms_of_the_loss(exact, option, index, paper):
    """Each term from the logits of the edited and the unedited model."""
    changes = {**option, **({"edit_loss": "sum", "penalty_on": "first", "gamma": 0.0} if paper else {})}
    model, tok = tiny_model("llama", dtype=torch.float64)
    clean = copy.deepcopy(model)
    record = edit(model, tok, fine(**changes), REQUESTS[1:2])
    terms = terms_of_edited(model, clean, tok, REQUESTS[1], fine())
    nll, penalty = (
        (float(terms[0].sum()), float(terms[3][0]))
        if paper
        else (float(terms[0].max()), float(terms[3].max()))
    )
    last = record.info["requests"][0]["last"]
    assert [last["nll"], last["kl"], last["penalty"]] == pytest.approx(
        [nll, float(terms[index].mean()), 10 * penalty]
    )
    assert (last["norm"] == 0) is paper and record.probability[0] == pytest.approx(
        float(torch.tensor(-nll).exp())
    )


def test_terms_can_be_left_out():
    model, tok = tiny_model("llama")
    last = edit(model, tok, fine(alpha=0, beta=0, gamma=0), REQUESTS[:1]).info["requests"][0]["last"]
    assert last["kl"] == last["penalty"] == last["norm"] == 0 < last["nll"]


def test_layers_and_numbers():
    layers = [
        {layer for layer, _ in neurons[0]}
        for neurons in (
            neurons_of(layer=3),
            neurons_of(layer_start=1, layer_end=1),
            neurons_of(layer_start=2),
            neurons_of(last_layer=0, neuron_num=20),
            neurons_of(neuron_num=20),
        )
    ]
    assert layers == [{3}, {1}, {2}, {0, 1, 2, 3}, {0, 1, 2}]
    tokens = len(neurons_of(neuron_num=1)[1])
    assert [len(neurons_of(neuron_num=k)[1]) for k in (5, 20, 60)] == [
        5 * tokens,
        20 * tokens,
        60 * tokens,
    ]  # a layer has 48
    best = neurons_of()[1]
    assert neurons_of(neuron_num=1)[1] == best[::5]
    assert neurons_of(repeated_neurons="once")[1] == list(dict.fromkeys(best)) and len(set(best)) < len(best)


def test_tokens_of_the_old_object():
    """The paper's choice: the highest contributions to the source object's tokens."""
    model, tok = tiny_model("qwen2")
    view, request = ModelView.of(model), REQUESTS[2]
    contributions = contribution_scores(
        view, target_tokens(tok, [request["prompt"]], [request["ground_truth"]]), [0, 1, 2]
    )
    scores = torch.stack([contributions.scores[layer] for layer in (0, 1, 2)], 1).flatten(1)
    expected = [(int(i) // 48, int(i) % 48) for row in scores for i in row.argsort(descending=True)[:5]]
    assert (
        neurons_of("qwen2", [request], locate_on="ground_truth")[0]
        == expected
        != neurons_of("qwen2", [request])[0]
    )
    with pytest.raises(RequestError, match="request 0: locate_on 'ground_truth' needs"):
        neurons_of("qwen2", [{**request, "ground_truth": None}], locate_on="ground_truth")


def test_random_neurons():
    drawn, again, other = neurons_of(random=True), neurons_of(random=True), neurons_of(random=True, seed=7)
    assert drawn == again and all(a != b for a, b in zip(drawn, other)) and drawn[1][:5] != drawn[0][:5]
    assert [len(n) for n in drawn] == [len(n) for n in neurons_of()] and all(
        len(set(n[:5])) == 5 for n in drawn
    )
    assert {layer for n in drawn for layer, _ in n} == {0, 1, 2} and neurons_of(
        random=True, requests=REQUESTS[1:]
    )[0] == drawn[1]
    assert {layer for layer, _ in neurons_of(random=True, layer=3)[0]} == {3}
    model, tok = tiny_model("gpt2")
    record = edit(model, tok, fine(random=True), REQUESTS[:1])
    assert (
        record.to_json()["info"]["requests"][0]["neurons"][0][3] is None
        and chosen(record) == neurons_of("gpt2", random=True)[0]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bfloat16_vectors(dtype):
    model, tok = tiny_model("llama", dtype=dtype)
    record = edit(copy.deepcopy(model), tok, fine(vector_dtype="bfloat16", epochs=3), REQUESTS[:1])
    vectors, master = written(record), written(edit(model, tok, fine(epochs=3), REQUESTS[:1]))
    apart = [float((vectors[place] - master[place]).norm() / master[place].norm()) for place in master]
    assert (
        vectors.keys() == master.keys()
        and all(v.dtype == torch.float32 for v in vectors.values())
        and 0 < max(apart) < 0.5
    )
    singles = [place for place in vectors if chosen(record).count(place) == 1]
    assert singles and all(
        torch.equal(vectors[place], vectors[place].bfloat16().float()) for place in singles
    )


def test_the_end_of_text_token_opens_the_prompts_of_gptj():
    def first_row(model_type, **changes):
        model, tok = tiny_model(model_type)
        seen = []
        model.register_forward_pre_hook(
            lambda _module, args, kwargs: seen.append(kwargs["input_ids"][0, :2].tolist()), with_kwargs=True
        )
        edit(model, tok, fine(epochs=1, lr=1e-3, **changes), REQUESTS[:1])
        return [token == tok.eos_token_id for token in seen[0]]

    assert first_row("gptj") == first_row("gpt2", eos_before_prompt=True) == [True, False]
    assert first_row("gpt2") == first_row("gptj", eos_before_prompt=False) == [False, False]


def test_a_prompt_of_one_token_has_no_kl():
    """The release divides by its number of positions, 0."""
    model, tok = tiny_model("gpt2")
    assert len(tok("I")["input_ids"]) == 1
    record = edit(model, tok, fine(), [{"prompt": "I", "subject": "I", "target_new": "Rome"}])
    info = record.info["requests"][0]
    assert info["last"]["kl"] == 0 and info["last"]["nll"] < info["first"]["nll"]


def test_what_the_model_says_already_is_left_alone():
    model, tok = tiny_model("llama")
    before = snapshot(model)
    record = edit(model, tok, fine(early_stop_prob=1e-9), REQUESTS[:1])
    assert (
        record.info["requests"][0]["stop"] == "known"
        and record.info["requests"][0]["steps"] == 0
        and changed_tensors(model, before) == []
    )


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"lr": 1e30},
            r"request 0 \('The capital of Norway' -> 'is Rome'\) diverged: after 1 steps its loss is not "
            r"finite \(nll .*lower 'lr'",
        ),
        ({"lr": 1e-12}, "did not lower the NLL of its new object, which is .* after 6 steps"),
    ],
)
@pytest.mark.parametrize("model_type", ["llama", "gptj"])
def test_an_edit_that_fails_changes_nothing(model_type, changes, words):
    model, tok = tiny_model(model_type)
    edit(model, tok, fine(epochs=1), REQUESTS[:1])
    before = snapshot(model)
    with pytest.raises(EditError, match=words):
        edit(model, tok, fine(**changes), REQUESTS[2:])
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"layer": 4}, "'layer'.*layers 0 to 3, got 4"),
        ({"layer_end": 9}, "'layer_end'.*got 9"),
        ({"last_layer": 4}, "'last_layer'.*no layer is left"),
        ({"layer_start": 3}, "'last_layer'.*layer_start 3"),
        ({"neuron_num": 200}, "'neuron_num': 3 layers have 144 neurons, got 200"),
    ],
)
def test_impossible_choices(changes, words):
    with pytest.raises(HparamsError, match=words):
        neurons_of(**changes)


def test_a_tokenizer_without_an_end_of_text_token():
    model, tok = tiny_model("gptj")
    tok.eos_token = None
    for changes, name in (
        ({}, "eos_before_prompt"),
        ({"eos_before_prompt": False, "add_eos": True}, "add_eos"),
    ):
        with pytest.raises(HparamsError, match=name):
            edit(model, tok, fine(**changes), REQUESTS[:1])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_top_tokens_of_a_neuron(model_type):
    """The largest entries of W_u W_down's column, spelled out."""
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    column = {
        "gpt2": lambda: model.transformer.h[2].mlp.c_proj.weight[7],
        "gptj": lambda: model.transformer.h[2].mlp.fc_out.weight[:, 7],
        "gpt_neox": lambda: model.gpt_neox.layers[2].mlp.dense_4h_to_h.weight[:, 7],
    }.get(model_type, lambda: model.model.layers[2].mlp.down_proj.weight[:, 7])().detach()
    if model_type == "gemma2":
        column = column * (1 + model.model.layers[2].post_feedforward_layernorm.weight.detach())
    said = model.get_output_embeddings().weight.detach() @ column
    tokens = top_tokens(view, tok, 2, 7, k=4)
    assert [token for token, _ in tokens] == [
        tok.decode([i]) for i in said.argsort(descending=True)[:4].tolist()
    ]
    assert [value for _, value in tokens] == pytest.approx(
        said.sort(descending=True).values[:4].tolist(), rel=1e-4
    )


def test_top_tokens_refuses_what_does_not_exist():
    model, tok = tiny_model("llama")
    view = ModelView.of(model)
    with pytest.raises(NeuronEditError, match="neuron 48 does not exist"):
        top_tokens(view, tok, 0, 48)
    with pytest.raises(NeuronEditError, match="k must lie in"):
        top_tokens(view, tok, 0, 1, k=0)
    with pytest.raises(ArchitectureError, match="layer 4"):
        top_tokens(view, tok, 4, 1)
