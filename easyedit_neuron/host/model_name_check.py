"""EasyEdit chooses the classes of model and tokenizer by words in ``model_name``; whether they fit the model
is found out here.

``BaseEditor.__init__`` of EasyEdit (14cea82) looks for words in the whole path, in the order of
:data:`ROUTES`, and takes the first that is there: a llama in a folder called ``gpt-files`` gets GPT-2's
tokenizer, and then quietly wrong token ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import HparamsError


@dataclass(frozen=True)
class Route:
    """What one word leads to.

    Attributes:
        word: looked for in the lower-cased ``model_name``.
        takes: what EasyEdit loads then, for the message.
        fits: beginnings of ``config.model_type`` for which that is right; ``""`` is every one.
    """

    word: str
    takes: str
    fits: tuple[str, ...]


ROUTES = (
    Route("t5", "T5ForConditionalGeneration", ("t5", "mt5", "umt5")),
    Route("chatglm-api", "no model but an API", ()),
    Route("gpt-3.5", "no model but an API", ()),
    Route("gpt", "GPT2Tokenizer", ("gpt",)),
    Route("llama", "the model's own classes", ("",)),
    Route("baichuan", "the model's own classes", ("",)),
    Route("chatglm", "AutoModel, which has no unembedding", ("chatglm",)),
    Route("internlm", "AutoModel, which has no unembedding", ("internlm",)),
    Route("qwen2", "a tokenizer with '<|endoftext|>' added", ("qwen",)),
    Route("qwen3", "a tokenizer with '<|endoftext|>' added", ("qwen",)),
    Route("qwen", "a model with the option fp32, which only the first Qwen has", ("qwen-",)),
    Route("mistral", "the model's own classes", ("",)),
)
_ADVISED = {"gpt": "gpt", "qwen": "qwen2", "mistral": "mistral"}
_GPT2_TOKENIZERS = ("GPT2Tokenizer", "GPT2TokenizerFast")


def route_of(model_name: str) -> Route | None:
    """The route that EasyEdit takes for a name, None where it knows none of its words (it then raises
    NotImplementedError)."""
    return next((route for route in ROUTES if route.word in model_name.lower()), None)


def check_route(model_name) -> None:
    """``HparamsError`` where EasyEdit would load the model at ``model_name`` with classes that are not its
    own.

    Only the model's and the tokenizer's config are read. Nothing is checked for a pair ``(model,
    tokenizer)``, which EasyEdit uses as it is, nor for a model whose config is not to be had: loading it says
    more.
    """
    if not isinstance(model_name, str):
        return
    route, kind = route_of(model_name), _model_type(model_name)
    if route is None:
        problem = "there is none in this one that it knows"
    elif (
        kind is None
        or any(kind.startswith(beginning) for beginning in route.fits)
        or route.word == "gpt"
        and _tokenizer_class(model_name) in _GPT2_TOKENIZERS
    ):
        return
    else:
        problem = f"{route.word!r} makes it take {route.takes}, but the model there is of type {kind!r}"
    word = next((word for beginning, word in _ADVISED.items() if (kind or "").startswith(beginning)), "llama")
    earlier = [other.word for other in ROUTES[: [other.word for other in ROUTES].index(word)]]
    others = [one for one in earlier if not any(other in one and other != one for other in earlier)]
    raise HparamsError(
        f"field 'model_name': {model_name!r}: EasyEdit goes by words in the whole path, and {problem}. Rename the folder, or "
        f"make a link to it, so that the path holds {word!r} and none of {', '.join(others)}; or use the built-in editor, which "
        "goes by the model's config (EASYEDIT_NEURON_HOST=builtin)"
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
