"""Undo and replay for every method on three architectures: the same bits again, and one delta less."""

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.editlog import EditLog, redo, replay, undo
from easyedit_neuron.edits.record import LayerDelta
from helpers.contract import KINDS, apply, differing, fresh, parameters
from helpers.editlogs import SECOND, VARIANTS, edited


def dense(view, name, delta):
    """A change in the parameter's own layout, float64."""
    if isinstance(delta, LayerDelta):
        matrix = delta.value_factor.double() @ delta.key_factor.double().T
    else:
        matrix = torch.zeros(delta.shape, dtype=torch.float64)
        if delta.axis == "output":
            matrix[delta.units] = delta.vectors.double()
        else:
            matrix[:, delta.units] = delta.vectors.double().T
    parameter = view.model.get_parameter(name)
    if parameter.dim() == 1:
        return matrix.reshape(parameter.shape)
    return matrix.T if view.matrix(name).stride() != parameter.stride() else matrix


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sequence(variant, kind, tmp_path):
    """Three edits: replayed to the same bits; the second taken out, the rest within rounding of base + first
    + third; replayed again; another edit; the undone one put back."""
    model, tok, hparams, log, records = edited(kind, variant, tmp_path)
    reread = EditLog(log.folder)
    assert [record.to_json() for record in reread] == [record.to_json() for record in records]
    base, _ = fresh(kind)
    origin = parameters(base)
    done = replay(reread, base, tok)
    assert (
        done.exact is True and done.ids == [1, 2, 3] and differing(parameters(base), parameters(model)) == []
    )
    assert done.state == (variant not in ("FiNE", "KNE"))

    before = parameters(model)
    assert undo(model, log, 2) == 4 and log.ids == [1, 3]
    view = ModelView.of(model)
    touched = differing(before, parameters(model))
    assert touched == sorted(records[1].deltas)
    for name in log.base.weights:
        expected = origin[name].double()
        for record in (records[0], records[2]):
            expected = expected + (dense(view, name, record.deltas[name]) if name in record.deltas else 0)
        scale = max(float(before[name].abs().max()), float(expected.abs().max()))
        error = float((model.get_parameter(name).detach().double() - expected).abs().max())
        assert error <= 4 * torch.finfo(torch.float32).eps * scale, name  # four sums, each rounded once
    again, _ = fresh(kind)
    assert (
        replay(EditLog(log.folder), again).exact is True
        and differing(parameters(again), parameters(model)) == []
    )

    _, _, record = apply(model, tok, [SECOND], hparams)
    assert log.append(record) == 5 and log.ids == [1, 3, 5]
    redo(model, log, 2)
    last, _ = fresh(kind)
    assert log.ids == [1, 3, 5, 2] and replay(EditLog(log.folder), last).exact is True
    assert differing(parameters(last), parameters(model)) == []


@pytest.mark.parametrize("variant", ["NMKE post", "FiNE", "KNE", "PNKE adam"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(variant, dtype, tmp_path):
    """Replay is exact in bfloat16 and float64 too; an undo rounds once more to the dtype."""
    kind = "llama"
    model, tok, hparams, log, records = edited(kind, variant, tmp_path, dtype=dtype)
    base, _ = fresh(kind, dtype=dtype)
    assert (
        replay(EditLog(log.folder), base).exact is True
        and differing(parameters(base), parameters(model)) == []
    )
    before, _ = fresh(kind, dtype=dtype)
    replay(log, before, upto=2)
    undo(model, log, 3)
    for name in records[2].deltas:
        undone, replayed = model.get_parameter(name).double(), before.get_parameter(name).double()
        scale = torch.maximum(undone.abs(), base.get_parameter(name).double().abs())
        assert bool(((undone - replayed).abs() <= 2 * torch.finfo(dtype).eps * scale).all()), name
    again, _ = fresh(kind, dtype=dtype)
    assert (
        replay(EditLog(log.folder), again).exact is True
        and differing(parameters(again), parameters(model)) == []
    )
