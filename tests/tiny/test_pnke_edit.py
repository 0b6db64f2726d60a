"""PNKE by Eq. 10: which neurons change, that the change is the equation's, what it costs, and what is
recorded."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from easyedit_neuron.arch import ModelView
from easyedit_neuron.edits.record import EditRecord, leakage
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import MaskError, RequestError
from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer
from easyedit_neuron.locate_then_edit.solver.problem import Problem
from easyedit_neuron.locate_then_edit.solver.sequential import SequentialSolver
from easyedit_neuron.masks import ScoringContext
from easyedit_neuron.models.pnke.pnke_mask import CausalScores, pnke_mask
from easyedit_neuron.models.pnke.pnke_options import PNKEOptions, PNKEScoringOptions
from easyedit_neuron.models.pnke.pnke_scores import pnke_scores
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.statistics.nullspace import null_space
from helpers.editing import CONTEXTS, REQUESTS, apply, changed_tensors, make_hparams, put_back, snapshot
from helpers.plain_search import plain_keys
from helpers.pnke_cases import edit, own_prompts, pnke_hparams  # noqa: F401
from helpers.tiny_models import ALL_TYPES, tiny_model

pytestmark = pytest.mark.usefixtures("own_prompts")
F64 = torch.float64


@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_the_critical_neurons_of_the_requests_change_and_nothing_else(model_type, tmp_path):
    model, tok = tiny_model(model_type)
    before = snapshot(model)
    record, weights = edit(model, tok, REQUESTS[:2], tmp_path)
    clean, _ = tiny_model(model_type)
    context = ScoringContext(ModelView.of(clean), tok, prepare(REQUESTS[:2]), [["{}"], CONTEXTS], [1, 2])
    scores = pnke_scores(context, PNKEScoringOptions(ig_steps=4))
    names = []
    for layer, delta in record.layers.items():
        expected = pnke_mask(scores[layer], PNKEOptions(min_neurons=5))
        assert torch.equal(delta.mask, expected.mask) and 5 <= expected.size <= 10
        now, then = (ModelView.of(m).down_matrix(layer) for m in (model, clean))
        assert torch.equal((now != then).any(0), delta.mask)
        assert delta.mask_info["requests"] == expected.info["requests"]
        names.append(record.names[layer])
    assert sorted(changed_tensors(model, before)) == sorted(names) == sorted(weights)
    put_back(model, weights)
    assert changed_tensors(model, before) == []


@pytest.mark.parametrize(
    "preserve, model_type", [("covariance", "llama"), ("covariance", "gpt2"), ("nullspace", "llama")]
)
def test_the_change_solves_equation_10(preserve, model_type, tmp_path):
    """One layer in float64: ``R K_c^T (K_c K_c^T + lambda C_cc)^-1``, or within the null space of C_cc; K
    from plain passes."""
    model, tok = tiny_model(model_type)
    view, layer = ModelView.of(model), 2
    keys = []
    for request in REQUESTS[:2]:
        context_keys = plain_keys(model, view, tok, request, layer, ["{}", *CONTEXTS])
        keys.append((context_keys[0] + context_keys[1:].mean(0)) / 2)
    keys = torch.stack(keys, 1).to(F64)
    settings = dict(
        layers=[layer],
        preserve=preserve,
        nullspace_threshold=0.3,
        L2=0.0 if preserve == "covariance" else 0.05,
        min_neurons=12,
        mom2_update_weight=0.7,
    )
    c = Statistics(view, tok, pnke_hparams(tmp_path, **settings)).covariance(layer).to(F64)
    record, _ = edit(model, tok, REQUESTS[:2], tmp_path, **settings)
    delta = record.layers[layer]
    rows = delta.mask.nonzero().flatten()
    k, c = keys[rows], c[rows[:, None], rows]
    if preserve == "covariance":
        right = torch.linalg.solve(k @ k.T + 0.7 * c, k)
    else:
        basis = null_space(c, 0.3)
        p = basis.project(torch.eye(len(rows), dtype=F64))
        assert 0 < basis.dim < len(rows)
        right = torch.linalg.solve(p @ k @ k.T + 0.05 * torch.eye(len(rows), dtype=F64), p @ k)
    expected = torch.zeros_like(keys).index_copy(0, rows, right)
    torch.testing.assert_close(
        delta.key_factor.to(F64), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
    )
    # the left factor is what the layer's output lacks of z*: delivered where the ridge lets it
    assert 0 < delta.residual_share <= 1.001 and record.info["identification"]["requests"] == 2


def test_lambda_keeps_the_text_and_delivers_less(tmp_path):
    results = []
    for weight in (0.01, 1.0, 100.0):
        model, tok = tiny_model("llama")
        record, _ = edit(model, tok, REQUESTS[:1], tmp_path, layers=[1], mom2_update_weight=weight)
        delta = record.layers[1]
        results.append((delta.residual_share, delta.leakage * float(delta.matrix().square().sum())))
    delivered, disturbed = zip(*results)
    assert delivered[0] > 0.9 and list(delivered) == sorted(delivered, reverse=True) and delivered[2] < 0.1
    assert list(disturbed) == sorted(disturbed, reverse=True)


class _Largest(TorchDispatchMode):
    """Numbers in the largest tensor that anything gives back, and the sides of all that is factored."""

    def __init__(self):
        super().__init__()
        self.numbers, self.factored = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            # A view of a stored matrix costs nothing.
            if isinstance(tensor, torch.Tensor) and tensor._base is None:
                self.numbers = max(self.numbers, tensor.numel())
        if "linalg" in str(func) or "cholesky" in str(func):
            self.factored |= {side for x in args if isinstance(x, torch.Tensor) for side in x.shape[-2:]}
        return out


@pytest.mark.parametrize("preserve", ["covariance", "nullspace"])
def test_the_solve_is_cubic_in_the_critical_neurons_only(preserve):
    """4,000 neurons, 30 of them critical, 7 earlier keys: nothing larger than a few keys is made, or than 30
    factored."""
    d_ff, critical, n = 4000, 30, 2
    draw = torch.Generator().manual_seed(0)
    keys, earlier = (torch.randn(d_ff, count, generator=draw) for count in (n, 7))
    covariance = torch.eye(d_ff)
    rows = torch.zeros(d_ff, dtype=torch.bool).index_fill(
        0, torch.randperm(d_ff, generator=draw)[:critical], True
    )
    buffer = KeyBuffer(d_ff)
    buffer.append(earlier)
    preserved = dict(preserve=covariance, weight=2.0) if preserve == "covariance" else {}
    solver = SequentialSolver(Problem(0.1, **preserved), buffer)

    with _Largest() as work:
        index = rows.nonzero().squeeze(1)
        subspace = None
        if preserve == "nullspace":
            subspace = null_space(covariance[index[:, None], index], 2.0)
        right = solver.masked_key_factor(keys, rows, subspace)
        share = leakage(torch.randn(8, n), right, covariance)
    assert work.numbers <= d_ff * 8 and work.factored and max(work.factored) <= critical
    assert torch.equal(right.any(1), rows)
    # the same as over all rows
    assert share == pytest.approx(1 / d_ff, rel=1e-5)


def test_the_mask_on_every_path_of_other_methods(tmp_path):
    options = {
        "steps": 2,
        "min_neurons": 4,
        "trigger_activation": 60,
        "psem_size": 2,
        "activation_position": "subject_last",
    }
    for method in ("MEMIT", "AlphaEdit", "ROME", "NMKE"):
        for stage in ("post", "solve"):
            model, tok = tiny_model("llama")
            hparams = make_hparams(
                method,
                tmp_path,
                mask="pnke",
                mask_stage=stage,
                mask_options=options,
                v_num_grad_steps=2,
                nullspace_threshold=2.0,
            )
            _, _, record = apply(model, tok, REQUESTS[:2], hparams)
            assert all(4 <= int(delta.mask.sum()) <= 16 for delta in record.layers.values())
            assert (
                record.info["identification"]["requests"] == 2
                and len(record.info["identification"]["prompts"]) == 2
            )


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "rome"},
        {"path": "rome", "mask_stage": "post"},
        {"path": "alphaedit", "L2": 0.1},
        {"mask_stage": "post"},
        {"path": "alphaedit", "mask_stage": "post", "L2": 0.1, "nullspace_threshold": 2.0},
        {"strategy": "trigger"},
        {"strategy": "background"},
        {"strategy": "activation", "activation_share": 0.25},
        {"thresholds": "range", "trigger_activation": 50.0},
        {"mask": "random", "mask_options": {"density": 0.25}},
        {"activation_value": "magnitude", "activation_position": "subject_last"},
    ],
)
def test_settings_edit(changes, tmp_path):
    model, tok = tiny_model("llama")
    record, _ = edit(model, tok, REQUESTS[:2], tmp_path, **changes)
    assert all(
        torch.isfinite(d.matrix()).all() and d.matrix().any() and 0 < d.density < 1
        for d in record.layers.values()
    )


def test_memit_and_alphaedit_are_one_problem_in_the_solve_stage(tmp_path):
    records = []
    for path in ("memit", "alphaedit"):
        model, tok = tiny_model("llama")
        records.append(edit(model, tok, REQUESTS[:2], tmp_path, path=path, L2=0.1)[0])
    assert all(
        torch.equal(records[0].layers[layer].key_factor, records[1].layers[layer].key_factor)
        for layer in (1, 2)
    )


def test_the_record_tells_prompts_costs_and_stages_and_can_be_saved(tmp_path):
    model, tok = tiny_model("llama")
    record, _ = edit(model, tok, REQUESTS, tmp_path)
    identification = record.info["identification"]
    assert [len(prompts["texts"]) for prompts in identification["prompts"]] == [3, 2, 1] and identification[
        "prompts"
    ][1]["shortfall"] == 8
    assert identification["passes"]["forward_calls"] < 10 and identification["passes"]["backward_calls"] == 2
    assert {"statistics", "target", "mask", "keys", "solve"} <= set(
        record.seconds
    ) and record.method == "PNKE"
    record.save(tmp_path / "record.safetensors")
    assert EditRecord.load(tmp_path / "record.safetensors").to_json() == record.to_json()


def test_earlier_edits_are_protected_or_not(tmp_path):
    norms = []
    for protects in (True, False):
        model, tok = tiny_model("llama")
        edit(model, tok, REQUESTS[:1], tmp_path, accumulate_keys=protects)
        other = {"prompt": "Anna Berg lives in", "subject": "Anna Berg", "target_new": "Rome"}
        assert other["subject"] == REQUESTS[0]["subject"], "a key like the first one"
        record, _ = edit(model, tok, [other], tmp_path, accumulate_keys=protects)
        norms.append(record.layers[1].key_factor.norm())
    assert norms[0] < norms[1]


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"attribution_target": "ground_truth"}, RequestError, "needs field 'ground_truth'"),
        ({"min_neurons": 49}, MaskError, "the layer has 48 neurons, got 49"),
    ],
)
def test_mistakes_leave_the_model_alone(changes, error, words, tmp_path):
    model, tok = tiny_model("llama")
    before = snapshot(model)
    with pytest.raises(error, match=words):
        edit(model, tok, [{**REQUESTS[0], "ground_truth": None}], tmp_path, **changes)
    with pytest.raises(RequestError, match="does not occur in prompt"):
        edit(model, tok, [{**REQUESTS[0], "subject": "Peter"}], tmp_path)
    assert changed_tensors(model, before) == []


def test_scores_on_which_nothing_can_be_told_apart_still_edit(tmp_path, monkeypatch):
    """All scores equal, in every layer: the first neurons, and a record that says so."""
    flat = CausalScores(torch.ones(48), torch.ones(2, 48), torch.zeros(48))
    monkeypatch.setattr(
        "easyedit_neuron.models.pnke.pnke_scores.pnke_scores",
        lambda context, options: {layer: [flat] for layer in context.layers},
    )
    model, tok = tiny_model("llama")
    record, _ = edit(model, tok, REQUESTS[:1], tmp_path, min_neurons=3)
    for delta in record.layers.values():
        assert (
            delta.mask.nonzero().flatten().tolist() == [0, 1, 2]
            and delta.mask_info["requests"][0]["filled_up"] == 3
        )
