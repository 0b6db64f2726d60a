"""The methods of the package through the built-in editor."""

import pytest
import torch

from easyedit_neuron import AlphaEditHyperParams, NMKEHyperParams
from easyedit_neuron.errors import EditError, HostError, RequestError
from easyedit_neuron.evaluation import summarize
from easyedit_neuron.host.base_editor import BaseEditor
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, same, weights_of
from helpers.tiny_models import CORPUS, tiny_model


@pytest.fixture
def editor(tmp_path):
    def make(cls, kind="llama", dtype=torch.float32, **changes):
        text = tmp_path / "text.txt"
        text.write_text("\n".join(CORPUS * 20))
        hparams = cls(
            alg_name=cls.ALG_NAME,
            model_name="in memory",
            device="cpu",
            layers=[1, 2],
            v_num_grad_steps=5,
            context_templates=["{}", "You know. {}"],
            mom2_dataset=str(text),
            mom2_n_samples=60,
            stats_dir=str(tmp_path),
            nullspace_threshold=1.0,
            **changes,
        )
        hparams.model_name = tiny_model(kind, dtype=dtype)
        return BaseEditor.from_hparams(hparams)

    return make


@pytest.mark.parametrize("cls", [NMKEHyperParams, AlphaEditHyperParams])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_single_edits_are_the_same_each_time_and_leave_nothing(editor, cls, kind):
    e = editor(cls, kind)
    before, results, records = weights_of(e.model), [], []
    for _ in range(3):
        metrics, edited, weights_copy = e.edit(
            PROMPTS[:2], TARGETS[:2], subject=EXTRAS["subject"][:2], verbose=False, records=records
        )
        assert same(weights_of(edited), before)
        assert (
            all(torch.equal(value, before[name]) for name, value in weights_copy.items())
            and len(weights_copy) == 2
        )
        results.append(metrics)
    assert results[0] == results[1] == results[2]
    deltas = [
        [layer.value_factor @ layer.key_factor.t() for layer in record.layers.values()] for record in records
    ]
    assert len(deltas) == 6 and all(torch.equal(a, b) for i in (2, 4) for a, b in zip(deltas[0], deltas[i]))
    assert all(delta.abs().max() > 0 for delta in deltas[0])


def test_sequential_edits_under_either_padding_side(editor):
    results = []
    for side in ("left", "right"):
        e = editor(NMKEHyperParams)
        e.tok.padding_side = side
        metrics, edited, _ = e.edit(
            PROMPTS, TARGETS, sequential_edit=True, final_evaluation=True, verbose=False, **EXTRAS
        )
        results.append((metrics, weights_of(edited)))
        assert e.tok.padding_side == side
    assert results[0][0] == results[1][0] and same(results[0][1], results[1][1])
    assert results[0][0][0]["final"]["rewrite_acc"] and results[0][0][2]["final"] == results[0][0][2]["post"]


def test_a_missing_subject_is_named_before_the_first_edit(editor):
    e = editor(NMKEHyperParams)
    before = weights_of(e.model)
    requests = [
        {"prompt": p, "target_new": t, "subject": s} for p, t, s in zip(PROMPTS, TARGETS, EXTRAS["subject"])
    ]
    del requests[2]["subject"]
    for call in (
        lambda: e.edit(requests=requests, sequential_edit=True, verbose=False),
        lambda: e.normal_edit(PROMPTS, TARGETS),
    ):
        with pytest.raises(RequestError, match="subject"):
            call()
    assert same(weights_of(e.model), before)
    e.normal_edit(PROMPTS, TARGETS, subject=EXTRAS["subject"])
    assert same(weights_of(e.model), before)


@pytest.mark.parametrize("call, size", [("edit", 1), ("batch_edit", 1), ("batch_edit", 2)])
def test_a_list_goes_on_after_an_edit_that_fails(call, size, editor):
    """The failed edit is in the results, measured on the model that it left alone."""
    texts = dict(prompts=PROMPTS, target_new=TARGETS, subject=EXTRAS["subject"])
    options = dict(sequential_edit=True, verbose=False)

    def failing():
        e, at = editor(AlphaEditHyperParams, batch_size=size), iter(range(3))
        apply = e.apply_algo

        def apply_or_fail(*args, **kwargs):
            if next(at) == 1:
                raise EditError("the search for z* diverged")
            return apply(*args, **kwargs)

        e.apply_algo = apply_or_fail
        return e

    with pytest.raises(EditError, match="diverged"):
        getattr(failing(), call)(**texts, **options)
    e, records = failing(), []
    metrics, edited, _ = getattr(e, call)(**texts, **options, on_error="skip", records=records)
    failed = [2] if size == 2 else [1]
    assert [i for i, metric in enumerate(metrics) if "failed" in metric] == failed
    assert metrics[failed[0]]["failed"] == "the search for z* diverged" and len(metrics) == 3
    other = editor(AlphaEditHyperParams, batch_size=size)
    rest = [i for i in range(3) if i not in failed]
    kept = dict(prompts=[PROMPTS[i] for i in rest], target_new=[TARGETS[i] for i in rest])
    kept["subject"] = [EXTRAS["subject"][i] for i in rest]
    expected, without, _ = getattr(other, call)(**kept, **options)
    assert same(weights_of(edited), weights_of(without))
    assert [metrics[i]["post"] for i in rest] == [metric["post"] for metric in expected]
    assert summarize(metrics)["rewrite_acc"] == pytest.approx(
        sum(metric["post"]["rewrite_acc"][0] for metric in metrics) / 3
    ), "a failed edit counts in the mean"


def test_on_error_is_one_of_two(editor):
    with pytest.raises(HostError, match="on_error must be 'stop' or 'skip', not 'go'"):
        editor(AlphaEditHyperParams).edit(PROMPTS, TARGETS, subject=EXTRAS["subject"], on_error="go")
