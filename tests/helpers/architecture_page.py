"""The table of docs/reference/architectures.md: an edit of a tiny random model for every cell.

``PYTHONPATH=tests python -m helpers.architecture_page [TYPE ...]`` writes the table, or these rows, anew.
"""

import sys
import tempfile
from pathlib import Path

import torch

from easyedit_neuron import FTHyperParams, apply_ft_to_model
from easyedit_neuron.arch.projections import projection_names
from easyedit_neuron.arch.table import ARCHITECTURES
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.statistics import NAME_TEMPLATES
from helpers import contract, editing
from helpers.editing import REQUESTS, changed_tensors, put_back, snapshot, target_nll
from helpers.pages import REPOSITORY
from helpers.tiny_models import tiny_model

PAGE = REPOSITORY / "docs" / "reference" / "architectures.md"
COLUMNS = ("NMKE", "PNKE", "PNKE, adam", "FiNE", "KNE", "Lasting", "ROME", "MEMIT", "AlphaEdit", "FT")
HEAD = f"| type | {' | '.join(COLUMNS)} |"
REQUEST = REQUESTS[2]
SEEDS = (2, 4, 0)
"""Of the random weights: with some, no search gains anything."""

_SEARCH = {"v_num_grad_steps": 15, "clamp_norm_factor": 4.0, "v_weight_decay": 0.0}
NOTES = {
    "does not say how many": "no [a]",
    "use solver closed_form": "no [b]",
    "system is singular": "no [singular]",
}
"""Words of an error -> cell."""


def hyperparameters(view, method, folder, **changes):
    """Settings with which an edit of a tiny model shows."""
    if method in editing.METHODS and method != "NMKE":
        ridge = 0.01 if method == "AlphaEdit" else 0.0
        fields = {**_SEARCH, "L2": ridge, "nullspace_threshold": 50.0, **changes}
        return editing.make_hparams(method, folder, **fields)
    name, _, solver = method.partition(", ")
    fields = {
        "NMKE": {**_SEARCH, "L2": 0.01, "nullspace_threshold": 50.0},
        "PNKE": {**_SEARCH, **({"solver": solver} if solver else {})},
        "FiNE": {"epochs": 12},
        "KNE": {"num_steps": 8, "target_modules": projection_names(view)},
        "Lasting": {"name_templates": list(NAME_TEMPLATES[:2]), "v_num_grad_steps": 8},
    }[name]
    return contract.settings(name, folder, **{**fields, **changes})


def edit(model, tok, method, hparams) -> dict:
    """Edit with the method; returns the original weights.

    The recorded parameters change, and no others.
    """
    before = snapshot(model)
    if method == "FT":
        _, weights = apply_ft_to_model(model, tok, [REQUEST], hparams, return_orig_weights=True)
        assert sorted(changed_tensors(model, before)) == sorted(weights)
        return weights
    _, weights, record = contract.apply(model, tok, [REQUEST], hparams, return_orig_weights=True)
    if method != "Lasting":  # which changes the shapes of the others too
        assert sorted(changed_tensors(model, before)) == sorted(record.deltas) == sorted(weights)
    return weights


def run(model_type: str, method: str, **changes) -> str:
    """``yes``, ``no`` where the edit changes nothing for the better, or the cell of the error.

    Raises:
        NeuronEditError: one that has no cell.
    """
    for seed in SEEDS:
        model, tok = tiny_model(model_type, seed=seed)
        nll, logits = target_nll(model, tok, REQUEST), model(torch.tensor([[1, 5, 9, 3]])).logits
        before = snapshot(model)
        with tempfile.TemporaryDirectory() as folder:
            if method == "FT":
                hparams = FTHyperParams(alg_name="FT", model_name="x", layers=[1], num_steps=10, lr=0.02)
                hparams.objective_optimization = "target_new"
            else:
                hparams = hyperparameters(ModelView.of(model), method, Path(folder), **changes)
            try:
                weights = edit(model, tok, method, hparams)
            except NeuronEditError as error:
                assert changed_tensors(model, before) == []
                (cell,) = (cell for words, cell in NOTES.items() if words in str(error))
                return cell
        if target_nll(model, tok, REQUEST) < nll:
            put_back(model, weights) if method != "Lasting" else None
            if method != "Lasting":
                assert torch.equal(model(torch.tensor([[1, 5, 9, 3]])).logits, logits)
            return "yes"
    return "no"


def cell(model_type: str, method: str) -> str:
    """What the page says of an architecture and a method."""
    result = run(model_type, method)
    if result == "no [singular]":
        return "yes [c]" if run(model_type, method, L2=0.01) == "yes" else "no"
    if method == "KNE" and result == "yes":
        names = projection_names(ModelView.of(tiny_model(model_type)[0]))
        return "yes" if "q_proj" in names else "yes [d]"
    return result


def rows() -> dict[str, dict[str, str]]:
    """Type -> method -> cell, as the page has them."""
    lines = PAGE.read_text(encoding="utf-8").partition(HEAD)[2].strip().splitlines()[1:]
    table = {}
    for line in lines:
        if not line.startswith("|"):
            break
        model_type, *cells = (part.strip() for part in line.strip("|").split("|"))
        table[model_type.strip("`")] = dict(zip(COLUMNS, cells))
    return table


def main(types: list[str]) -> None:
    """Write the rows of these types (all of them, if there are none) into the page."""
    table = rows()
    for model_type in types or sorted(ARCHITECTURES):
        table[model_type] = {method: cell(model_type, method) for method in COLUMNS}
        print(model_type, *table[model_type].values(), flush=True)
    lines = [HEAD, "|" + "---|" * (len(COLUMNS) + 1)]
    lines += [f"| `{name}` | {' | '.join(row.values())} |" for name, row in sorted(table.items())]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(HEAD)
    PAGE.write_text(before + "\n".join(lines) + rest[rest.index("\n\n") :], encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
