"""The largest tensor that the attribution makes: chunks, never [d_ff, vocabulary] and never [d_ff, d_model]
per prompt."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from easyedit_neuron.arch import ModelView
from easyedit_neuron.attribution import logsumexp, projection
from easyedit_neuron.attribution.readings import read_prompts
from helpers.prompts import right_padded
from helpers.tiny_models import tiny_model


class _Largest(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that is not a view of ``existing``."""

    def __init__(self, existing):
        super().__init__()
        self.existing = {tensor.untyped_storage().data_ptr() for tensor in existing}
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.existing:
                self.numel = max(self.numel, tensor.numel())
        return result


def test_temporaries_stay_within_the_chunks(monkeypatch):
    model, tok = tiny_model("llama", intermediate_size=640)
    view = ModelView.of(model)
    readings = read_prompts(view, right_padded(tok), [0, 2])
    monkeypatch.setattr(projection, "CPU_CHUNKS", logsumexp.Chunks(16, 20, 1000))
    with _Largest(model.parameters()) as seen:
        chunked = projection.amplified_log_probs(view, readings, readings.top1, 30.0)
    # [3 prompts, 20 tokens, 16 neurons] in chunks, [4 prompts, 640 neurons] to keep; one prompt's naive
    # matrix has 20,480
    assert seen.numel == 4 * 640
    monkeypatch.undo()
    whole = projection.amplified_log_probs(view, readings, readings.top1, 30.0)
    for layer in (0, 2):
        torch.testing.assert_close(chunked[layer].amplified, whole[layer].amplified, rtol=1e-4, atol=1e-4)
