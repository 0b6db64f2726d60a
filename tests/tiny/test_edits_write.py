"""Writing deltas: all or none, in the parameter's own layout."""

import pytest
import torch

from easyedit_neuron.arch import ModelView
from easyedit_neuron.edits.record import LayerDelta, UnitDelta
from easyedit_neuron.edits.write import fingerprint, restore, write
from easyedit_neuron.errors import ArchitectureError, StateError
from easyedit_neuron.utils.fingerprint import tensors_fingerprint
from helpers.tiny_models import tiny_model


def unit_delta(shape, axis, units, seed=0, dtype=torch.float32):
    length = shape[1] if axis == "output" else shape[0]
    g = torch.Generator().manual_seed(seed)
    return UnitDelta(
        torch.tensor(units), torch.randn(len(units), length, generator=g, dtype=dtype), axis, shape
    )


@pytest.mark.parametrize(
    "kind, name, bias",
    [
        ("llama", "model.layers.1.mlp.up_proj.weight", None),
        ("gpt2", "transformer.h.1.attn.c_attn.weight", "transformer.h.1.mlp.c_fc.bias"),
    ],
)
def test_rows_columns_and_biases(kind, name, bias):
    model, _ = tiny_model(kind)
    view = ModelView.of(model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    shape = tuple(view.matrix(name).shape)
    stored = before[name].T if kind == "gpt2" else before[name]
    assert shape == tuple(stored.shape)
    for axis, units in (("output", [0, 5]), ("input", [1, 2, 7])):
        delta = unit_delta(shape, axis, units)
        deltas = {name: delta}
        if bias is not None and axis == "output":
            deltas[bias] = unit_delta((len(before[bias]), 1), "output", [3])
        originals = write(view, deltas)
        assert {n: torch.equal(originals[n], before[n]) for n in originals} == dict.fromkeys(deltas, True)
        changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        assert changed == set(deltas)
        expected = stored + delta.matrix()
        now = model.get_parameter(name).detach()
        torch.testing.assert_close(now.T if kind == "gpt2" else now, expected, rtol=0, atol=0)
        if len(deltas) == 2:
            assert (model.get_parameter(bias) - before[bias]).nonzero().flatten().tolist() == [3]
        restore(model, originals)
        assert fingerprint(model, before) == tensors_fingerprint(before.items())


def test_half_precision_is_rounded_once():
    model, _ = tiny_model("llama")
    view = ModelView.of(model.to(torch.bfloat16))
    name = "model.layers.0.mlp.down_proj.weight"
    before, shape = view.matrix(name).clone(), tuple(view.matrix(name).shape)
    delta = unit_delta(shape, "input", [4])
    write(view, {name: delta})
    assert torch.equal(view.matrix(name)[:, 4], (before[:, 4].float() + delta.vectors[0]).to(torch.bfloat16))


def test_all_or_none():
    model, _ = tiny_model("llama")
    view = ModelView.of(model)
    before = fingerprint(model, dict(model.named_parameters()))
    good, bad = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    shape = tuple(view.matrix(good).shape)
    whole = LayerDelta(torch.randn(shape[0], 1), torch.randn(shape[1], 1))
    infinite = unit_delta(shape, "output", [1])
    infinite.vectors[0, 0] = float("inf")
    for delta, words in (
        (infinite, "up_proj.weight: the computed delta is not finite"),
        (unit_delta((shape[0], shape[1] + 1), "output", [1]), "the delta is for a weight"),
    ):
        with pytest.raises(StateError, match=words):
            write(view, {good: whole, bad: delta})
        assert fingerprint(model, dict(model.named_parameters())) == before
    with pytest.raises(ArchitectureError, match="no parameter 'model.layers.9"):
        view.matrix("model.layers.9.mlp.up_proj.weight")
