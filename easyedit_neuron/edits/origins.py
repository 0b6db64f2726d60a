"""Where a model's weights come from: for every parameter the fingerprints that it has had, the first one
before any edit."""

import weakref
from collections.abc import Iterable, Mapping

import torch

from ..utils.fingerprint import tensors_fingerprint

_KNOWN: "weakref.WeakKeyDictionary[torch.nn.Module, dict[str, list[str]]]" = weakref.WeakKeyDictionary()


def origins(model: torch.nn.Module) -> dict[str, list[str]]:
    """Parameter name -> fingerprints, oldest first; a copy."""
    return {name: list(known) for name, known in _KNOWN.get(model, {}).items()}


def set_origins(model: torch.nn.Module, known: Mapping[str, list[str]]) -> None:
    """Takes up what ``origins`` gave; with nothing, the model's next edit is its first."""
    _KNOWN[model] = {name: list(fingerprints) for name, fingerprints in known.items()}


def note_edit(
    model: torch.nn.Module,
    originals: Mapping[str, torch.Tensor],
    after: Mapping[str, str],
    before: Mapping[str, str] | None = None,
) -> dict[str, tuple[str, str]]:
    """Notes an edit that has been written.

    Args:
        model: the edited model.
        originals: parameter name -> value before the edit. One that is unknown (the weights were changed from
            outside) is a first one; one that was there before has come back (EasyEdit puts weights back), and
            what followed it is forgotten.
        after: parameter name -> fingerprint now.
        before: the fingerprints of ``originals``, where they are known already.

    Returns:
        Parameter name -> (fingerprint before its first edit, before this one).
    """
    found = {}
    for name, value in originals.items():
        present = before[name] if before else tensors_fingerprint([(name, value)])
        known = _KNOWN.setdefault(model, {}).setdefault(name, [])
        at = len(known) - known[::-1].index(present) if present in known else 0
        known[at:] = [after[name]] if at else [present, after[name]]
        found[name] = known[0], present
    return found


def note_written(model: torch.nn.Module, names: Iterable[str]) -> None:
    """Parameters were changed on purpose, other than by an edit (one was taken back): their first values stay
    the same."""
    for name in names:
        present = tensors_fingerprint([(name, model.get_parameter(name))])
        _KNOWN.setdefault(model, {}).setdefault(name, []).append(present)
