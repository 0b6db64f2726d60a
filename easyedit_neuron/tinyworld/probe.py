"""Can this model be edited, and where? ``python -m easyedit_neuron.tinyworld.probe --model tiny-llama``

Recall says nothing about it: a model may know every fact and look none of them up at the subject's last
    token. Two things
tell, layer by layer: the loss that the search for z* ends with (what that token's state can make the model
    say; the new
objects that are out of reach at the best layer are named: often words that the model has never seen), and the
    keys (whether
they belong to the subject, or to everybody who shares its last word). With ``--text`` it also says which
``nullspace_threshold`` leaves an edit room: how much of the subjects' keys lies where the text's covariance
has smaller eigenvalues.
"""

import argparse
import logging
import sys
from statistics import fmean

import torch

from .. import data
from ..arch.tokens import target_token_ids
from ..arch.view import ModelView
from ..edits.request import EditRequest, prepare
from ..errors import NeuronEditError
from ..host.load_model import load_model
from ..locate_then_edit.compute_keys import compute_keys, key_prompts
from ..locate_then_edit.compute_z import TargetValue, compute_z
from ..locate_then_edit.context_templates import contexts_of
from ..models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from ..statistics.cache import Statistics
from ..statistics.nullspace import null_space

THRESHOLDS = (0.02, 0.1, 0.3, 1.0, 3.0, 10.0)
REACHED = 0.5
"""Loss below which z* counts as found."""


def probe_targets(found: list[list[TargetValue]]) -> list[dict]:
    """z* alone, by layer: means of |z|, |delta|, first and last loss, and the share that ended below
    ``REACHED``."""
    return [
        {
            "layer": layer,
            "z_norm": fmean(float(t.initial.norm()) for t in targets),
            "delta_norm": fmean(float((t.value - t.initial).norm()) for t in targets),
            "first_loss": fmean(t.losses[0] for t in targets),
            "last_loss": fmean(t.losses[-1] for t in targets),
            "reached": fmean(t.losses[-1] < REACHED for t in targets),
        }
        for layer, targets in enumerate(found)
    ]


def missed(tok, requests: list[EditRequest], found: list[list[TargetValue]]) -> tuple[int, list[dict]]:
    """(the layer at which most are reached, the requests that are not reached there: new object, its tokens,
    last loss)."""
    best = max(range(len(found)), key=lambda layer: sum(t.losses[-1] < REACHED for t in found[layer]))
    return best, [
        {
            "tokens": len(target_token_ids(tok, request.target_new)),
            "last_loss": target.losses[-1],
            "new object": request.target_new,
        }
        for request, target in zip(requests, found[best])
        if target.losses[-1] >= REACHED
    ]


def probe_keys(view: ModelView, tok, requests: list[EditRequest], contexts: list[list[str]]) -> list[dict]:
    """Mean cosines of keys by layer: one subject in two contexts, subjects with the same last word, any two
    subjects."""
    layers = list(range(view.n_layers))
    bare = key_prompts(tok, requests, [["{}"]], view.input_device)
    told = key_prompts(tok, requests, [contexts[-1][:1]], view.input_device)
    plain = compute_keys(view, bare, layers)
    other = compute_keys(view, told, layers)
    words = [request.subject.split()[-1] for request in requests]
    same = torch.tensor([[a == b for b in words] for a in words]) & ~torch.eye(len(words), dtype=torch.bool)
    different = torch.tensor([[a.subject != b.subject for b in requests] for a in requests])
    rows = []
    for layer in layers:
        one, two = (torch.nn.functional.normalize(k[layer].cpu(), dim=0) for k in (plain, other))
        cosines = one.T @ one
        rows.append(
            {
                "layer": layer,
                "same_subject": float((one * two).sum(0).mean()),
                "same_last_word": float(cosines[same & different].mean()),
                "any_two": float(cosines[different].mean()),
            }
        )
    return rows


def probe_null_space(covariance: torch.Tensor, keys: torch.Tensor) -> dict[str, float]:
    """Share of the keys' energy in the null space that each of ``THRESHOLDS`` gives.

    Args:
        covariance: [d_ff, d_ff] of the text's keys.
        keys: [d_ff, n].
    """
    total = keys.square().sum()
    return {
        f"below {threshold:g}": float(null_space(covariance, threshold).project(keys).square().sum() / total)
        for threshold in THRESHOLDS
    }


def _null_spaces(
    view: ModelView, tok, requests: list[EditRequest], contexts: list[list[str]], hparams
) -> list[dict]:
    layers = list(range(view.n_layers))
    measured = Statistics(view, tok, hparams.override({"layers": layers}))
    keys = compute_keys(view, key_prompts(tok, requests, contexts, view.input_device), layers)
    return [{"layer": layer, **probe_null_space(measured.covariance(layer), keys[layer])} for layer in layers]


def _table(rows: list[dict]) -> str:
    names = list(rows[0])
    lines = ["".join(name.rjust(16) for name in names)]
    lines += [
        "".join((f"{row[n]:.3f}" if isinstance(row[n], float) else str(row[n])).rjust(16) for n in names)
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main(argv=None) -> int:
    """Entry point; 2 on bad input, with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m easyedit_neuron.tinyworld.probe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="tiny-llama", help="shipped name or folder")
    parser.add_argument("--hparams", default="AlphaEdit/tiny-llama", help="settings of the search for z*")
    parser.add_argument("--data", default="tiny-world")
    parser.add_argument("--targets", type=int, default=10, help="requests for the z* table")
    parser.add_argument("--keys", type=int, default=300, help="requests for the table of keys")
    parser.add_argument(
        "--text", help="text of the covariance, as mom2_dataset takes it: adds the table of null spaces"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        hparams = AlphaEditHyperParams.from_hparams(args.hparams).override({"model_name": args.model})
        requests = prepare(data.load(args.data, size=max(args.targets, args.keys)))
        model, tok, _ = load_model(hparams)
        view = ModelView.of(model.eval())
        groups = contexts_of(model, tok, hparams)
        flat = [context for group in groups for context in group]
        searched = requests[: args.targets]
        found = [
            compute_z(view, tok, searched, hparams, flat, layer).targets for layer in range(view.n_layers)
        ]
        best, out_of_reach = missed(tok, searched, found)
        keys = probe_keys(view, tok, requests[: args.keys], groups)
        if args.text:
            hparams = hparams.override({"mom2_dataset": args.text})
        spaces = _null_spaces(view, tok, requests[: args.keys], groups, hparams) if args.text else []
    except NeuronEditError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    sys.stdout.write(f"z*, {args.targets} requests\n{_table(probe_targets(found))}\n")
    sys.stdout.write(
        f"not reached at layer {best}: {len(out_of_reach)}\n{_table(out_of_reach) if out_of_reach else ''}\n"
    )
    sys.stdout.write(f"keys, mean cosine, {args.keys} requests\n{_table(keys)}")
    if spaces:
        sys.stdout.write(f"\nkeys, share of their energy in the null space by threshold\n{_table(spaces)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
