"""The built-in editor: EasyEdit's calls and return values, weights put back exactly, errors before anything
changes."""

import copy
import json

import pytest
import torch

from easyedit_neuron.errors import HostError, HparamsError, NeuronEditError, RequestError
from easyedit_neuron.evaluation import compute_edit_quality, evaluate_all, locality_reference, summarize
from easyedit_neuron.host.base_editor import BaseEditor
from easyedit_neuron.models.ft.ft_hparams import FTHyperParams
from helpers.dummy_method import DummyHyperParams, register_dummy
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, same, weights_of
from helpers.tiny_models import tiny_model


@pytest.fixture(autouse=True)
def dummy():
    register_dummy()


def editor(kind="llama", **changes):
    hparams = DummyHyperParams(**changes)
    hparams.model_name = tiny_model(kind)
    return BaseEditor.from_hparams(hparams)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_single_edits_are_put_back_and_measured(kind):
    e = editor(kind)
    before, tokenizer = weights_of(e.model), dict(vars(e.tok))
    requests = [
        {"prompt": prompt, "target_new": target, "ground_truth": None, "portability": {}, "locality": {}}
        for prompt, target in zip(PROMPTS, TARGETS)
    ]
    pre = [compute_edit_quality(e.model, "x", None, e.tok, request) for request in requests]
    metrics, edited, weights_copy = e.edit(PROMPTS, TARGETS, verbose=False)
    assert edited is e.model and same(weights_of(e.model), before)
    assert [set(m) for m in metrics] == [{"pre", "case_id", "requested_rewrite", "post"}] * 3
    assert [m["case_id"] for m in metrics] == [0, 1, 2] and [
        m["requested_rewrite"] for m in metrics
    ] == requests
    assert [m["pre"] for m in metrics] == pre
    assert (
        all(torch.equal(value, before[name]) for name, value in weights_copy.items())
        and len(weights_copy) == 1
    )
    assert dict(vars(e.tok)) == tokenizer
    other, other_hparams = tiny_model(kind)[0], e.hparams
    from helpers.dummy_method import apply_dummy_to_model

    apply_dummy_to_model(other, e.tok, requests[1:2], other_hparams)
    assert metrics[1]["post"] == compute_edit_quality(other, "x", None, e.tok, requests[1])


def test_three_repeats_of_a_single_edit_give_the_same_metrics():
    e = editor()
    runs = [e.edit(PROMPTS[0], TARGETS[0], ground_truth="Rome", verbose=False)[0] for _ in range(3)]
    assert runs[0] == runs[1] == runs[2] and runs[0][0]["requested_rewrite"]["ground_truth"] == "Rome"


def test_sequential_edits_stay_and_are_measured_again_at_the_end():
    e = editor()
    before = weights_of(e.model)
    arguments = copy.deepcopy(EXTRAS)
    metrics, edited, weights_copy = e.edit(
        PROMPTS, TARGETS, sequential_edit=True, final_evaluation=True, verbose=False, **EXTRAS
    )
    assert arguments == EXTRAS
    assert not same(weights_of(edited), before)
    requests = [m["requested_rewrite"] for m in metrics]
    assert (
        requests[0]["locality"]["Neighborhood"]["prompt"] == ["Oslo is", "London is the capital of"]
        and "Neighborhood" not in requests[2]["locality"]
    )
    assert [r["subject"] for r in requests] == EXTRAS["subject"]
    reference = locality_reference(tiny_model("llama")[0], e.tok, requests)
    assert [m["final"] for m in metrics] == evaluate_all(edited, e.tok, requests, reference)
    assert metrics[-1]["final"] == metrics[-1]["post"]
    assert metrics[0]["final"]["locality"]["Neighborhood_acc"] is not None
    assert set(summarize(metrics, "final")) == {"rewrite_acc", "rephrase_acc", "locality", "portability"}
    json.dumps(metrics)
    edited_weights = weights_of(edited)
    assert not same(edited_weights, {**edited_weights, **weights_copy})  # the weights before the last edit


def test_batches():
    e = editor(batch_size=2)
    before = weights_of(e.model)
    metrics, edited, _ = e.batch_edit(PROMPTS, TARGETS, verbose=False, **EXTRAS)
    assert same(weights_of(edited), before) and [m["case_id"] for m in metrics] == [0, 1, 0]
    assert [set(m) for m in metrics] == [{"case_id", "requested_rewrite", "pre", "time", "post"}] * 3
    assert metrics[0]["time"] == metrics[1]["time"] > 0
    records = []
    metrics, edited, weights_copy = e.batch_edit(
        PROMPTS, TARGETS, sequential_edit=True, verbose=False, records=records, final_evaluation=True
    )
    assert (
        records == [PROMPTS[:2], PROMPTS[2:]]
        and not same(weights_of(edited), before)
        and "final" in metrics[0]
    )


def test_normal_edit_measures_nothing_and_puts_back():
    e = editor(batch_size=2)
    before = weights_of(e.model)
    metrics, edited, weights_copy = e.normal_edit(PROMPTS, TARGETS)
    assert metrics is None and same(weights_of(edited), before) and len(weights_copy) == 1


def test_requests_and_earlier_measurements_may_be_given(tmp_path):
    e = editor()
    metrics, _, _ = e.edit(PROMPTS, TARGETS, verbose=False, pre_file=tmp_path / "pre.json", **EXTRAS)
    pre = json.loads((tmp_path / "pre.json").read_text())
    assert pre == [{"pre": m["pre"]} for m in metrics]
    requests = [m["requested_rewrite"] for m in metrics]
    again, _, _ = e.edit(requests=requests, verbose=False, pre_edit=pre)
    assert again == metrics and pre == [{"pre": m["pre"]} for m in metrics]
    assert e.edit_requests(requests, verbose=False, pre_edit=pre)[0] == metrics
    with pytest.raises(RequestError, match="pre_edit"):
        e.edit(requests=requests, verbose=False, pre_edit=pre[:1])


def test_metrics_by_name():
    e = editor()
    result = e.edit(PROMPTS[0], TARGETS[0], verbose=False, eval_metric="ppl")[0][0]
    assert result["post"]["rewrite_ppl"] > 0 and "rewrite_acc" not in result["post"]
    result = e.edit(PROMPTS[0], TARGETS[0], verbose=False, test_generation=True)[0][0]
    assert result["pre"]["fluency"]["ngram_entropy"] > 0


def test_generate_edit_answers_every_prompt():
    e = editor()
    metrics, edited, _ = e.generate_edit(
        PROMPTS[:1],
        TARGETS[:1],
        rephrase_prompts="So, Anna Berg",
        verbose=False,
        max_new_tokens=4,
        portability_inputs={"por_hop": {"prompt": [["Oslo", "Rome"]], "ground_truth": [["a", "b"]]}},
        locality_inputs={"loc_hop": {"prompt": [["Paris"]], "ground_truth": [["c"]]}},
    )
    post = metrics[0]["post"]
    assert (
        set(post)
        == set(metrics[0]["pre"])
        == {"rewrite_ans", "rephrase_ans", "locality_ans", "portability_ans"}
    )
    assert len(post["portability_ans"]) == 2 and isinstance(post["rewrite_ans"], str)
    ids = e.tok("Oslo")["input_ids"]
    for _ in range(4):
        with torch.no_grad():
            ids = ids + [int(edited(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
    assert metrics[0]["pre"]["portability_ans"][0] == e.tok.decode(
        ids[len(e.tok("Oslo")["input_ids"]) :], skip_special_tokens=True
    )


def test_a_failing_edit_leaves_single_edits_undone():
    e = editor(fail_at="Marie")
    before = weights_of(e.model)
    with pytest.raises(RuntimeError, match="dummy"):
        e.edit(PROMPTS, TARGETS, verbose=False)
    assert same(weights_of(e.model), before)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda e: e.edit([], []), RequestError, "prompts"),
        (lambda e: e.edit(PROMPTS, TARGETS[:2]), RequestError, "target_new: 2 given for 3"),
        (
            lambda e: e.edit(PROMPTS, TARGETS, subject=["Anna Berg", "Nobody", "Marie Lund"]),
            RequestError,
            "'Nobody' does not occur",
        ),
        (lambda e: e.edit(PROMPTS, TARGETS, ground_truth="Rome"), RequestError, "ground_truth: 1 given"),
        (lambda e: e.edit(PROMPTS, TARGETS, rephrase_prompts="x"), RequestError, "rephrase_prompts: 1 given"),
        (
            lambda e: e.edit(PROMPTS, TARGETS, locality_inputs={"N": {"prompt": "x"}}),
            RequestError,
            "locality_inputs\\['N'\\]",
        ),
        (
            lambda e: e.edit(
                PROMPTS,
                TARGETS,
                locality_inputs={"N": {"prompt": ["x"] * 3, "ground_truth": [["y", "z"]] * 3}},
            ),
            RequestError,
            "request 0: locality.N",
        ),
        (lambda e: e.edit(requests=[{"prompt": "Oslo is"}]), RequestError, "target_new"),
        (lambda e: e.edit(PROMPTS, TARGETS, final_evaluation=True), HostError, "sequential_edit"),
        (lambda e: e.edit(PROMPTS, TARGETS, metric_kwargs=[{}]), HostError, "metric_kwargs"),
    ],
)
def test_bad_calls_are_named_and_change_nothing(call, error, message):
    e = editor()
    before = weights_of(e.model)
    with pytest.raises(error, match=message):
        call(e)
    assert same(weights_of(e.model), before)


def test_bad_batch_sizes():
    with pytest.raises(HparamsError, match="batch_size.*batch_edit"):
        editor(batch_size=4).edit(PROMPTS, TARGETS)
    with pytest.raises(HparamsError, match="batch_size"):
        editor(batch_size=0).batch_edit(PROMPTS, TARGETS)


def test_bad_hyperparameters():
    with pytest.raises(HparamsError, match="None"):
        BaseEditor.from_hparams(None)
    hparams = DummyHyperParams()
    hparams.model_name = 3
    with pytest.raises(HparamsError, match="model_name"):
        BaseEditor(hparams)
    with pytest.raises(HostError, match="'no/such/folder' cannot be loaded"):
        BaseEditor(DummyHyperParams(model_name="no/such/folder"))
    hparams = DummyHyperParams()
    hparams.alg_name = "Dumy"
    with pytest.raises(NeuronEditError, match="Dumy"):
        BaseEditor(hparams)
    hparams = DummyHyperParams()
    hparams.evaluation_type = "LLM-judge"
    with pytest.raises(HparamsError, match="evaluation_type"):
        BaseEditor(hparams)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_model_is_loaded_by_its_config_not_by_its_path(kind, tmp_path):
    folder = tmp_path / "gpt-t5-chatglm files"
    model, tok = tiny_model(kind)
    tok.pad_token = None
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    e = BaseEditor.from_hparams(DummyHyperParams(model_name=str(folder)))
    assert e.model.config.model_type == kind and not e.model.training and e.tok.pad_token == "</s>"
    assert same(weights_of(e.model), weights_of(model))
    metrics, _, _ = e.edit(PROMPTS, TARGETS, verbose=False, **EXTRAS)
    in_memory, _, _ = editor(kind).edit(PROMPTS, TARGETS, verbose=False, **EXTRAS)
    assert metrics == in_memory


def test_fine_tuning_through_the_editor():
    hparams = FTHyperParams(
        alg_name="FT",
        model_name="x",
        device="cpu",
        layers=[2, 3],
        num_steps=30,
        lr=1e-2,
        batch_size=1,
        objective_optimization="target_new",
    )
    hparams.model_name = tiny_model("llama")
    e = BaseEditor.from_hparams(hparams)
    before = weights_of(e.model)
    metrics, _, _ = e.edit(PROMPTS, TARGETS, verbose=False)
    assert (
        same(weights_of(e.model), before)
        and summarize(metrics)["rewrite_acc"] > summarize(metrics, "pre")["rewrite_acc"]
    )


def test_no_folder_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    editor().edit(PROMPTS, TARGETS, verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_unknown_keywords_are_reported(caplog):
    editor().edit(PROMPTS[0], TARGETS[0], verbose=False, sequental_edit=True, train_ds=None)
    assert "sequental_edit" in caplog.text and "train_ds" not in caplog.text


def test_single_edits_say_once_that_they_are_put_back(caplog, monkeypatch):
    from easyedit_neuron.host import checks

    monkeypatch.setattr(checks, "_has_warned", False)
    e = editor()
    e.edit(PROMPTS, TARGETS, sequential_edit=True, verbose=False)
    assert "sequential_edit=True keeps" not in caplog.text
    for _ in range(2):
        e.edit(PROMPTS, TARGETS, verbose=False)
    assert caplog.text.count("sequential_edit=True keeps the edits") == 1


@pytest.mark.parametrize(
    "requests, message",
    [
        ("requests.json", "not a str; data.load"),
        (None, "not None"),
        (3, "not a int"),
        ({"prompt": "a", "target_new": "b"}, "not a dict"),
        ([], "non-empty list"),
        ([{"prompt": "Rome is", "target_new": "old"}, "text"], "number 1 is 'text'"),
        ([{"prompt": "Rome is", "target_new": 1985}], "expected texts, found 1985"),
        ([{"prompt": 3, "target_new": "a"}], "expected texts, found 3"),
    ],
)
def test_arguments_of_the_wrong_kind(requests, message):
    e = editor()
    before = weights_of(e.model)
    with pytest.raises(RequestError, match=message):
        e.edit_requests(requests, verbose=False)
    assert same(weights_of(e.model), before)


def test_a_generator_of_requests():
    requests = [{"prompt": prompt, "target_new": target} for prompt, target in zip(PROMPTS, TARGETS)]
    by_list = editor().edit_requests(requests, verbose=False)[0]
    assert editor().edit_requests((request for request in requests), verbose=False)[0] == by_list
