"""Find out where a model can be edited: ``python -m easyedit_neuron.tinyworld.probe --model tiny-llama``

Recall does not tell: a model may know every fact and look none of them up at the subject's last token.
Two things do, layer by layer:
- the last loss of the search for z*: what the state at that token can make the model say. New objects
  out of reach at the best layer are listed; often the model has never seen these words;
- the cosines of keys: whether a key belongs to the subject, or to everybody with the same last word.
--text adds the room that each nullspace_threshold leaves an edit: the share of the keys' energy in the
directions where the text's covariance has smaller eigenvalues.
"""

import argparse
import logging
import sys
from statistics import fmean

import torch
from torch.nn.functional import normalize

from .. import data
from ..arch.load_model import load_model
from ..arch.tokens import target_token_ids
from ..arch.view import ModelView
from ..edits.request import EditRequest, prepare
from ..errors import NeuronEditError
from ..locate_then_edit.compute_keys import compute_keys, key_prompts
from ..locate_then_edit.compute_z import TargetValue, compute_z
from ..locate_then_edit.context_templates import contexts_of
from ..models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from ..statistics.cache import Statistics
from ..statistics.nullspace import null_space

THRESHOLDS = (0.02, 0.1, 0.3, 1.0, 3.0, 10.0)
REACHED = 0.5
"""Loss below which a new object counts as reached."""


def probe_targets(targets_by_layer: list[list[TargetValue]]) -> list[dict]:
    """z* by layer: means of |z|, |delta|, first and last loss, and the share that ended below ``REACHED``."""
    rows = []
    for layer, targets in enumerate(targets_by_layer):
        row = {"layer": layer, "z_norm": fmean(float(target.initial.norm()) for target in targets)}
        row["delta_norm"] = fmean(float((target.value - target.initial).norm()) for target in targets)
        row["first_loss"] = fmean(target.losses[0] for target in targets)
        row["last_loss"] = fmean(target.losses[-1] for target in targets)
        rows.append(row | {"reached": fmean(target.losses[-1] < REACHED for target in targets)})
    return rows


def unreached(
    tok, requests: list[EditRequest], targets_by_layer: list[list[TargetValue]]
) -> tuple[int, list[dict]]:
    """The layer at which most new objects are reached, and those that are not reached there."""
    counts = [sum(target.losses[-1] < REACHED for target in targets) for targets in targets_by_layer]
    best = counts.index(max(counts))
    rows = []
    for request, target in zip(requests, targets_by_layer[best]):
        if target.losses[-1] >= REACHED:
            tokens, new_object = len(target_token_ids(tok, request.target_new)), request.target_new
            rows.append({"tokens": tokens, "last_loss": target.losses[-1], "new object": new_object})
    return best, rows


def probe_keys(view: ModelView, tok, requests: list[EditRequest], contexts: list[list[str]]) -> list[dict]:
    """Mean cosines of keys by layer: one subject in two contexts, the same last word, any two subjects."""
    layers = list(range(view.n_layers))
    bare, in_context = (
        compute_keys(view, key_prompts(tok, requests, [[template]], view.input_device), layers)
        for template in ("{}", contexts[-1][0])
    )
    words = [request.subject.split()[-1] for request in requests]
    same = torch.tensor([[a == b for b in words] for a in words]) & ~torch.eye(len(words), dtype=torch.bool)
    different = torch.tensor([[a.subject != b.subject for b in requests] for a in requests])
    rows = []
    for layer in layers:
        first, second = (normalize(keys[layer].cpu(), dim=0) for keys in (bare, in_context))
        cosines = first.T @ first
        row = {"layer": layer, "same_subject": float((first * second).sum(0).mean())}
        row["same_last_word"] = float(cosines[same & different].mean())
        rows.append(row | {"any_two": float(cosines[different].mean())})
    return rows


def probe_null_space(covariance: torch.Tensor, keys: torch.Tensor) -> dict[str, float]:
    """Share of the keys' energy [d_ff, n] in the null space that each of ``THRESHOLDS`` gives."""
    total = keys.square().sum()
    return {
        f"below {threshold:g}": float(null_space(covariance, threshold).project(keys).square().sum() / total)
        for threshold in THRESHOLDS
    }


def _probe_null_spaces(
    view: ModelView, tok, requests: list[EditRequest], contexts: list[list[str]], hparams
) -> list[dict]:
    layers = list(range(view.n_layers))
    statistics = Statistics(view, tok, hparams.override({"layers": layers}))
    keys = compute_keys(view, key_prompts(tok, requests, contexts, view.input_device), layers)
    return [
        {"layer": layer, **probe_null_space(statistics.covariance(layer), keys[layer])} for layer in layers
    ]


def _table(rows: list[dict]) -> str:
    cells = [list(rows[0])] if rows else []
    cells += [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    return "".join("".join(cell.rjust(16) for cell in line) + "\n" for line in cells)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    text = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m easyedit_neuron.tinyworld.probe", **text)
    parser.add_argument("--model", default="tiny-llama", help="shipped name or folder")
    parser.add_argument("--hparams", default="AlphaEdit/tiny-llama", help="settings of the search for z*")
    parser.add_argument("--data", default="tiny-world")
    parser.add_argument("--targets", type=int, default=10, help="requests for the z* table")
    parser.add_argument("--keys", type=int, default=300, help="requests for the table of keys")
    text_help = "text of the covariance, as mom2_dataset takes it: adds the table of null spaces"
    parser.add_argument("--text", help=text_help)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or 2 with one line on stderr where the input is wrong."""
    args = _parse(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        hparams = AlphaEditHyperParams.from_hparams(args.hparams).override({"model_name": args.model})
        requests = prepare(data.load(args.data, size=max(args.targets, args.keys)))
        z_requests, key_requests = requests[: args.targets], requests[: args.keys]
        model, tok, _ = load_model(hparams)
        view = ModelView.of(model.eval())
        contexts = contexts_of(model, tok, hparams)
        flat = [context for group in contexts for context in group]
        layers = range(view.n_layers)
        targets = [compute_z(view, tok, z_requests, hparams, flat, layer).targets for layer in layers]
        best, missed = unreached(tok, z_requests, targets)
        keys = probe_keys(view, tok, key_requests, contexts)
        spaces = []
        if args.text:
            hparams = hparams.override({"mom2_dataset": args.text})
            spaces = _probe_null_spaces(view, tok, key_requests, contexts, hparams)
    except NeuronEditError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    sys.stdout.write(f"z*, {args.targets} requests\n{_table(probe_targets(targets))}\n")
    sys.stdout.write(f"not reached at layer {best}: {len(missed)}\n{_table(missed)}\n")
    sys.stdout.write(f"keys, mean cosine, {args.keys} requests\n{_table(keys)}")
    if spaces:
        sys.stdout.write(f"\nkeys, share of their energy in the null space by threshold\n{_table(spaces)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
