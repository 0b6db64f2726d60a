"""Neuron-level knowledge editing for EasyEdit, and on its own.

Importing the package is light: neither torch nor transformers nor EasyEdit is loaded, and nothing is
downloaded. The methods are made known to EasyEdit at once if it is loaded, else when it loads. The public
names below are resolved on first use (PEP 562); ``BaseEditor`` is EasyEdit's class where EasyEdit can be
imported, else the built-in one.
"""

import importlib
from typing import Any

from .host import register

__version__ = "0.1.0"

_LAZY = {
    "NMKEHyperParams": "models.nmke.nmke_hparams",
    "apply_nmke_to_model": "models.nmke.nmke_main",
    "FiNEHyperParams": "models.fine.fine_hparams",
    "apply_fine_to_model": "models.fine.fine_main",
    "KNEHyperParams": "models.kne.kne_hparams",
    "apply_kne_to_model": "models.kne.kne_main",
    "LastingHyperParams": "models.lasting.lasting_hparams",
    "apply_lasting_to_model": "models.lasting.lasting_main",
    "PNKEHyperParams": "models.pnke.pnke_hparams",
    "apply_pnke_to_model": "models.pnke.pnke_main",
    "AlphaEditHyperParams": "models.alphaedit.alphaedit_hparams",
    "apply_alphaedit_to_model": "models.alphaedit.alphaedit_main",
    "MEMITHyperParams": "models.memit.memit_hparams",
    "apply_memit_to_model": "models.memit.memit_main",
    "ROMEHyperParams": "models.rome.rome_hparams",
    "apply_rome_to_model": "models.rome.rome_main",
    "FTHyperParams": "models.ft.ft_hparams",
    "apply_ft_to_model": "models.ft.ft_main",
    "answers": "evaluation.answers",
    "Guard": "evaluation.guard",
    "Limits": "evaluation.guard",
    "RunCallback": "lifelong.tracking.callback",
    "HyperParams": "hyperparameters.base",
    "NeuronEditError": "errors",
    "get_method": "registry",
    "MethodSpec": "registry",
    "register_method": "registry",
    "register_mask": "masks",
    "register_scores": "masks",
}

__all__ = ["BaseEditor", "__version__", "register", *_LAZY]


def __getattr__(name: str) -> Any:
    if name == "BaseEditor":
        # Not kept: EASYEDIT_NEURON_HOST may change, and EasyEdit may be found later.
        from .host import resolve_base_editor

        return resolve_base_editor()
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
