"""The gate edits no weights: what EasyEdit's contract asks for cannot be had, and the error says what can."""

from typing import Any

from ...errors import HostError


def apply_gate_to_model(*args: Any, **options: Any) -> Any:
    """Raises ``HostError``: the runner keeps a gate beside its model, an editor has no place for it."""
    raise HostError(
        "Gate adds to hidden states and changes no weights, so that there is no edited model to return; "
        "measure it with `python -m easyedit_neuron method=gate`, or beside others in the bench"
    )
