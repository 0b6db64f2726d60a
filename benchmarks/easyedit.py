"""Seconds per edit: EasyEdit's AlphaEdit and ours, same model, requests, contexts and null space, in turns.

    EASYEDIT_HOME=... python -m benchmarks.easyedit

A random Llama (hidden 512, d_ff 2048, 12 layers, vocabulary 32,000), layers 4 to 8 edited, 25 steps for z*
without an early stop, five contexts, one CPU thread, each edit on top of the ones before. The peer's printing
goes nowhere.
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
from benchmarks.editing import LAYERS, THRESHOLD, contexts, requests, settings, stages
from benchmarks.models import random_llama
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.host import import_easyeditor
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.alphaedit.alphaedit_main import apply_alphaedit_to_model
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model
from easyedit_neuron.statistics.cache import Statistics


class Peer:
    """EasyEdit's AlphaEdit on its own copy of the model; its projector is the one that we measure."""

    def __init__(self, model, tok, hparams: AlphaEditHyperParams, contexts: list[str]):
        import_easyeditor()
        self.module = importlib.import_module("easyeditor.models.alphaedit.AlphaEdit_main")
        self.model, self.tok = copy.deepcopy(model), tok
        self.tok.padding_side = "right"
        self.tok.pad_token = self.tok.pad_token or self.tok.eos_token
        view = ModelView.of(model)
        statistics_ = Statistics(view, tok, hparams)
        identity = torch.eye(view.d_ff)
        self.module.P = torch.stack([statistics_.null_space(l, THRESHOLD).project(identity) for l in LAYERS])
        self.module.P_loaded, self.module.cache_c_new = True, False
        self.module.CONTEXT_TEMPLATES_CACHE = [["{}"], list(contexts)]
        names = dict(
            rewrite_module_tmp="model.layers.{}.mlp.down_proj",
            layer_module_tmp="model.layers.{}",
            mlp_module_tmp="model.layers.{}.mlp",
            attn_module_tmp="model.layers.{}.self_attn",
            ln_f_module="model.norm",
            lm_head_module="lm_head",
            v_loss_layer=view.n_layers - 1,
            P_loc=__file__,
        )
        self.hparams = SimpleNamespace(**{**hparams.to_dict(), **names})

    def edit(self, requests: list[dict]) -> None:
        """One call."""
        # its stop below a loss of 0.05 is written into the code: on random weights no loss comes near it
        with contextlib.redirect_stdout(io.StringIO()):
            self.module.apply_AlphaEdit_to_model(self.model, self.tok, copy.deepcopy(requests), self.hparams)


def main() -> int:
    """Entry point; 2 where EasyEdit is not to be found."""
    parser = timing.parser(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--only", nargs="*", metavar="NAME", help="methods, of: AlphaEdit, lps, mpc (default: all)"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tok = random_llama("80m")
    templates, take = contexts(), requests()
    with tempfile.TemporaryDirectory() as folder:
        shared = AlphaEditHyperParams(**settings(folder, templates))
        try:
            peer = Peer(model, tok, shared, templates)
        except NeuronEditError as problem:
            sys.stderr.write(f"error: {problem}\n")
            return 2
        methods = {
            "AlphaEdit": (apply_alphaedit_to_model, shared),
            "NMKE, lps": (
                apply_nmke_to_model,
                NMKEHyperParams(**settings(folder, templates, alg_name="NMKE")),
            ),
            "NMKE, mpc": (
                apply_nmke_to_model,
                NMKEHyperParams(**settings(folder, templates, alg_name="NMKE", attribution="mpc")),
            ),
        }
        if args.only:
            methods = {name: pair for name, pair in methods.items() if name.split(", ")[-1] in args.only}
        results = []

        def compare(name, apply, hparams, batch):
            edited, records = copy.deepcopy(model), []
            result = timing.alternate(
                lambda: peer.edit(take(1)),
                lambda: apply(edited, tok, take(batch), hparams, records=records),
                args.repeats,
            )
            result = timing.Result(result.peer, [seconds / batch for seconds in result.ours])
            measured = timing.report(f"{name}, batch {batch}, per edit", result)
            measured["stages"] = stages(records[1:], batch)
            told = ", ".join(f"{stage} {value * 1e3:.0f} ms" for stage, value in measured["stages"].items())
            print(f"    stages: {told}", flush=True)
            results.append(measured)
            return statistics.median(result.ours)

        plain = {}
        for batch in (1, args.batch):
            for name, (apply, hparams) in methods.items():
                took = compare(name, apply, hparams, batch)
                if name == "AlphaEdit":
                    plain[batch] = took
                elif batch in plain:
                    results[-1]["over_unmasked"] = took / plain[batch] - 1
                    print(f"    over our AlphaEdit: {100 * results[-1]['over_unmasked']:+.1f}%", flush=True)
        edited = copy.deepcopy(model)
        batched = timing.alternate(
            lambda: peer.edit(take(args.batch)),
            lambda: apply_alphaedit_to_model(edited, tok, take(args.batch), shared),
            1,
            warm_up=0,
        )
        results.append(timing.report(f"AlphaEdit, both batch {args.batch}, whole call", batched))
        timing.write_json(args.json, results, batch=args.batch, layers=LAYERS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
