"""Short runs of edits for exports, and what they add up to by plain matrix sums in float64."""

import copy

import torch

from easyedit_neuron.arch.view import is_conv1d
from easyedit_neuron.edits.record import LayerDelta
from helpers.contract import KINDS, apply, fresh, settings
from helpers.editing import REQUESTS, make_hparams

RUNS = {
    "NMKE": ("NMKE", {}),
    "NMKE-solve": ("NMKE", dict(mask_stage="solve")),
    "MEMIT": ("MEMIT", {}),
    "FiNE": ("FiNE", {}),
    "KNE": ("KNE", {}),
    "KNE-attention": ("KNE", dict(target_modules=["q_proj", "v_proj", "down_proj"])),
    "KNE-columns": ("KNE", dict(neuron_axis="input")),
    "PNKE-adam": ("PNKE", dict(solver="adam", adam_steps=3, adam_lr=1e-3)),
}
CASES = [(run, kind) for run in RUNS for kind in KINDS]


def run_of(name, kind, folder, requests=REQUESTS, **options):
    """(unedited model, edited model, tokenizer, records) of one edit after the other."""
    method, changes = RUNS[name]
    model, tok = fresh(kind, **options)
    base = copy.deepcopy(model)
    hparams = (
        make_hparams(method, folder, **changes) if method == "MEMIT" else settings(method, folder, **changes)
    )
    return base, model, tok, [apply(model, tok, [request], hparams)[2] for request in requests]


def plain_changes(records):
    """{parameter: the sum of its changes ``[d_out, d_in]``, float64}, entry by entry."""
    changes = {}
    for record in records:
        for name, delta in record.deltas.items():
            if isinstance(delta, LayerDelta):
                columns = zip(delta.value_factor.T.double(), delta.key_factor.T.double(), strict=True)
                change = sum(torch.outer(left, right) for left, right in columns)
            else:
                change = torch.zeros(delta.shape, dtype=torch.float64)
                for unit, vector in zip(delta.units.tolist(), delta.vectors.double()):
                    if delta.axis == "output":
                        change[unit] += vector
                    else:
                        change[:, unit] += vector
            changes[name] = changes.get(name, 0) + change
    return changes


def as_stored(model, name, change):
    """A change ``[d_out, d_in]`` in the parameter's own layout."""
    if name.endswith(".bias"):
        return change[:, 0]
    return change.T if is_conv1d(model.get_submodule(name.rpartition(".")[0])) else change


def edited_in_float64(base, records):
    """{parameter: float64 value}, the base's with the plain sums added."""
    changes = plain_changes(records)
    return {
        name: p.detach().double() + (as_stored(base, name, changes[name]) if name in changes else 0)
        for name, p in base.named_parameters()
    }


@torch.no_grad()
def logits(model, tok):
    """``[tokens, vocabulary]`` of all requests' prompts, one prompt at a time."""
    return torch.cat(
        [model(input_ids=torch.tensor([tok(r["prompt"])["input_ids"]])).logits[0] for r in REQUESTS]
    )


@torch.no_grad()
def distance(first, second):
    """Largest difference relative to the largest entry of ``second``."""
    return float((first.double() - second.double()).abs().max() / second.double().abs().max())


def same_weights(first, second):
    """Bit-identical parameters."""
    return all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
