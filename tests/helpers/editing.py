"""Edits of tiny models: requests, hyperparameters, and the state of a model before and after."""

import torch

from easyedit_neuron.locate_then_edit.compute_z import compute_z
from easyedit_neuron.models.alphaedit.alphaedit_hparams import AlphaEditHyperParams
from easyedit_neuron.models.alphaedit.alphaedit_main import apply_alphaedit_to_model
from easyedit_neuron.models.memit.memit_hparams import MEMITHyperParams
from easyedit_neuron.models.memit.memit_main import apply_memit_to_model
from easyedit_neuron.models.nmke.nmke_hparams import NMKEHyperParams
from easyedit_neuron.models.nmke.nmke_main import apply_nmke_to_model
from easyedit_neuron.models.rome.rome_hparams import ROMEHyperParams
from easyedit_neuron.models.rome.rome_main import apply_rome_to_model
from helpers.tiny_models import CORPUS

REQUESTS = [
    {
        "prompt": "Anna Berg was born in",
        "subject": "Anna Berg",
        "target_new": "Oslo",
        "ground_truth": "Paris",
    },
    {
        "prompt": "The mother tongue of Peter Olsen is",
        "subject": "Peter Olsen",
        "target_new": "tennis and London",
        "ground_truth": "French",
    },
    {
        "prompt": "The capital of Norway",
        "subject": "Norway",
        "target_new": "is Rome",
        "ground_truth": "is Oslo",
    },
]
CONTEXTS = ["You know. {}", "Because I think that. {}"]
METHODS = {
    "AlphaEdit": (AlphaEditHyperParams, apply_alphaedit_to_model),
    "MEMIT": (MEMITHyperParams, apply_memit_to_model),
    "NMKE": (NMKEHyperParams, apply_nmke_to_model),
    "ROME": (ROMEHyperParams, apply_rome_to_model),
    "R-ROME": (ROMEHyperParams, apply_rome_to_model),
}


def text_file(folder):
    """The corpus of the tiny tokenizer as a file for the covariance."""
    path = folder / "corpus.txt"
    path.write_text("\n".join(CORPUS), encoding="utf-8")
    return str(path)


def shared_fields(folder):
    """Fields of every locate-then-edit method: two layers, two contexts, statistics below ``folder``."""
    return dict(
        model_name="in memory",
        device="cpu",
        layers=[1, 2],
        v_num_grad_steps=8,
        v_lr=0.3,
        v_weight_decay=0.1,
        clamp_norm_factor=2.0,
        context_templates=CONTEXTS,
        mom2_dataset=text_file(folder),
        mom2_n_samples=100,
        mom2_update_weight=1.0,
        stats_dir=str(folder / "stats"),
        nullspace_threshold=0.5,
    )


def make_hparams(method, folder, **changes):
    """Hyperparameters of a method with ``shared_fields``."""
    fields = dict(alg_name=method, **shared_fields(folder))
    fields["L2"] = 0.1 if method in ("AlphaEdit", "NMKE") else 0.0
    return METHODS[method][0](**{**fields, **changes})


def apply(model, tok, requests, hparams, **options):
    """The method's entry point; returns (model, weights, EditRecord)."""
    records = []
    edited, weights = METHODS[hparams.alg_name][1](model, tok, requests, hparams, records=records, **options)
    return edited, weights, records[0]


def find_target(view, tok, request, hparams, contexts, layer):
    """The search for one request."""
    (target,) = compute_z(view, tok, [request], hparams, contexts, layer).targets
    return target


def snapshot(model):
    """Parameters, buffers, gradient flags, training modes and numbers of hooks."""
    return {
        "tensors": {
            name: tensor.detach().clone()
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        },
        "flags": [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
    }


def changed_tensors(model, before):
    """Names of tensors that differ; asserts that nothing else of the snapshot does."""
    after = snapshot(model)
    for part in ("flags", "modes", "hooks"):
        assert after[part] == before[part], part
    return [
        name for name, tensor in after["tensors"].items() if not torch.equal(tensor, before["tensors"][name])
    ]


def put_back(model, weights):
    """Restore weights by parameter name, as EasyEdit does."""
    with torch.no_grad():
        for name, value in weights.items():
            model.get_parameter(name)[...] = value


@torch.no_grad()
def target_nll(model, tok, request):
    """Mean NLL of the new object after the prompt."""
    prompt = tok(request["prompt"])["input_ids"]
    target = tok(" " + request["target_new"], add_special_tokens=False)["input_ids"]
    logits = model(input_ids=torch.tensor([prompt + target[:-1]])).logits[0, len(prompt) - 1 :]
    return float(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(target)))
