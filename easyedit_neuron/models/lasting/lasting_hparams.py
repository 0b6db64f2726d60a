"""Hyperparameters of Lasting."""

from dataclasses import dataclass
from typing import ClassVar

from ...hyperparameters.base import NamedProjections
from ...hyperparameters.options import doc, require
from ...locate_then_edit.target_hparams import TargetHyperParams
from ...statistics import NAME_TEMPLATES


@dataclass(kw_only=True)
class LastingHyperParams(TargetHyperParams, NamedProjections):
    """Where neurons are added, when they respond, and z*, which they write.

    ``keep_edits`` is on: a new edit of a subject keeps the earlier ones of the same subject.
    """

    ALG_NAME: ClassVar[str] = "Lasting"
    GUARD_EVERY: ClassVar[int] = 100

    keep_edits: bool = doc(
        "z* also gives the objects of earlier edits of the same subject, whose neurons respond to it too",
        True,
    )
    capacity: int = doc(
        "neurons by which every FFN grows when an edited layer has none left", 64, least=1, most=100_000
    )

    match_ridge: float = doc("ridge of the fit of a match, in units of the mean second moment", 1e-3, above=0)
    match_weight: float = doc(
        "weight of the subject's own keys in the fit, against all that must not match", 3.0, above=0
    )
    others: int = doc(
        "names with the last token of a subject of two or more that must not match, for each edit",
        16,
        least=0,
    )
    others_weight: float = doc("weight of these names in the fit of a match", 0.03, least=0)
    text_share: float = doc("share of text tokens in what must not match", 0.5, above=0)
    name_share: float = doc("share of other names' last tokens in what must not match", 0.4, least=0)
    sink_share: float = doc("share of first tokens (attention sinks) in what must not match", 0.1, least=0)
    name_templates: list[str] = doc(
        "beginnings in which the model reads the subject, and other names, each with '{}'",
        factory=lambda: list(NAME_TEMPLATES),
    )

    threshold: float = doc(
        "match below which a neuron is silent; the subject's own is 1, text is at -1", 0.5, above=-1, below=1
    )
    saturation: float = doc("match at which the response is largest", 0.9, above=-1)
    steepness: float = doc("slope of the gate at its threshold: the higher, the harder", 20.0, above=0)

    def validate(self) -> None:
        """Check the rules between fields, and the templates."""
        super().validate()
        require(
            self.saturation > self.threshold,
            "saturation",
            f"must be greater than threshold ({self.threshold}), got {self.saturation}",
        )
        for template in self.name_templates:
            require(template.count("{}") == 1, "name_templates", f"{template!r} must hold '{{}}' once")
