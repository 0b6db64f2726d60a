"""Whether a model described by hand is what the description says: its parts must add up to its output."""

import torch

from ..errors import ArchitectureError
from .capture import Capture
from .table import ARCHITECTURES
from .view import ModelView, eval_mode

TOKENS = 6
TOLERANCE = 1e-3
"""Relative; half precision gets a hundred times as much."""


@torch.no_grad()
def verify_parts(view: ModelView) -> None:
    """Compare, on a few tokens, what the view's parts give with what the model gives.

    In every layer ``key W_down^T + bias`` must be the FFN's output, and the residual stream in the middle
    plus that output (through a norm behind the FFN) the layer's; the view's logits must be the model's, and
    the final norm of the kind that the description says.

    Raises:
        ArchitectureError: they are not. Some models multiply by factors of their own (Granite's residual
            multiplier, Cohere's logit scale), and an edit would be computed for another model.
    """
    device = view.model.get_input_embeddings().weight.device
    ids = torch.arange(1, TOKENS + 1, device=device)[None] % view.vocab_size
    want = {"key", "resid_mid", "ffn_out", "layer_out", "final_hidden"}
    norm_calls: list[object] = []
    handle = view.final_norm.register_forward_hook(lambda *_: norm_calls.append(None))
    try:
        with eval_mode(view.model), Capture(view, range(view.n_layers), want=want) as seen:
            logits = view.model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    if len(norm_calls) != 1:  # nanochat's stands in front of the blocks too
        raise ArchitectureError(
            f"ln_f_module: the model calls {view.arch.ln_f_module} {len(norm_calls)} times in a pass. Only a "
            "model with a norm of its own in front of the unembedding can be edited"
        )
    assert seen.final_hidden is not None
    _compare(view.logits(seen.final_hidden), logits, "ln_f_module, lm_head_module or norm", "logits")
    _compare_norm(view, seen.final_hidden)
    for layer in range(view.n_layers):
        key, ffn_out = seen.key[layer], seen.ffn_out[layer]
        bias = view.down_bias(layer)
        product = key @ view.down_matrix(layer).T
        _compare(
            product if bias is None else product + bias, ffn_out, "rewrite_module_tmp", "the FFN's output"
        )
        branch = view.ffn_branch(layer)
        added = ffn_out if branch is None else branch(ffn_out)
        whole = seen.resid_mid[layer].to(added.device) + added
        fields = "pre_ffn_norm_tmp, post_ffn_norm_tmp, attn_branch_tmp or parallel_residual"
        _compare(whole, seen.layer_out[layer], fields, f"the output of layer {layer}")


def is_described_by_hand(view: ModelView) -> bool:
    """Whether the view's module names are not the table's."""
    return view.arch.model_type not in ARCHITECTURES


def _compare_norm(view: ModelView, hidden: torch.Tensor) -> None:
    """The final norm's formula, with which scores of neurons are computed, and the norm itself."""
    try:
        norm = view.final_norm_parameters()
    except ArchitectureError:
        return  # of an unknown kind: what needs the formula says so
    _compare(norm.apply(hidden.float()), view.final_norm(hidden), "norm", "the final norm's output")


def _compare(ours: torch.Tensor, theirs: torch.Tensor, fields: str, what: str) -> None:
    tolerance = TOLERANCE if theirs.dtype in (torch.float32, torch.float64) else 100 * TOLERANCE
    ours, theirs = ours.to(theirs.device, torch.float32), theirs.float()
    error = float((ours - theirs).norm() / theirs.norm().clamp_min(1e-12))
    if not error <= tolerance:
        raise ArchitectureError(
            f"the modules named by hand do not give {what} of this model (relative difference {error:.2g}). "
            f"A name is wrong ({fields}), or the model scales its parts in a way that is not known here; it "
            "cannot be edited then"
        )
