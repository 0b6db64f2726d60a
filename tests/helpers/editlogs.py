"""Sequences of edits with their logs, for all methods."""

from easyedit_neuron.editlog import EditLog
from helpers.contract import apply, fresh, settings
from helpers.editing import REQUESTS, make_hparams

FIRST, SECOND, THIRD = REQUESTS
VARIANTS = {
    "NMKE post": ("NMKE", {}),
    "NMKE solve": ("NMKE", {"mask_stage": "solve", "solve_preserve": "covariance"}),
    "PNKE adam": (
        "PNKE",
        {
            "solver": "adam",
            "adam_steps": 3,
            "adam_lr": 2e-3,
            "adam_preserve_tokens": 64,
            "adam_trains": ["w_in", "w_out"],
        },
    ),
    "FiNE": ("FiNE", {}),
    "KNE": ("KNE", {}),
    "MEMIT": ("MEMIT", {"accumulate_keys": True}),
}


def hparams_for(variant, folder, **changes):
    """Hyperparameters of a variant."""
    method, fields = VARIANTS[variant]
    if method == "MEMIT":
        return make_hparams(method, folder, **{"v_num_grad_steps": 2, **fields, **changes})
    return settings(method, folder, **{**fields, **changes})


def edited(kind, variant, folder, requests=REQUESTS, name="log", dtype=None, **changes):
    """(model, tokenizer, hyperparameters, log, records) after one edit per request."""
    model, tok = fresh(kind) if dtype is None else fresh(kind, dtype=dtype)
    hparams, log, records = hparams_for(variant, folder, **changes), EditLog(folder / name), []
    for request in requests:
        records.append(apply(model, tok, [request], hparams)[2])
        log.append(records[-1])
    return model, tok, hparams, log, records
