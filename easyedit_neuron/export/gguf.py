"""The edited model as a GGUF file, for llama.cpp and what is built on it.

The file is read back before it is kept: the tokenizer must make the same tokens, and every weight must be
what was written. Written are the architectures of ``WRITTEN`` with a byte-level BPE tokenizer.
"""

import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arch.gguf import CONTROL, PRE_TOKENIZERS, PROBE, USER_DEFINED, byte_level_tokenizer, load_gguf
from ..edits.record import EditRecord
from ..errors import ArchitectureError, HostError
from .side_file import Exported, describe, refuse_existing, write_export
from .source import Source

FILE = "model.gguf"
WRITTEN = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""``model_type`` -> the architecture of the file."""
NORMAL, UNUSED = 1, 5
"""Further values of ``tokenizer.ggml.token_type``."""
REMEDY = "export --to merged, and convert the folder with llama.cpp's convert_hf_to_gguf.py"


def export_gguf(
    edits: Iterable[EditRecord],
    model: nn.Module,
    tok,
    out: str | Path,
    *,
    base: str | None = None,
    ids: Sequence | None = None,
    measured: dict | None = None,
) -> Exported:
    """Write the edited model as ``model.gguf`` with the side file into the folder ``out``.

    float16 stays as it is, other weights are float32. Quantise the file with llama.cpp's own tool. Arguments
    as for ``export_merged``.

    Raises:
        ArchitectureError: an architecture or a tokenizer that is not written.
        HostError: the package ``gguf`` is missing, or what is read back is not what was written; the folder
            is then not there.
    """
    refuse_existing(out)
    if importlib.util.find_spec("gguf") is None:
        raise HostError("writing GGUF needs the package gguf: pip install 'easyedit-neuron[gguf]'")
    check_architecture(model)
    fields = tokenizer_fields(tok, model.config.vocab_size)
    source = Source.of(edits, model, base, ids)
    with source.edited() as weights:
        parameters: dict[str, dict] = {name: {} for name in source.parameters}
        side_file = describe(source, "gguf", weights, parameters, measured)

        def fill(folder: Path) -> None:
            _write(folder / FILE, source.model, fields)
            _check(folder / FILE, source.model, tok)

        return write_export(out, side_file, fill, checked=[FILE])


def check_architecture(model: nn.Module) -> None:
    """``ArchitectureError`` for a model that is not written here."""
    model_type = getattr(model.config, "model_type", None)
    if model_type not in WRITTEN:
        raise ArchitectureError(f"GGUF is written for {', '.join(WRITTEN)}, not {model_type!r}: {REMEDY}")
    kind = _rope(model.config)["rope_type"]
    if kind != "default":
        raise ArchitectureError(f"GGUF is not written here for rope_type {kind!r}: {REMEDY}")


def tokenizer_fields(tok, vocab_size: int) -> dict[str, Any]:
    """The ``tokenizer.*`` fields of the file. ``tokenizer.ggml.pre``, the way of cutting a text into words,
    is the first with which vocabulary and merges give the tokenizer's own tokens.

    ``ArchitectureError`` where there is none, or the tokenizer is no byte-level BPE.
    """
    content = json.loads(tok.backend_tokenizer.to_str()) if getattr(tok, "is_fast", False) else {}
    bpe = content.get("model", {})
    if bpe.get("type") != "BPE":
        raise ArchitectureError(f"GGUF is written for byte-level BPE tokenizers alone: {REMEDY}")
    tokens = {number: token for token, number in bpe["vocab"].items()}
    kinds = dict.fromkeys(tokens, NORMAL)
    for added in content.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]]
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [tokens.get(number, f"[PAD{number}]") for number in range(vocab_size)],
        "tokenizer.ggml.token_type": [kinds.get(number, UNUSED) for number in range(vocab_size)],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": tok("x")["input_ids"][:1] == [tok.bos_token_id],
    }
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    for role, name in names.items():
        number = getattr(tok, f"{role}_token_id")
        # Some tokenizers of transformers add a token of their own, for which the model has no embedding.
        if number is not None and number < vocab_size:
            fields[f"tokenizer.ggml.{name}_token_id"] = number
    if isinstance(tok.chat_template, str):
        fields["tokenizer.chat_template"] = tok.chat_template
    for pre in PRE_TOKENIZERS:
        candidate = fields | {"tokenizer.ggml.pre": pre}
        if _same_tokens(byte_level_tokenizer(candidate), tok):
            return candidate
    raise ArchitectureError(
        f"no way of cutting words that GGUF knows gives this tokenizer's tokens: {REMEDY}"
    )


def _same_tokens(first, second) -> bool:
    texts = (PROBE, "The capital of France is Paris.\n\n\tdef f(x):  return x**2  # 100%")
    return all(first(text)["input_ids"] == second(text)["input_ids"] for text in texts)


def _write(path: Path, model: nn.Module, fields: dict[str, Any]) -> None:
    from gguf import GGUFWriter

    config = model.config
    writer = GGUFWriter(path, WRITTEN[config.model_type])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(head_dim)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_vocab_size(config.vocab_size)
    for name, value in fields.items():
        _add_field(writer, name, value)
    for name, tensor in _tensors(model):
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_field(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


def _rope(config: Any) -> dict[str, Any]:
    """Parameters of the rotation; older versions of transformers have them apart."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    theta = rope.get("rope_theta") or getattr(config, "rope_theta", None) or 10000.0
    return {"rope_type": rope.get("rope_type") or rope.get("type") or "default", "rope_theta": theta}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the file: queries and keys of a llama in the order of its rotation."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    config, architecture = model.config, WRITTEN[model.config.model_type]
    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensor = value.detach().cpu()
        tensor = tensor if tensor.dtype == torch.float16 and tensor.dim() > 1 else tensor.float()
        module = name.split(".")[-2]
        if architecture == "llama" and module in heads:
            tensor = _interleaved(tensor, heads[module])
        yield names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.contiguous()


def _interleaved(matrix: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys with the two halves of a head's rotation taking turns."""
    rows = matrix.shape[0]
    return matrix.reshape(heads, 2, rows // heads // 2, -1).transpose(1, 2).reshape(matrix.shape)


def _check(path: Path, model: nn.Module, tok) -> None:
    read, read_tok = load_gguf(path)
    if not _same_tokens(read_tok, tok):
        raise HostError(f"{path}: read back, its tokenizer makes other tokens; {REMEDY}")
    weights = read.state_dict()
    for name, value in model.state_dict().items():
        if not torch.equal(weights[name].float(), value.detach().cpu().float()):
            raise HostError(f"{path}: read back, {name} is not what was written; {REMEDY}")
