"""Where the files that ship with the package are: hyperparameters, Hydra configuration, the tiny model and
its data.

The same relative layout holds in a checkout (``easyedit_neuron/hparams`` is a link to the top-level
``hparams``) and in an installed wheel (the files are package data), so nothing here asks which of the two it
is in.
"""

from __future__ import annotations

from pathlib import Path

from .errors import DataError, HparamsError
from .utils.suggest import did_you_mean

PACKAGE_DIR = Path(__file__).resolve().parent
ASSETS_DIR = PACKAGE_DIR / "assets"
HPARAMS_DIR = PACKAGE_DIR / "hparams"
CONF_DIR = PACKAGE_DIR / "conf"

SHIPPED_MODELS = ("tiny-llama",)
SHIPPED_DATA = ("tiny-world",)


def model_path(name: str) -> str:
    """Folder of a shipped model when ``name`` is exactly its name; any other name is returned as it is.

    A folder of that name in the working directory does not shadow the shipped model: write ``./tiny-llama``
        for it.
    """
    return str(ASSETS_DIR / name) if name in SHIPPED_MODELS else str(name)


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
    stem = str(name).replace("\\", "/")
    stem = stem[:-5] if stem.endswith(".yaml") else stem
    known = shipped_hparams()
    if stem not in known:
        raise HparamsError(f"no shipped hyperparameters {name!r}: {did_you_mean(stem, known)}")
    return HPARAMS_DIR / f"{stem}.yaml"


def easyedit_hparams(alg_name: str, model: str) -> Path:
    """Where the file of one of EasyEdit's own methods for a model is, if it is shipped."""
    return HPARAMS_DIR / "easyedit" / alg_name / f"{model}.yaml"
