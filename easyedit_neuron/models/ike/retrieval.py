"""Which of many texts are nearest to a question."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from ...arch.tokens import encode
from ...arch.view import ModelView
from ...errors import HparamsError
from .ike_hparams import IKEHyperParams

BATCH = 32
Encode = Callable[[list[str]], torch.Tensor]
"""Texts to their vectors, float32 [N, d]."""


class Retriever(Protocol):
    """Looks texts up by their likeness to a question."""

    def nearest(self, texts: Sequence[str], questions: Sequence[str], count: int) -> list[list[int]]:
        """Positions of at most ``count`` texts for each question, the nearest first, equal ones in order."""


class ByWords:
    """Cosine of TF-IDF vectors of words; how frequent they are is counted in the texts."""

    def __init__(self) -> None:
        try:
            from sklearn.feature_extraction.text import TfidfVectorizer
        except ImportError:
            problem = "needs scikit-learn: pip install 'easyedit-neuron[report]'"
            raise HparamsError(f"field 'retriever': words {problem}, or choose hidden_states") from None
        self._vectorizer = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
        self._texts: list[str] = []

    def nearest(self, texts: Sequence[str], questions: Sequence[str], count: int) -> list[list[int]]:
        if list(texts) != self._texts:
            self._texts, self._vectors = list(texts), self._vectorizer.fit_transform(texts)
        likeness = self._vectorizer.transform(questions) @ self._vectors.T
        return _highest(torch.from_numpy(likeness.toarray()), count)


class ByVectors:
    """Cosine of vectors that a network gives, less the mean of the texts' (which hidden states have in
    common). Every text is encoded once."""

    def __init__(self, encode_texts: Encode) -> None:
        self._encode_texts = encode_texts
        self._vectors: dict[str, torch.Tensor] = {}

    def nearest(self, texts: Sequence[str], questions: Sequence[str], count: int) -> list[list[int]]:
        stored, asked = self._of(texts), self._of(questions)
        center = stored.mean(0) if len(texts) > 1 else torch.zeros_like(stored[0])
        stored, asked = (torch.nn.functional.normalize(part - center, dim=-1) for part in (stored, asked))
        return _highest(asked @ stored.T, count)

    def _of(self, texts: Sequence[str]) -> torch.Tensor:
        new = sorted(
            {text for text in texts if text not in self._vectors}, key=lambda text: (len(text), text)
        )
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            self._vectors |= dict(zip(part, self._encode_texts(part)))
        return torch.stack([self._vectors[text] for text in texts])


def retrievers(hparams: IKEHyperParams, model: torch.nn.Module, tok) -> Callable[[], Retriever]:
    """Makes retrievers as ``hparams.retriever`` says; ``HparamsError`` where there can be none."""
    if hparams.retriever == "words":
        return ByWords
    if hparams.retriever == "hidden_states":
        count = ModelView.of(model, **hparams.module_overrides()).n_layers
        layer = count // 2 if hparams.layer is None else hparams.layer
        if layer >= count:
            problem = f"layer {layer} is out of range, the model has layers 0 to {count - 1}"
            raise HparamsError(f"field 'layer': {problem}")
        return lambda: ByVectors(lambda texts: mean_states(model, tok, texts, layer + 1))
    assert hparams.sentence_model_name is not None
    encoder, encoder_tok = _load_encoder(hparams.sentence_model_name)
    return lambda: ByVectors(lambda texts: mean_states(encoder, encoder_tok, texts, -1, skip_first=False))


def mean_states(
    model: torch.nn.Module, tok, texts: list[str], index: int, skip_first: bool = True
) -> torch.Tensor:
    """float32 [N, d] on the CPU: mean over tokens of ``hidden_states[index]``, where 0 are the embeddings.

    ``skip_first``: without the first token, an attention sink whose hidden state is the same in all texts.
    """
    batch = encode(tok, texts, next(model.parameters()).device)
    with torch.no_grad():
        states = model(**batch.inputs, output_hidden_states=True).hidden_states[index]
    counts = batch.attention_mask.clone()
    if skip_first:
        counts[batch.lengths > 1, 0] = 0
    weights = counts[..., None].to(torch.float32)
    return ((states.float() * weights).sum(1) / weights.sum(1)).cpu()


def _load_encoder(name: str):
    from transformers import AutoModel, AutoTokenizer

    try:
        return AutoModel.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as problem:
        reason = " ".join(str(problem).split())
        raise HparamsError(f"field 'sentence_model_name': {name!r} cannot be loaded: {reason}") from None


def _highest(likeness: torch.Tensor, count: int) -> list[list[int]]:
    order = torch.sort(likeness, dim=1, descending=True, stable=True).indices
    return order[:, :count].tolist()
