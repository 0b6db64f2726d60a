"""The metrics of one request, the final protocol and its means."""

import copy
import json
import math

import pytest
import torch

from easyedit_neuron.errors import HparamsError, RequestError
from easyedit_neuron.evaluation import (
    compute_edit_quality,
    evaluate_all,
    finalize_locality,
    fluency,
    locality_reference,
    predict_targets,
    summarize,
    token_accuracy,
)
from easyedit_neuron.evaluation.fluency import _text, ngram_entropy, sample_texts
from helpers.tiny_models import tiny_model

RECORD = {
    "prompt": "Anna Berg was born in",
    "subject": "Anna Berg",
    "target_new": "Paris",
    "ground_truth": "Rome",
    "rephrase_prompt": "The place where Anna Berg was born is",
    "locality": {
        "Neighborhood": {
            "prompt": ["Peter Olsen lives in", "Marie Lund works in the capital of"],
            "ground_truth": ["Oslo", "Norway is Oslo"],
        },
        "Single": {"prompt": "The capital of Norway is", "ground_truth": "Oslo"},
    },
    "portability": {
        "Reasoning": {
            "prompt": ["Anna lives in", "The mother tongue of Anna is"],
            "ground_truth": ["Paris", "French"],
        }
    },
}
BARE = {"prompt": "Marie Lund plays", "subject": "Marie Lund", "target_new": "tennis", "ground_truth": None}


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def test_a_record_has_easyedits_keys(llama):
    model, tok = llama
    result = compute_edit_quality(model, "x", None, tok, RECORD, "cpu")
    assert set(result) == {"rewrite_acc", "rephrase_acc", "locality", "portability", "metric_meta"}
    assert set(result["locality"]) == {"Neighborhood_output", "Single_output"} and set(
        result["portability"]
    ) == {"Reasoning_acc"}
    assert set(result["metric_meta"]) == {"rewrite", "rephrase"}
    assert [len(ids) for ids in result["locality"]["Neighborhood_output"]] == [
        len(tok(f" {t}", add_special_tokens=False)["input_ids"]) for t in ("Oslo", "Norway is Oslo")
    ]
    json.dumps(result)
    assert set(compute_edit_quality(model, "x", None, tok, BARE, "cpu")) == {
        "rewrite_acc",
        "locality",
        "portability",
        "metric_meta",
    }


def test_final_protocol_equals_each_record_alone(llama):
    model, tok = llama
    requests = [
        RECORD,
        BARE,
        {**RECORD, "prompt": "Oslo is", "rephrase_prompt": ["In Oslo", "Rome, and then Oslo, is"]},
    ]
    before = copy.deepcopy(requests)
    together = evaluate_all(model, tok, requests, batch_size=4)
    assert together == [compute_edit_quality(model, "x", None, tok, record, "cpu") for record in requests]
    assert requests == before
    assert len(together[2]["rephrase_acc"]) == 2


def test_locality_compares_with_the_untouched_model(llama):
    model, tok = llama
    reference = locality_reference(model, tok, [RECORD, BARE])
    same = evaluate_all(model, tok, [RECORD, BARE], reference)
    assert same[0]["locality"]["Neighborhood_acc"] == [1.0, 1.0] and same[0]["locality"]["Single_acc"] == [
        1.0
    ]
    assert same[0]["metric_meta"]["locality.Single"]["protocol"] == "pre_post_argmax_token_match"
    assert same[1]["locality"] == {}
    other = tiny_model("llama", seed=1)[0]
    changed = evaluate_all(other, tok, [RECORD], reference[:1])[0]["locality"]
    for kind in ("Neighborhood", "Single"):
        expected = [
            sum(a == b for a, b in zip(x, y)) / len(x)
            for x, y in zip(reference[0][f"{kind}_output"], changed[f"{kind}_output"])
        ]
        assert changed[f"{kind}_acc"] == expected
    with pytest.raises(RequestError, match="Single"):
        evaluate_all(model, tok, [RECORD], [{"Neighborhood_output": reference[0]["Neighborhood_output"]}])
    with pytest.raises(RequestError, match="reference is of 2"):
        evaluate_all(model, tok, [RECORD], reference)


def test_generation_exact_match_has_its_own_name(llama):
    model, tok = llama
    (result,) = evaluate_all(model, tok, [RECORD], exact_match=True)
    accuracy = token_accuracy(predict_targets(model, tok, [RECORD["prompt"]], ["Paris"]))
    assert result["rewrite_generation_exact_match"] == [float(accuracy[0] == 1.0)]
    assert result["rephrase_generation_exact_match"] in ([0.0], [1.0])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"target_new": None}, "target_new"),
        ({"locality": {"N": {"prompt": ["a", "b"], "ground_truth": ["c"]}}}, "locality.N: 2 prompts but 1"),
        ({"locality": {"N": {"prompt": "a"}}}, "locality.N must be"),
        ({"portability": {"P": {"prompt": [], "ground_truth": []}}}, "portability.P has no prompts"),
        ({"portability": {"P": {"prompt": ["a"], "ground_truth": [["b"]]}}}, "portability.P: expected texts"),
    ],
)
def test_a_malformed_request_is_named(llama, change, message):
    model, tok = llama
    with pytest.raises(RequestError, match=message):
        compute_edit_quality(model, "x", None, tok, {**RECORD, **change}, "cpu")
    with pytest.raises(RequestError, match="request 1: .*" + message):
        evaluate_all(model, tok, [RECORD, {**RECORD, **change}])


def test_what_is_not_offered_is_refused(llama):
    class Judged:
        evaluation_type = "LLM-judge"

    model, tok = llama
    with pytest.raises(HparamsError, match="evaluation_type"):
        compute_edit_quality(model, "x", Judged(), tok, RECORD, "cpu")


def test_perplexity_metrics(llama):
    model, tok = llama
    result = compute_edit_quality(model, "x", None, tok, RECORD, "cpu", eval_metric="ppl")
    start = len(tok(RECORD["prompt"])["input_ids"])
    ids = torch.tensor([tok(RECORD["prompt"] + " Paris")["input_ids"]])
    labels = ids.clone()
    labels[:, :start] = -100
    with torch.no_grad():
        loss = model(input_ids=ids, labels=labels).loss
    assert result["rewrite_ppl"] == pytest.approx(math.exp(float(loss)), rel=1e-5)
    assert "rewrite_acc" not in result and "Single_output" in result["locality"]
    assert (
        0 <= compute_edit_quality(model, "x", None, tok, BARE, "cpu", eval_metric="ood_ppl")["ood_acc"] <= 1
    )


class Chat:
    use_chat_template = True


def llama_with_template(llama):
    model, tok = llama
    tok = copy.deepcopy(tok)
    tok.chat_template = "{% for m in messages %}Q {{ m['content'] }} A{% endfor %}"
    return model, tok


def test_chat_template_is_used_for_all_but_locality(llama):
    model, tok = llama_with_template(llama)
    plain = {
        **RECORD,
        "prompt": "Q Anna Berg was born in A",
        "rephrase_prompt": f"Q {RECORD['rephrase_prompt']} A",
    }
    plain["portability"] = {
        "Reasoning": {
            "prompt": [f"Q {p} A" for p in RECORD["portability"]["Reasoning"]["prompt"]],
            "ground_truth": ["Paris", "French"],
        }
    }
    assert compute_edit_quality(model, "x", Chat(), tok, RECORD) == compute_edit_quality(
        model, "x", None, tok, plain
    )


def test_locality_is_asked_in_the_chat_where_that_is_asked_for(llama):
    model, tok = llama_with_template(llama)
    near = RECORD["locality"]["Neighborhood"]
    turns = {"prompt": [f"Q {prompt} A" for prompt in near["prompt"]], "ground_truth": near["ground_truth"]}
    record = {**RECORD, "locality": {"Neighborhood": near}}
    (in_chat,) = evaluate_all(model, tok, [record], hparams=Chat(), locality_in_chat=True)
    (by_hand,) = evaluate_all(model, tok, [{**record, "locality": {"Neighborhood": turns}}])
    assert in_chat["locality"] == by_hand["locality"]
    assert in_chat["locality"] != evaluate_all(model, tok, [record], hparams=Chat())[0]["locality"]


def test_fluency_is_reproducible_and_leaves_the_global_generator_alone(llama):
    model, tok = llama
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = fluency(model, tok, ["Anna Berg", "Oslo is"], max_new_tokens=15)
    assert torch.equal(state, torch.get_rng_state())
    assert first == fluency(model, tok, ["Anna Berg", "Oslo is"], max_new_tokens=15)
    assert fluency(model, tok, ["Oslo is"], max_new_tokens=15) == first[1:]
    (text,) = sample_texts(model, tok, ["Oslo is"], 20, top_k=1)
    assert text.startswith("Oslo is") and ngram_entropy(text) >= 0


def test_sampling_with_the_cache_equals_sampling_without(llama):
    """Top-1 sampling is greedy decoding; the reference sends the whole text each time."""
    model, tok = llama
    ids = tok("Anna Berg lives in")["input_ids"]
    while len(ids) < 25:
        with torch.no_grad():
            ids = ids + [int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    assert sample_texts(model, tok, ["Anna Berg lives in"], 25, top_k=1) == [_text(tok, ids)]


def test_a_text_does_not_depend_on_those_written_beside_it(llama):
    """Drawn alone, token by token, from the whole text; prompts of several lengths."""
    model, tok = llama
    prompts = ["Anna Berg lives in", "Oslo is", "The city where Otto Lund works is"]

    def alone(prompt):
        ids, generator = tok(prompt)["input_ids"], torch.Generator().manual_seed(3)
        for _ in range(12):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            values, best = logits.topk(5)
            ids = ids + [int(best[torch.multinomial(values.softmax(0), 1, generator=generator)])]
        return ngram_entropy(tok.decode(ids, skip_special_tokens=True))

    expected = [alone(prompt) for prompt in prompts]
    assert len(set(expected)) > 1
    for batch_size in (1, 2, 32):
        assert fluency(model, tok, prompts, 12, seed=3, batch_size=batch_size) == pytest.approx(expected)


def test_means_over_requests():
    metrics = [
        {
            "pre": {},
            "post": {
                "rewrite_acc": [1.0],
                "rephrase_acc": [0.0, 1.0],
                "locality": {"N_output": [[1]], "N_acc": [1.0, 0.5]},
                "portability": {"R_acc": [float("nan")]},
                "fluency": {"ngram_entropy": 4.0},
            },
        },
        {
            "pre": {},
            "post": {
                "rewrite_acc": [0.5],
                "locality": {"N_acc": [0.25], "M_acc": [1.0]},
                "portability": {},
                "rewrite_generation_exact_match": [1.0],
            },
        },
    ]
    expected = {
        "rewrite_acc": 0.75,
        "rephrase_acc": 0.5,
        "fluency": 4.0,
        "rewrite_generation_exact_match": 1.0,
        "locality": {"M_acc": 1.0, "N_acc": 0.5},
    }
    assert summarize(metrics) == expected
    assert summarize([m["post"] for m in metrics]) == expected
    assert summarize([]) == {}


def test_finalize_locality_wants_the_same_kinds():
    post = {"locality": {"N_output": [[1, 2]]}}
    with pytest.raises(RequestError, match="locality.N"):
        finalize_locality({"locality": {}}, post)
    with pytest.raises(RequestError, match="1 outputs|2 outputs"):
        finalize_locality({"locality": {"N_output": [[1], [2]]}}, post)
    finalize_locality({"locality": {"N_output": [[1, 3]]}}, post)
    assert post["locality"]["N_acc"] == [0.5]
