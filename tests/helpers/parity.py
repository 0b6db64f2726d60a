"""The real EasyEdit's AlphaEdit and MEMIT beside ours: the same tiny model, contexts, covariance and null space."""

import copy
from types import SimpleNamespace

import torch
from helpers.editing import CONTEXTS, METHODS, make_hparams
from helpers.tiny_models import tiny_model

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.paths.keys import key_prompts, keys_of
from easyedit_neuron.paths.target import find_target
from easyedit_neuron.requests import prepare
from easyedit_neuron.stats.cache import Statistics

# EasyEdit goes by substrings of the name
NAMES = {"llama": "tiny-llama", "gpt2": "gpt2-xl", "qwen2": "qwen2"}
TEMPLATES = {
    "llama": dict(rewrite_module_tmp="model.layers.{}.mlp.down_proj", layer_module_tmp="model.layers.{}", mlp_module_tmp="model.layers.{}.mlp",
                  attn_module_tmp="model.layers.{}.self_attn", ln_f_module="model.norm", lm_head_module="lm_head"),
    "gpt2": dict(rewrite_module_tmp="transformer.h.{}.mlp.c_proj", layer_module_tmp="transformer.h.{}", mlp_module_tmp="transformer.h.{}.mlp",
                 attn_module_tmp="transformer.h.{}.attn", ln_f_module="transformer.ln_f", lm_head_module="transformer.wte")}
# EasyEdit's MEMIT finds no parameter lm_head.weight where it is tied to the embeddings
TEMPLATES["qwen2"] = {**TEMPLATES["llama"], "lm_head_module": "model.embed_tokens"}
MODULES = {"AlphaEdit": ("easyeditor.models.alphaedit.AlphaEdit_main", "apply_AlphaEdit_to_model"),
           "MEMIT": ("easyeditor.models.memit.memit_main", "apply_memit_to_model")}

REQUESTS = [{"prompt": p, "subject": s, "target_new": t} for p, s, t in (
    ("Anna Berg was born in", "Anna Berg", "Oslo"), ("The mother tongue of Peter Olsen is", "Peter Olsen", "tennis and London"),
    ("The capital of Norway", "Norway", "is Rome"), ("Marie Lund plays", "Marie Lund", "French"), ("The place where Anna lives is", "Anna", "Rome"))]


class Pair:
    """One method in both implementations, each with its own copy of one tiny model."""

    def __init__(self, method, model_type, folder, monkeypatch, **changes):
        import importlib

        self.method, self.model_type = method, model_type
        self.hparams = make_hparams(method, folder, nullspace_threshold=2.0, v_num_grad_steps=6, L2=0.0 if method == "MEMIT" else 0.5, **changes)
        self.ours, self.tok = tiny_model(model_type)
        self.theirs = copy.deepcopy(self.ours)
        self.tok.padding_side = "right"
        self.view = ModelView.of(self.ours)
        layers = self.hparams.layers
        statistics = Statistics(self.view, self.tok, self.hparams)
        module, apply = MODULES[method]
        self.module = importlib.import_module(module)
        self._apply = getattr(self.module, apply)
        monkeypatch.setattr(self.module, "CONTEXT_TEMPLATES_CACHE", [["{}"], list(CONTEXTS)])
        if method == "AlphaEdit":
            projectors = [statistics.null_space(l, self.hparams.nullspace_threshold).project(torch.eye(48)) for l in layers]
            for name, value in (("P", torch.stack(projectors)), ("P_loaded", True), ("cache_c_new", False), ("cache_c", None)):
                monkeypatch.setattr(self.module, name, value, raising=False)
        else:
            covariances = {self.hparams_of_easyedit().rewrite_module_tmp.format(l): statistics.covariance(l) for l in layers}
            monkeypatch.setattr(self.module, "get_cov", lambda model, tok, name, *a, **k: covariances[name])

    def hparams_of_easyedit(self):
        fields = {**self.hparams.to_dict(), **TEMPLATES[self.model_type], "model_name": NAMES[self.model_type], "v_loss_layer": 3}
        # any existing file: the projector is in the module already
        return SimpleNamespace(**{**fields, "P_loc": self.hparams.mom2_dataset, "device": "cpu"})

    def weights(self):
        return [[m.get_parameter(self.view.down_weight_name(l)).detach().clone() for l in self.hparams.layers] for m in (self.theirs, self.ours)]

    def edit(self, requests):
        """One call of both; returns the largest relative difference of the deltas of this call."""
        before = self.weights()
        self._apply(self.theirs, self.tok, copy.deepcopy(requests), self.hparams_of_easyedit())
        METHODS[self.method][1](self.ours, self.tok, requests, self.hparams)
        after = self.weights()
        differences = []
        for theirs0, ours0, theirs1, ours1 in zip(*before, *after):
            theirs, ours = theirs1 - theirs0, ours1 - ours0
            differences.append(float((theirs - ours).norm() / theirs.norm()))
        return max(differences)

    def total_difference(self, original):
        """Relative difference of the sums of all deltas since ``original``."""
        theirs, ours = self.weights()
        return max(float(((t - o) - (u - o)).norm() / (t - o).norm()) for t, u, o in zip(theirs, ours, original))

    def targets(self, request):
        """z* of both, for one request."""
        hparams, layer = self.hparams_of_easyedit(), self.hparams.layers[-1]
        theirs = {"prompt": request["prompt"].replace(request["subject"], "{}"), "subject": request["subject"], "target_new": " " + request["target_new"]}
        z = self.module.compute_z(self.theirs, self.tok, theirs, hparams, layer, [["{}"], list(CONTEXTS)])
        ours = find_target(self.view, self.tok, prepare([request])[0], self.hparams, ["{}", *CONTEXTS], layer)
        return z.detach(), ours.value, ours.initial

    def keys(self, requests):
        """layer -> keys of both, [d_ff, n]."""
        theirs = [{"prompt": r["prompt"].replace(r["subject"], "{}"), "subject": r["subject"]} for r in requests]
        prompts = key_prompts(self.tok, prepare(requests), [["{}"], list(CONTEXTS)], "cpu")
        ours = keys_of(self.view, prompts, self.hparams.layers)
        return {l: (self.module.compute_ks(self.theirs, self.tok, theirs, self.hparams_of_easyedit(), l, [["{}"], list(CONTEXTS)]).T, ours[l])
                for l in self.hparams.layers}
