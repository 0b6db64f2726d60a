"""Seconds per edit: EasyEdit's AlphaEdit and ours, same model, requests, contexts and null space, in turns.

    EASYEDIT_HOME=... python -m benchmarks.easyedit

A random Llama (hidden 512, d_ff 2048, 12 layers, vocabulary 32,000), layers 4 to 8 edited, 25 steps for z*
without an early stop, five contexts; or a real model with its own settings (``--model
smollm2-135m-instruct``), contexts that it writes, and real facts. One CPU thread, each edit on top of the
ones before. What the peer prints is dropped.
"""

import contextlib
import copy
import importlib
import io
import statistics
import sys
import tempfile
from types import SimpleNamespace

import torch

from benchmarks import timing
from benchmarks.editing import compare_edits, subject
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.host import import_easyeditor
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.alphaedit.alphaedit_main import apply_alphaedit_to_model
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model
from easyedit_neuron.statistics.cache import Statistics


class EditCopy:
    """Edits by one of our methods on a copy of the model, each on top of the ones before."""

    def __init__(self, apply, model, tok, hparams):
        self._apply, self._model, self._tok, self._hparams = apply, copy.deepcopy(model), tok, hparams

    def __call__(self, batch: list[dict]) -> EditRecord:
        records: list[EditRecord] = []
        self._apply(self._model, self._tok, batch, self._hparams, records=records)
        return records[0]


class Peer:
    """EasyEdit's AlphaEdit on its own copy of the model (``copied``); its projector is the one that we
    measure, or that of ``given`` statistics."""

    def __init__(
        self,
        model,
        tok,
        hparams: AlphaEditHyperParams,
        contexts: list[str],
        given: Statistics | None = None,
        copied: bool = True,
    ):
        import_easyeditor()
        self.module = importlib.import_module("easyeditor.models.alphaedit.AlphaEdit_main")
        self.model, self.tok = copy.deepcopy(model) if copied else model, tok
        self.tok.padding_side = "right"
        self.tok.pad_token = self.tok.pad_token or self.tok.eos_token
        view = ModelView.of(model)
        measured = Statistics(view, tok, hparams) if given is None else given
        device, layers, threshold = torch.device(hparams.device), hparams.layers, hparams.nullspace_threshold
        identity = torch.eye(view.d_ff, device=view.device_of(layers[0]))
        projections = [measured.null_space(layer, threshold).project(identity).cpu() for layer in layers]
        self.module.P = torch.stack(projections)
        self.module.P_loaded, self.module.cache_c_new = True, False
        self.module.CONTEXT_TEMPLATES_CACHE = [["{}"], list(contexts)]
        names = dict(
            rewrite_module_tmp="model.layers.{}.mlp.down_proj",
            layer_module_tmp="model.layers.{}",
            mlp_module_tmp="model.layers.{}.mlp",
            attn_module_tmp="model.layers.{}.self_attn",
            ln_f_module="model.norm",
            # tied embeddings: the head's weight is no parameter of its own
            lm_head_module="model.embed_tokens" if model.config.tie_word_embeddings else "lm_head",
            v_loss_layer=view.n_layers - 1,
            P_loc=__file__,
            # a number means CUDA in all of its versions, a name of a device in the newest alone
            device=(device.index or 0) if device.type == "cuda" else device.type,
        )
        self.hparams = SimpleNamespace(**{**hparams.to_dict(), **names})

    def edit(self, requests: list[dict]) -> None:
        """One call."""
        # Its stop below a loss of 0.05 cannot be turned off; on random weights no loss comes near it.
        with contextlib.redirect_stdout(io.StringIO()):
            self.module.apply_AlphaEdit_to_model(self.model, self.tok, copy.deepcopy(requests), self.hparams)


def main(argv: list[str] | None = None) -> int:
    """Entry point; 2 where EasyEdit is not found."""
    parser = timing.parser(__doc__, repeats=3, batch=8, threads=1)
    only_help = "methods, of: AlphaEdit, lps, mpc (default: all)"
    parser.add_argument("--only", nargs="*", metavar="NAME", help=only_help)
    parser.add_argument("--model", default="80m", help="a random shape, or a model with settings (80m)")
    args = timing.parse(parser, argv)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        edited = subject(args.model, folder)
        model, tok, templates, take = edited.model, edited.tok, edited.templates, edited.take
        shared = AlphaEditHyperParams(**edited.fields)
        lps, mpc = (
            NMKEHyperParams(**edited.fields | {"alg_name": "NMKE", "attribution": scores})
            for scores in ("lps", "mpc")
        )
        try:
            peer = Peer(model, tok, shared, templates)
        except NeuronEditError as problem:
            sys.stderr.write(f"error: {problem}\n")
            return 2
        methods = {
            "AlphaEdit": (apply_alphaedit_to_model, shared),
            "NMKE, lps": (apply_nmke_to_model, lps),
            "NMKE, mpc": (apply_nmke_to_model, mpc),
        }
        if args.only:
            methods = {name: pair for name, pair in methods.items() if name.split(", ")[-1] in args.only}
        for batch in (1, args.batch):
            unmasked = None
            for name, (apply, hparams) in methods.items():
                edit = EditCopy(apply, model, tok, hparams)
                row, _ = compare_edits(
                    f"{name}, batch {batch}, per edit",
                    lambda: peer.edit(take(1)),
                    lambda edit=edit, batch=batch: edit(take(batch)),
                    args.repeats,
                    batch,
                )
                spent = statistics.median(row["ours_seconds"])
                if name == "AlphaEdit":
                    unmasked = spent
                elif unmasked:
                    row["over_unmasked"] = spent / unmasked - 1
                    print(f"    over our AlphaEdit: {100 * row['over_unmasked']:+.1f}%", flush=True)
                results.append(row)
        edit = EditCopy(apply_alphaedit_to_model, model, tok, shared)
        batched = timing.alternate(
            lambda: peer.edit(take(args.batch)), lambda: edit(take(args.batch)), 1, warm_up=0
        )
        results.append(timing.report(f"AlphaEdit, both batch {args.batch}, whole call", batched))
        timing.save(args, results, layers=shared.layers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
