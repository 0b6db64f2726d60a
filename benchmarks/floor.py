"""The search for z* in turns with the bare arithmetic that it cannot do without.

    python -m benchmarks.floor

The floor of one search: for every step forward and backward of the blocks above the edited layers, for
exactly the tokens that the changed vector reaches and that the loss needs (one row, no padding), and of the
final norm and the unembedding for the positions in the loss. Ours: ``compute_z`` with everything around that
(tokenising, one clean pass, padding, attention to the frozen tokens, Adam, the loss). Model, requests and
settings are those of ``benchmarks.easyedit``; every search takes all its steps.
"""

import sys

import torch

from benchmarks import timing
from benchmarks.editing import Subject, subject
from easyedit_neuron.arch.view import ModelView, frozen_parameters
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from easyedit_neuron.locate_then_edit.z_prompts import z_prompts
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams


def floor(view: ModelView, prompts, steps: int, last_layer: int) -> None:
    """The bare arithmetic of one search."""
    llama = view.model.model
    lengths = (prompts.targets.batch.lengths - prompts.start)[prompts.context_rows.flatten()]
    tokens = int(lengths.sum()) + len(prompts.kl_row)
    loss_positions = len(prompts.targets.token_ids) + len(prompts.kl_row)
    hidden = torch.randn(1, tokens, view.d_model)
    positions = llama.rotary_emb(hidden, torch.arange(tokens)[None])
    targets = torch.cat([prompts.targets.token_ids, prompts.targets.token_ids[: len(prompts.kl_row)]])
    for _ in range(steps):
        states = leaf = hidden.clone().requires_grad_()
        for layer in llama.layers[last_layer + 1 :]:
            states = layer(states, position_embeddings=positions, attention_mask=None)
            states = states[0] if isinstance(states, tuple) else states
        logits = view.logits(states[0, :loss_positions])
        loss = torch.nn.functional.cross_entropy(logits, targets) / prompts.context_rows.numel()
        torch.autograd.grad(loss, leaf)


def measure(edited: Subject, hparams, batch: int, repeats: int) -> dict:
    """One row for the JSON file."""
    view, tok, last_layer = ModelView.of(edited.model), edited.tok, hparams.layers[-1]
    edits, flat = prepare(edited.take(batch)), ["{}", *hparams.context_templates]
    prompts = z_prompts(tok, edits, flat, hparams.kl_prompt, "cpu")
    with frozen_parameters(view.model):
        result = timing.alternate(
            lambda: compute_z(view, tok, edits, hparams, flat, last_layer),
            lambda: floor(view, prompts, hparams.v_num_grad_steps, last_layer),
            repeats,
        )
    name = f"search (peer) over its floor (ours), batch {batch}"
    return timing.report(name, result.per_request(batch, peer_batch=batch))


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = timing.parser(__doc__, repeats=5, batch=8, threads=1)
    parser.add_argument("--model", default="80m", help="a random shape, or a model with settings (80m)")
    args = timing.parse(parser, argv)
    edited = subject(args.model, "not used")
    hparams = AlphaEditHyperParams(**edited.fields | {"v_stop_loss": 0.0})
    results = [measure(edited, hparams, batch, args.repeats) for batch in (1, args.batch)]
    timing.save(args, results, layers=hparams.layers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
