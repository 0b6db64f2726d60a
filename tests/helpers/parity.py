"""The real EasyEdit's AlphaEdit, MEMIT, ROME and R-ROME beside ours: the same tiny model, contexts,
covariance and null space."""

import copy
import importlib
from types import SimpleNamespace

import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit.compute_keys import compute_keys, key_prompts
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from easyedit_neuron.statistics.cache import Statistics
from helpers.editing import CONTEXTS, METHODS, apply, make_hparams
from helpers.plain_search import plain_keys
from helpers.tiny_models import tiny_model

# EasyEdit goes by substrings of the name
NAMES = {"llama": "tiny-llama", "gpt2": "gpt2-xl", "qwen2": "qwen2"}
TEMPLATES = {
    "llama": dict(
        rewrite_module_tmp="model.layers.{}.mlp.down_proj",
        layer_module_tmp="model.layers.{}",
        mlp_module_tmp="model.layers.{}.mlp",
        attn_module_tmp="model.layers.{}.self_attn",
        ln_f_module="model.norm",
        lm_head_module="lm_head",
    ),
    "gpt2": dict(
        rewrite_module_tmp="transformer.h.{}.mlp.c_proj",
        layer_module_tmp="transformer.h.{}",
        mlp_module_tmp="transformer.h.{}.mlp",
        attn_module_tmp="transformer.h.{}.attn",
        ln_f_module="transformer.ln_f",
        lm_head_module="transformer.wte",
    ),
}
# EasyEdit's MEMIT finds no parameter lm_head.weight where it is tied to the embeddings
TEMPLATES["qwen2"] = {**TEMPLATES["llama"], "lm_head_module": "model.embed_tokens"}
MODULES = {
    "AlphaEdit": ("easyeditor.models.alphaedit.AlphaEdit_main", "apply_AlphaEdit_to_model"),
    "MEMIT": ("easyeditor.models.memit.memit_main", "apply_memit_to_model"),
    "ROME": ("easyeditor.models.rome.rome_main", "apply_rome_to_model"),
    "R-ROME": ("easyeditor.models.r_rome.r_rome_main", "apply_r_rome_to_model"),
}
# Adam's first step is v_lr times the sign of the gradient: where a component is 0 but for rounding the two go
# opposite ways, and a difference makes the next likelier. Small steps keep the models from growing apart.
# With v_lr 0.3 and clamp 2 AlphaEdit on llama differs by 6e-5 after 35 edits; in the 36th one component's
# first step has the other sign, and after 50 it is 3e-2.
SETTINGS = dict(nullspace_threshold=2.0, v_num_grad_steps=6, v_lr=0.05, clamp_norm_factor=0.5)
GROUPS = [["{}"], list(CONTEXTS)]
FLAT = ["{}", *CONTEXTS]

REQUESTS = [
    {"prompt": p, "subject": s, "target_new": t}
    for p, s, t in (
        ("Anna Berg was born in", "Anna Berg", "Oslo"),
        ("The mother tongue of Peter Olsen is", "Peter Olsen", "tennis and London"),
        ("The capital of Norway", "Norway", "is Rome"),
        ("Marie Lund plays", "Marie Lund", "French"),
        ("The place where Anna lives is", "Anna", "Rome"),
    )
]


PLACES = ("Oslo", "Rome", "London", "Paris", "Norway", "French", "tennis")


def many_requests(count):
    """Up to 60 different edits, no two of one subject and prompt."""
    prompts = [
        "{} was born in",
        "The mother tongue of {} is",
        "{} plays",
        "The place where {} lives is",
        "I think that {} works in",
    ]
    subjects = [
        f"{first} {last}"
        for last in ("Berg", "Olsen", "Lund", "Norway")
        for first in ("Anna", "Peter", "Marie")
    ]
    return [
        {"prompt": prompts[n % 5].format(subject), "subject": subject, "target_new": PLACES[n % 7]}
        for n, subject in ((n, subjects[n % 12]) for n in range(count))
    ]


class Pair:
    """One method in both implementations, each with its own copy of one tiny model."""

    def __init__(self, method, model_type, folder, monkeypatch, **changes):
        self.method, self.model_type, self.rome = method, model_type, method.endswith("ROME")
        settings = dict(SETTINGS, L2=0.5 if method == "AlphaEdit" else 0.0)
        self.hparams = make_hparams(method, folder, **{**settings, **changes})
        self.builtin_model, self.tok = tiny_model(model_type)
        self.easyedit_model = copy.deepcopy(self.builtin_model)
        self.tok.padding_side = "right"
        self.view = ModelView.of(self.builtin_model)
        layers = self.hparams.layers
        statistics = Statistics(self.view, self.tok, self.hparams)
        module, apply = MODULES[method]
        self.module = importlib.import_module(module)
        self._apply = getattr(self.module, apply)
        monkeypatch.setattr(self.module, "CONTEXT_TEMPLATES_CACHE", FLAT if self.rome else GROUPS)
        if method == "AlphaEdit":
            projectors = [
                statistics.null_space(layer, self.hparams.nullspace_threshold).project(torch.eye(48))
                for layer in layers
            ]
            for name, value in (
                ("P", torch.stack(projectors)),
                ("P_loaded", True),
                ("cache_c_new", False),
                ("cache_c", None),
            ):
                monkeypatch.setattr(self.module, name, value, raising=False)
        elif self.hparams.mom2_adjustment:
            covariances = {
                self.hparams_of_easyedit().rewrite_module_tmp.format(layer): statistics.covariance(layer)
                for layer in layers
            }
            if self.rome:
                solving = importlib.import_module(module.rpartition(".")[0] + ".compute_u")
                inverses = {
                    name: covariance.double().inverse().float() for name, covariance in covariances.items()
                }
                monkeypatch.setattr(solving, "get_inv_cov", lambda model, tok, name, *a, **k: inverses[name])
            else:
                monkeypatch.setattr(
                    self.module, "get_cov", lambda model, tok, name, *a, **k: covariances[name]
                )

    def hparams_of_easyedit(self):
        fields = {
            **self.hparams.to_dict(),
            **TEMPLATES[self.model_type],
            "model_name": NAMES[self.model_type],
            "v_loss_layer": 3,
        }
        # any existing file: the projector is in the module already
        return SimpleNamespace(**{**fields, "P_loc": self.hparams.mom2_dataset, "device": "cpu"})

    def weights(self):
        names = [self.view.down_weight_name(layer) for layer in self.hparams.layers]
        return [
            [model.get_parameter(name).detach().clone() for name in names]
            for model in (self.easyedit_model, self.builtin_model)
        ]

    def edit(self, requests):
        """One call of both; returns the largest relative difference of the deltas of this call."""
        before = self.weights()
        self.edit_with_easyedit(requests)
        METHODS[self.method][1](self.builtin_model, self.tok, requests, self.hparams)
        after = self.weights()
        differences = []
        for expected0, actual0, expected1, actual1 in zip(*before, *after):
            expected, actual = expected1 - expected0, actual1 - actual0
            differences.append(float((expected - actual).norm() / expected.norm()))
        return max(differences)

    def edit_with_easyedit(self, requests):
        """One call of EasyEdit's alone."""
        self._apply(self.easyedit_model, self.tok, copy.deepcopy(requests), self.hparams_of_easyedit())

    def total_difference(self, original):
        """Relative difference of the sums of all deltas since ``original``."""
        expected, actual = self.weights()
        return max(
            float(((t - o) - (u - o)).norm() / (t - o).norm()) for t, u, o in zip(expected, actual, original)
        )

    def targets(self, request):
        """z* (v*) of both, for one request, and ours before the search."""
        hparams, layer = self.hparams_of_easyedit(), self.hparams.layers[-1]
        easyedit_request = _easyedit_request(request)
        site = "ffn_out" if self.rome else "layer_out"
        (target,) = compute_z(
            self.view, self.tok, prepare([request]), self.hparams, FLAT, layer, site=site
        ).targets
        if not self.rome:
            return (
                self.module.compute_z(
                    self.easyedit_model, self.tok, easyedit_request, hparams, layer, GROUPS
                ).detach(),
                target.value,
                target.initial,
            )
        u = self.module.compute_u(self.easyedit_model, self.tok, easyedit_request, hparams, layer, FLAT)
        right = self.module.compute_v(
            self.easyedit_model, self.tok, easyedit_request, hparams, layer, u, FLAT
        ).detach()
        keys = plain_keys(self.builtin_model, self.view, self.tok, request, layer, FLAT)
        key = keys.mean(0) if self.hparams.averaged_keys else keys[0]
        # EasyEdit's is (v* - W k - b) / (u k), and v* of no delta is W k_bare + b
        return (
            target.initial + right * (u @ key) - self.view.down_matrix(layer) @ (keys[0] - key),
            target.value,
            target.initial,
        )

    def keys(self, requests):
        """Keys of both, [d_ff, n], a pair for each layer; of ROME their directions, and the first layer
        alone."""
        hparams = self.hparams_of_easyedit()
        easyedit_requests = [_easyedit_request(request) for request in requests]
        if self.rome:
            layer, hparams.mom2_adjustment = self.hparams.layers[0], False
            plain = self.hparams.override({"mom2_adjustment": False, "v_num_grad_steps": 1})
            records = [
                apply(self.builtin_model, self.tok, [request], plain, copy=True)[2] for request in requests
            ]
            keys_by_layer = torch.cat([record.layers[layer].key_factor for record in records], 1)
            directions = [
                self.module.compute_u(self.easyedit_model, self.tok, request, hparams, layer, FLAT)
                for request in easyedit_requests
            ]
            return [(torch.stack(directions, 1), keys_by_layer / keys_by_layer.norm(dim=0))]
        keys_by_layer = compute_keys(
            self.view, key_prompts(self.tok, prepare(requests), GROUPS, "cpu"), self.hparams.layers
        )
        expected = [
            self.module.compute_ks(self.easyedit_model, self.tok, easyedit_requests, hparams, layer, GROUPS).T
            for layer in self.hparams.layers
        ]
        return list(zip(expected, keys_by_layer.values()))


def _easyedit_request(request):
    """A request as EasyEdit's ``execute_*`` functions hand it on."""
    subject = request["subject"]
    return {
        "prompt": request["prompt"].replace(subject, "{}"),
        "subject": subject,
        "target_new": " " + request["target_new"],
    }
