"""Hyperparameters of IKE."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ...errors import HparamsError
from ...hyperparameters.base import ModelHyperParams
from ...hyperparameters.options import doc, require


@dataclass(kw_only=True)
class IKEHyperParams(ModelHyperParams):
    """Zheng et al. 2023, "Can we edit factual knowledge by in-context learning?", with facts looked up.

    IKE as published tells the model of each question which new fact it is about. Nobody does so for a served
    model, so that here every question gets the ``facts`` nearest ones of all edits so far.
    """

    ALG_NAME: ClassVar[str] = "IKE"
    NEEDS_SUBJECT: ClassVar[bool] = False

    facts: int = doc("new facts in front of a question, the nearest of all edits so far", 4, least=1)
    retriever: Literal["words", "hidden_states", "sentence_encoder"] = doc(
        "how near facts are found: words: cosine of TF-IDF vectors (scikit-learn); hidden_states: of the "
        "model's own, mean over tokens, at `layer`; sentence_encoder: of that in `sentence_model_name`",
        "words",
    )
    layer: int | None = doc(
        "of hidden_states: hidden states behind this block; unset: the middle", None, least=0
    )
    sentence_model_name: str | None = doc(
        "of sentence_encoder: folder or hub name, read with AutoModel", None
    )
    k: int = doc("demonstrations in front of the new facts (IKE's are 32); 0: none", 0, least=0)
    demonstrations: str | None = doc(
        "data file from which demonstrations are taken, without the records that are edited", None
    )

    def validate(self) -> None:
        """Check what no range says."""
        super().validate()
        encodes = self.retriever == "sentence_encoder"
        named = self.sentence_model_name is not None
        require(
            encodes == named,
            "sentence_model_name",
            "name the encoder's folder" if encodes else f"is not read with retriever={self.retriever}",
        )
        wants = (self.k > 0) == (self.demonstrations is not None)
        require(wants, "demonstrations", "goes with k > 0, how many of them a question gets")

    def check_inputs(self) -> None:
        """Check that the demonstrations' file exists."""
        if self.demonstrations is not None and not Path(self.demonstrations).expanduser().is_file():
            raise HparamsError(f"field 'demonstrations': there is no file {self.demonstrations!r}")
