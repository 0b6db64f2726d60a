"""IKE edits no weights: what EasyEdit's contract asks for cannot be had, and the error says what can."""

from typing import Any

from ...errors import HostError


def apply_ike_to_model(*args: Any, **options: Any) -> Any:
    """Raises ``HostError``: the runner and the single edits put facts into prompts, an editor cannot."""
    raise HostError(
        "IKE changes prompts and no weights, so that there is no edited model to return; measure it with "
        "`python -m easyedit_neuron method=ike`, or beside others in the bench and the single edits"
    )
