"""EasyEdit's BaseEditor and the built-in one where the matrix (test_matrix.py) does not look: with a method
that needs no subject, earlier measurements, and FT, which both have."""

import json

import pytest

from easyedit_neuron.models.ft.ft_hparams import FTHyperParams
from helpers.dummy_method import DummyHyperParams
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, same, weights_of


@pytest.fixture
def pair(editors, llama_folder):
    return lambda **changes: editors(DummyHyperParams(model_name=str(llama_folder), **changes))


def test_normal_edit(pair):
    editors = pair(batch_size=2)
    before = weights_of(editors[1].model)
    results = [e.normal_edit(PROMPTS, TARGETS) for e in editors]
    assert results[0][0] is results[1][0] is None and same(results[0][2], results[1][2])
    assert all(same(weights_of(e.model), before) for e in editors)


def test_edit_requests_and_earlier_measurements(pair, tmp_path):
    easyedit_editor, builtin_editor = pair()
    requests = [
        m["requested_rewrite"] for m in builtin_editor.edit(PROMPTS, TARGETS, verbose=False, **EXTRAS)[0]
    ]
    results = [
        e.edit_requests(requests, verbose=False, pre_file=str(tmp_path / f"{i}.json"))
        for i, e in enumerate((easyedit_editor, builtin_editor))
    ]
    assert results[0][0] == results[1][0]
    files = [json.loads((tmp_path / f"{i}.json").read_text()) for i in (0, 1)]
    assert files[0] == files[1]
    again = [
        e.edit_requests(requests, verbose=False, pre_edit=files[i])
        for i, e in enumerate((easyedit_editor, builtin_editor))
    ]
    assert again[0][0] == again[1][0] == results[0][0]


def test_blanks_that_nobody_sees(pair):
    """Texts with blanks at their ends are edited and measured as those without, by both editors."""
    dirty = [prompt + " " for prompt in PROMPTS], [f" {target}\n" for target in TARGETS]
    results = []
    for prompts, targets in ((PROMPTS, TARGETS), dirty):
        results += [e.edit(list(prompts), list(targets), verbose=False)[0] for e in pair()]
    assert results[0] == results[1] == results[2] == results[3]


@pytest.mark.parametrize("objective", ["prompt_last", "target_new"])
@pytest.mark.parametrize("constraint", [False, 5e-3])
def test_fine_tuning_of_a_single_request(editors, llama_folder, objective, constraint):
    """Within 1e-5 of EasyEdit's FT: the sums run in another order."""
    hparams = FTHyperParams(
        alg_name="FT",
        model_name=str(llama_folder),
        device="cpu",
        layers=[1, 2],
        num_steps=5,
        lr=5e-3,
        batch_size=1,
        objective_optimization=objective,
        norm_constraint=constraint,
        rewrite_module_tmp="model.layers.{}.mlp.down_proj.weight",
    )
    results = [
        e.edit(PROMPTS[:1], TARGETS[:1], sequential_edit=True, verbose=False) for e in editors(hparams)
    ]
    assert results[0][0] == results[1][0]
    first, second = (weights_of(edited) for _, edited, _ in results)
    assert max(float((first[n] - second[n]).abs().max()) for n in first) < 1e-5
    assert not same(first, {**first, **results[0][2]}) and same(results[0][2], results[1][2])
