"""Paths of the files that ship with the package, and of the models that a command fetches into the cache.

A checkout (``easyedit_neuron/hparams`` is a link to the top-level ``hparams``) and an installed wheel (the
files are package data) have the same relative layout.
"""

import os
from pathlib import Path

from .errors import DataError, HostError, HparamsError
from .utils.suggest import did_you_mean

PACKAGE_DIR = Path(__file__).resolve().parent
ASSETS_DIR = PACKAGE_DIR / "assets"
HPARAMS_DIR = PACKAGE_DIR / "hparams"
CONF_DIR = PACKAGE_DIR / "conf"

SHIPPED_MODELS = ("tiny-llama",)
FETCHED_MODELS = ("smollm2-135m-instruct",)
"""Models that ``easyedit-neuron model get NAME`` writes into the cache; see ``model_store``."""
CHECKPOINTS = {
    "gpt-j-6B": "EleutherAI/gpt-j-6b",
    "gpt2-xl": "openai-community/gpt2-xl",
    "llama2-7b": "meta-llama/Llama-2-7b-hf",
    "llama2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "llama2-13b": "meta-llama/Llama-2-13b-hf",
    "llama3-8b": "meta-llama/Meta-Llama-3-8B",
    "llama3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "llama3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
    "llama3.2-1b": "meta-llama/Llama-3.2-1B",
    "llama3.2-1b-instruct": "meta-llama/Llama-3.2-1B-Instruct",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B",
    "qwen2.5-7b-instruct": "Qwen/Qwen2.5-7B-Instruct",
}
"""Name of a hyperparameter file -> the checkpoint that it is of, the same for all methods."""
SHIPPED_DATA = ("real-world", "tiny-world")
CACHE_VARIABLE = "EASYEDIT_NEURON_CACHE"


def cache_dir() -> Path:
    """Folder of fetched models: ``$EASYEDIT_NEURON_CACHE``, or ``easyedit-neuron`` in the user's cache."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user_cache).expanduser() / "easyedit-neuron"


def statistics_dir() -> Path:
    """Default of ``stats_dir``: the folder of covariances, texts and scores."""
    return cache_dir() / "stats"


def model_path(name: str) -> str:
    """Folder of a shipped or fetched model when ``name`` is exactly its name, the checkpoint for a name of
    ``CHECKPOINTS`` that is no folder here; other names are unchanged.

    For a folder of that name in the working directory write ``./tiny-llama``. EasyEdit chooses classes by
    words in the path, so that of a fetched model, all llamas, holds that word.
    """
    if name in SHIPPED_MODELS:
        return str(ASSETS_DIR / name)
    if name in FETCHED_MODELS:
        return str(cache_dir() / "models" / "llama" / name)
    return CHECKPOINTS[name] if name in CHECKPOINTS and not Path(name).exists() else str(name)


def model_short_name(path: str) -> str:
    """The name of a shipped or fetched model from its folder; any other path is returned as it is."""
    names = (*SHIPPED_MODELS, *FETCHED_MODELS)
    return next((name for name in names if path == model_path(name)), path)


def require_model(name: str) -> None:
    """``HostError`` with the command that gets it where ``name`` is a fetched model that is not there yet."""
    short_name = model_short_name(str(name))
    if short_name in FETCHED_MODELS and not Path(model_path(short_name)).is_dir():
        command = f"easyedit-neuron model get {short_name}"
        raise HostError(f"model {short_name!r} is not on this machine yet; get it once with: {command}")


def data_dir(name: str) -> Path:
    """Folder of a shipped data set; ``DataError`` for an unknown name or an incomplete installation."""
    if name not in SHIPPED_DATA:
        raise DataError(f"unknown shipped data set {name!r}: {did_you_mean(name, SHIPPED_DATA)}")
    folder = ASSETS_DIR / name
    if not folder.is_dir():
        raise DataError(
            f"shipped data set {name!r} is not at {folder}: the installation is incomplete, install again"
        )
    return folder


def shipped_hparams() -> list[str]:
    """Names of all shipped hyperparameter files, as ``"METHOD/model"``, sorted."""
    return sorted(
        str(path.relative_to(HPARAMS_DIR).with_suffix("")).replace("\\", "/")
        for path in HPARAMS_DIR.glob("*/*.yaml")
    )


def hparams_path(name: str) -> Path:
    """Path of the shipped hyperparameter file ``"METHOD/model"`` (with or without ``.yaml``)."""
    stem = str(name).replace("\\", "/").removesuffix(".yaml")
    shipped = shipped_hparams()
    if stem not in shipped:
        raise HparamsError(f"no shipped hyperparameters {name!r}: {did_you_mean(stem, shipped)}")
    return HPARAMS_DIR / f"{stem}.yaml"


def easyedit_hparams(alg_name: str, model: str) -> Path:
    """Path of the shipped file for one of EasyEdit's own methods; it may not exist."""
    return HPARAMS_DIR / "easyedit" / alg_name / f"{model}.yaml"
