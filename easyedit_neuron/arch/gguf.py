"""Read a model and its tokenizer from a GGUF file.

Weights go through transformers, which dequantises them. A byte-level BPE tokenizer is built here from the
fields of the file, because transformers chooses it by the architecture: for a llama with GPT-2's kind of
tokenizer it prepends a token that the model never saw and splits numbers differently.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

from ..errors import HostError

SUFFIX = ".gguf"
PROBE = "In 1984, Zoë's café (on 3rd Street) sold 2,500 cups;\n  it's closed now."
CONTROL, USER_DEFINED = 3, 4
"""Values of ``tokenizer.ggml.token_type`` for tokens that the text does not make."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORD_SPLITS = {"llama-bpe": _SPLIT.replace("DIGITS", "{1,3}"), "qwen2": _SPLIT.replace("DIGITS", "")}
"""``tokenizer.ggml.pre`` -> the regular expression that cuts a text into words."""
PRE_TOKENIZERS = (*_WORD_SPLITS, "smollm", "gpt-2")
"""Values of ``tokenizer.ggml.pre`` that are read here."""


def is_gguf(name: Any) -> bool:
    """Whether a model's name is that of a GGUF file."""
    return str(name).endswith(SUFFIX)


def load_gguf(path: str | Path, **options) -> tuple[torch.nn.Module, Any]:
    """Model and tokenizer of a GGUF file; ``options`` are those of ``from_pretrained``.

    Raises:
        HostError: the package ``gguf`` is missing; the file is missing, damaged, or of an architecture that
            transformers cannot read; its tokenizer does not give back the text that it was given.
    """
    import transformers

    path = Path(path).expanduser()
    if importlib.util.find_spec("gguf") is None:
        raise HostError(f"{path}: reading GGUF needs the package gguf: pip install 'easyedit-neuron[gguf]'")
    if not path.is_file():
        raise HostError(f"there is no file {str(path)!r}; model_name names the GGUF file of the model")
    place = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        fields = _fields(path)
        tok = byte_level_tokenizer(fields) or transformers.AutoTokenizer.from_pretrained(**place)
        if hasattr(transformers, "GgufConfig"):  # newer versions would keep the weights in the file's blocks
            options.setdefault("quantization_config", transformers.GgufConfig(dequantize=True))
        model = transformers.AutoModelForCausalLM.from_pretrained(**place, **options)
    except Exception as problem:  # whatever transformers raises about files of others
        raise HostError(f"{path}: cannot be read as a GGUF model: {problem}") from problem
    decoded = tok.decode(tok(PROBE, add_special_tokens=False)["input_ids"])
    if decoded.strip() != PROBE:
        remedy = "save the model and its own tokenizer as a Hugging Face folder and name that"
        raise HostError(f"{path}: its tokenizer changes a text: {PROBE!r} became {decoded!r}; {remedy}")
    return model, tok


def _fields(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if name.startswith("tokenizer.")}


def byte_level_tokenizer(fields: dict[str, Any]) -> Any:
    """The fast tokenizer of a file's ``tokenizer.*`` fields with byte-level BPE; None for another kind."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    words = _pre_tokenizer(fields.get("tokenizer.ggml.pre"))
    if fields.get("tokenizer.ggml.model") != "gpt2" or words is None:
        return None
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    # Llama 3 takes a word that is a token as it is, even where the merges would not lead to it.
    whole_words = fields.get("tokenizer.ggml.pre") == "llama-bpe"
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words))
    backend.pre_tokenizer, backend.decoder = words, decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    kinds = fields.get("tokenizer.ggml.token_type", [])
    added = [(token, kind) for token, kind in zip(tokens, kinds) if kind in (CONTROL, USER_DEFINED)]
    backend.add_special_tokens([AddedToken(t, special=True) for t, kind in added if kind == CONTROL])
    backend.add_tokens([AddedToken(t, normalized=False) for t, kind in added if kind == USER_DEFINED])
    special = {
        f"{role}_token": tokens[number]
        for role, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if (number := fields.get(f"tokenizer.ggml.{name}_token_id")) is not None
    }
    if fields.get("tokenizer.ggml.add_bos_token") and "bos_token" in special:
        bos = special["bos_token"]
        pair = [(bos, vocabulary[bos])]
        with_bos = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=pair)
        backend.post_processor = processors.Sequence([backend.post_processor, with_bos])
    # transformers 4 gives token types by default, which these models do not take
    options = {"clean_up_tokenization_spaces": False, "model_input_names": ["input_ids", "attention_mask"]}
    tok = PreTrainedTokenizerFast(tokenizer_object=backend, **options, **special)
    tok.chat_template = fields.get("tokenizer.chat_template")
    return tok


def _pre_tokenizer(name: str | None) -> Any:
    """What cuts a text into words before the merges, by ``tokenizer.ggml.pre``; None for an unknown name."""
    from tokenizers import Regex, pre_tokenizers

    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    with_words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name in _WORD_SPLITS:
        split = pre_tokenizers.Split(Regex(_WORD_SPLITS[name]), "isolated")
        return pre_tokenizers.Sequence([split, bytes_only])
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), with_words])
    return with_words if name == "gpt-2" else None
