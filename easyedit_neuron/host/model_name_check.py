"""Whether EasyEdit would load a model with classes that fit it.

``BaseEditor.__init__`` of EasyEdit (14cea82) looks for words in the whole ``model_name``, in the order of
``NAME_RULES``, and takes the first that is there: a llama in a folder called ``gpt-files`` gets GPT-2's
tokenizer, and then quietly wrong token ids.
"""

from dataclasses import dataclass

from ..errors import HparamsError


@dataclass(frozen=True)
class NameRule:
    """What EasyEdit ``loads`` where the lower-cased ``model_name`` holds a word.

    ``model_types``: beginnings of ``config.model_type`` for which that is right; ``""`` is every one.
    """

    word: str
    loads: str
    model_types: tuple[str, ...]


NAME_RULES = (
    NameRule("t5", "T5ForConditionalGeneration", ("t5", "mt5", "umt5")),
    NameRule("chatglm-api", "no model but an API", ()),
    NameRule("gpt-3.5", "no model but an API", ()),
    NameRule("gpt", "GPT2Tokenizer", ("gpt",)),
    NameRule("llama", "the model's own classes", ("",)),
    NameRule("baichuan", "the model's own classes", ("",)),
    NameRule("chatglm", "AutoModel, which has no unembedding,", ("chatglm",)),
    NameRule("internlm", "AutoModel, which has no unembedding,", ("internlm",)),
    NameRule("qwen2", "a tokenizer with '<|endoftext|>' added", ("qwen",)),
    NameRule("qwen3", "a tokenizer with '<|endoftext|>' added", ("qwen",)),
    NameRule("qwen", "a model with the option fp32, which only the first Qwen has,", ("qwen-",)),
    NameRule("mistral", "the model's own classes", ("",)),
)
_WORD_FOR_MODEL_TYPE = {"gpt": "gpt", "qwen": "qwen2", "mistral": "mistral"}
_GPT2_TOKENIZERS = ("GPT2Tokenizer", "GPT2TokenizerFast")


def check_model_name(model_name) -> None:
    """``HparamsError`` where EasyEdit would load the model with classes that are not its own.

    Nothing is checked for a pair ``(model, tokenizer)``, nor for a model without a readable config.
    """
    if not isinstance(model_name, str):
        return
    rule = next((rule for rule in NAME_RULES if rule.word in model_name.lower()), None)
    model_type = _model_type(model_name)
    if rule is None:
        problem = "knows none of the words in this one"
    else:
        fits = model_type is None or model_type.startswith(rule.model_types)
        if fits or (rule.word == "gpt" and _tokenizer_class(model_name) in _GPT2_TOKENIZERS):
            return
        problem = f"takes {rule.loads} for the word {rule.word!r}, but the model is of type {model_type!r}"
    # Advise the word that loads the model's own classes, and no word that EasyEdit looks for earlier.
    words = [rule.word for rule in NAME_RULES]
    matching = (word for start, word in _WORD_FOR_MODEL_TYPE.items() if (model_type or "").startswith(start))
    advised = next(matching, "llama")
    earlier = words[: words.index(advised)]
    avoided = [word for word in earlier if not any(other in word and other != word for other in earlier)]
    raise HparamsError(
        f"field 'model_name': {model_name!r}: EasyEdit goes by words in the whole path, and {problem}. "
        f"Rename the folder, or make a link to it, so that the path holds {advised!r} and none of "
        f"{', '.join(avoided)}; or use the built-in editor, which goes by the model's config "
        "(EASYEDIT_NEURON_HOST=builtin)"
    )


def _model_type(model_name: str) -> str | None:
    from transformers import PretrainedConfig

    try:
        return PretrainedConfig.get_config_dict(model_name)[0].get("model_type")
    except (OSError, ValueError):
        return None


def _tokenizer_class(model_name: str) -> str | None:
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    try:
        return get_tokenizer_config(model_name).get("tokenizer_class")
    except (OSError, ValueError):
        return None
