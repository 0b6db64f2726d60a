"""Guesses of the module names of a model without an entry, as a beginning for a description by hand."""

from torch import nn

from .table import REQUIRED_FIELDS

PRE_FFN_NORMS = ("pre_feedforward", "post_attention", "ffn_norm", "pre_mlp", "ln_2", "ln2", "norm2", "norm_2")
"""Parts of names of norms in front of an FFN, the surest first."""


def guessed_names(model: nn.Module) -> dict[str, str | None]:
    """Field of an ``Architecture`` -> module name, or None where nothing fits."""
    names: dict[str, str | None] = dict.fromkeys((*REQUIRED_FIELDS, "pre_ffn_norm_tmp"))
    blocks = _blocks(model)
    if blocks is None:
        return names
    block_name, block = f"{blocks[0]}.{{}}", blocks[1][0]
    names["layer_module_tmp"] = block_name
    width = model.get_input_embeddings().weight.shape[1]
    down = _down_projection(block, width)
    if down is not None:
        names["rewrite_module_tmp"] = f"{block_name}.{down}"
        parent = down.rpartition(".")[0]
        names["mlp_module_tmp"] = f"{block_name}.{parent}" if parent else None
    children = dict(block.named_children())
    norms = [name for name, module in children.items() if "norm" in type(module).__name__.lower()]
    others = [name for name in children if name not in norms and "dropout" not in name]
    attention = next((name for name in others if "attn" in name or "attention" in name), None)
    names["attn_module_tmp"] = attention and f"{block_name}.{attention}"
    in_front = next((norm for part in PRE_FFN_NORMS for norm in norms if part in norm), None)
    names["pre_ffn_norm_tmp"] = in_front and f"{block_name}.{in_front}"
    last = [
        name
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and not name.startswith(blocks[0])
    ]
    names["ln_f_module"] = last[-1] if last else None
    head = model.get_output_embeddings()
    names["lm_head_module"] = next((name for name, module in model.named_modules() if module is head), None)
    return names


def _blocks(model: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """Name and modules of the longest list of modules of one class."""
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(part) for part in module}) == 1
    ]
    return max(lists, key=lambda entry: len(entry[1]), default=None)


def _down_projection(block: nn.Module, width: int) -> str | None:
    """The last matrix of a block that gives ``width`` numbers from another number of them."""
    matches = []
    for name, module in block.named_modules():
        shape = getattr(getattr(module, "weight", None), "shape", ())
        if len(shape) == 2 and width in shape and shape[0] != shape[1]:
            gives = shape[1] if type(module).__name__ == "Conv1D" else shape[0]
            if gives == width and "attn" not in name and "attention" not in name:
                matches.append(name)
    return matches[-1] if matches else None
