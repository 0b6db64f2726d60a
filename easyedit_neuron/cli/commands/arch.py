"""What is recognised of a model: its parts and sizes; for a type without an entry, the names to begin with as
YAML. The weights are not loaded."""

import argparse
from pathlib import Path

import torch

from ... import resources
from ...arch.describe import MODULE_FIELDS, entry_of, has_experts
from ...arch.guess import guessed_names
from ...arch.projections import projection_names
from ...arch.view import ModelView
from ...errors import HostError
from ..output import show
from .common import aligned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder, hub name or name of a shipped model")


def run(args: argparse.Namespace) -> None:
    model = _empty_model(args.model)
    model_type = model.config.model_type
    if entry_of(model) is None and not has_experts(model):
        show(_stub(model, model_type))
        return
    view = ModelView.of(model)
    names = [(field, getattr(view.arch, field)) for field in MODULE_FIELDS if getattr(view.arch, field)]
    sizes = f"{view.n_layers} layers, d_model {view.d_model}, d_ff {view.d_ff}, {view.vocab_size:,} tokens"
    block = "attention and FFN in parallel" if view.arch.parallel_residual else "attention, then FFN"
    show(
        f"{args.model}: {model_type}, {sizes}\n{block}; projections: {', '.join(projection_names(view))}\n\n"
    )
    show(aligned(names) + "\n")


def _empty_model(name: str):
    """The model with weights that take no memory."""
    import transformers

    resources.require_model(name)
    path = resources.model_path(name)
    try:
        config = transformers.AutoConfig.from_pretrained(path)
        with torch.device("meta"):
            try:
                return transformers.AutoModelForCausalLM.from_config(config)
            except AttributeError:  # a config for pictures too (Qwen 3.5), of which the text part is loaded
                return transformers.AutoModelForCausalLM.from_config(config.get_text_config())
    except Exception as problem:  # whatever transformers raises about files of others
        raise HostError(f"{Path(path)}: its config cannot be read: {problem}") from None


def _stub(model, model_type: str) -> str:
    """Lines for a hyperparameter file."""
    lines = [
        f"# {model_type} has no entry in the table. Guesses from the modules' names and sizes: check them,",
        "# and put them into the hyperparameter file. An edit first compares them with the model.",
    ]
    for field, name in guessed_names(model).items():
        lines.append(f"{field}: {name}" if name else f"# {field}: ...  # nothing fits")
    lines += [
        "# norm: rms  # kind of the final norm; unset: told from what the norm computes",
        "# parallel_residual: true  # where attention and FFN read the same input",
        "# post_ffn_norm_tmp: ...  # a norm behind the FFN, in front of the residual stream",
    ]
    return "\n".join(lines) + "\n"
