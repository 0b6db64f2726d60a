"""How far the search for z* is from what it cannot do without.

    python -m benchmarks.floor

The floor of one search: 25 times forward and backward of the blocks above the edited layers, for exactly the
    tokens that the changed
vector reaches and that the loss needs (packed into one row, no padding), and of the final norm and the
unembedding for exactly the positions in the loss. Ours: ``find_targets`` with everything around that
(tokenising, one clean pass, padding, attention to the frozen tokens, Adam, the loss). The same 80M random
Llama, requests and settings as in ``benchmarks.easyedit``.
"""

import sys
import tempfile

import torch

from benchmarks import timing
from benchmarks.editing import LAYERS, contexts, requests, settings
from benchmarks.models import random_llama
from easyedit_neuron.arch.frozen import frozen_parameters
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from easyedit_neuron.locate_then_edit.z_prompts import target_prompts
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams


def floor(view: ModelView, prompts, steps: int) -> None:
    """The bare arithmetic of one search."""
    llama = view.model.model
    tokens = int((prompts.batch.lengths - prompts.start)[prompts.context_rows.flatten()].sum()) + len(
        prompts.kl_row
    )
    count, contexts_each = len(prompts.answer_id), prompts.prompt_end.numel()
    hidden = torch.randn(1, tokens, view.d_model)
    places = llama.rotary_emb(hidden, torch.arange(tokens)[None])
    targets = torch.cat([prompts.answer_id, prompts.answer_id[: len(prompts.kl_row)]])
    for _ in range(steps):
        leaf = hidden.clone().requires_grad_()
        out = leaf
        for layer in llama.layers[LAYERS[-1] + 1 :]:
            out = layer(out, position_embeddings=places, attention_mask=None)
            out = out[0] if isinstance(out, tuple) else out
        logits = view.logits(out[0, : count + len(prompts.kl_row)])
        (torch.nn.functional.cross_entropy(logits, targets) / contexts_each).backward()


def main() -> int:
    """Entry point."""
    parser = timing.parser(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tok = random_llama("80m")
    view, templates, results = ModelView.of(model), contexts(), []
    with tempfile.TemporaryDirectory() as folder:
        hparams = AlphaEditHyperParams(**settings(folder, templates))
    flat = ["{}", *templates]
    for batch in (1, 8):
        edits = prepare(requests()(batch))
        prompts = target_prompts(tok, edits, flat, hparams.kl_prompt, "cpu")
        with frozen_parameters(model):
            result = timing.alternate(
                lambda: compute_z(view, tok, edits, hparams, flat, LAYERS[-1]).targets,
                lambda: floor(view, prompts, hparams.v_num_grad_steps),
                args.repeats,
            )
        per_edit = timing.Result([s / batch for s in result.peer], [s / batch for s in result.ours])
        results.append(timing.report(f"search (peer) over its floor (ours), batch {batch}", per_edit))
    timing.write_json(args.json, results, layers=LAYERS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
