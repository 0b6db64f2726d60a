"""Paths of the files that ship with the package: hyperparameters, Hydra configuration, tiny model and data.

A checkout (``easyedit_neuron/hparams`` is a link to the top-level ``hparams``) and an installed wheel (the
files are package data) have the same relative layout.
"""

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

    For a folder of that name in the working directory write ``./tiny-llama``.
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
    stem = str(name).replace("\\", "/").removesuffix(".yaml")
    shipped = shipped_hparams()
    if stem not in shipped:
        raise HparamsError(f"no shipped hyperparameters {name!r}: {did_you_mean(stem, shipped)}")
    return HPARAMS_DIR / f"{stem}.yaml"


def easyedit_hparams(alg_name: str, model: str) -> Path:
    """Path of the shipped file for one of EasyEdit's own methods; it may not exist."""
    return HPARAMS_DIR / "easyedit" / alg_name / f"{model}.yaml"
