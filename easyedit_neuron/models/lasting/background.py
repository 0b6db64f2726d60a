"""What must not match an edit: the inputs of an FFN at text, at other names and at first tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ...arch.capture import Capture
from ...arch.chat import ChatTokenizer, plain_tokenizer
from ...arch.tokens import pad, target_token_ids, token_ids
from ...arch.view import ModelView
from ...arch.widen import own_width
from ...errors import DataError
from ...statistics import matrix_files
from ...statistics.names import name_rows, names_in
from ...statistics.text import enough_texts, open_texts
from ...utils.fingerprint import key_fingerprint, model_fingerprint, text_fingerprint
from ...utils.progress import progress

SINK_COSINE = 0.9
ROWS_PER_FORWARD = 64


@dataclass(frozen=True)
class Background:
    """Moments of an FFN's inputs x, with the shares of text, names and first tokens as their weights.

    Attributes:
        moment: E[x x^T], [d_model, d_model] float64.
        mean: E[x], [d_model] float64.
        sink: mean of x at first tokens, [d_model] float64.
        ridge: added to the diagonal in the fits, in units of its mean.
    """

    moment: Tensor
    mean: Tensor
    sink: Tensor
    ridge: float

    @cached_property
    def _factor(self) -> Tensor:
        """Cholesky factor of ``A = E[x x^T] + ridge I``."""
        ridge = self.ridge * self.moment.diagonal().mean()
        return torch.linalg.cholesky(self.moment + ridge * torch.eye(len(self.mean), dtype=torch.float64))

    def _solve(self, right: Tensor) -> Tensor:
        return torch.cholesky_solve(right, self._factor)

    def is_sink(self, keys: Tensor) -> Tensor:
        """Whether keys [n, d_model] are those of an attention sink, bool [n]: a first token looks alike in
        every prompt, so that a neuron that reads it would write into all of them."""
        return torch.cosine_similarity(keys.to(self.sink), self.sink[None]) > SINK_COSINE

    def fit(self, level: float, rows: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """w [d_model] with ``w x`` near ``level`` at the background and near the targets at some rows.

        ``argmin E(w x - level)^2 + sum_i share_i (w r_i - target_i)^2 + ridge |w|^2``, that is ``(A + sum_i
        share_i r_i r_i^T) w = level E[x] + sum_i share_i target_i r_i``, solved from the factor of A
        (Woodbury).

        Args:
            level: of the background.
            rows: r, [n, d_model].
            targets: [n].
            shares: [n], all greater than 0.
        """
        rows, targets, shares = (values.to(self.mean) for values in (rows, targets, shares))
        right = level * self.mean + rows.T @ (shares * targets)
        solved = self._solve(torch.cat([right[:, None], rows.T], 1))
        w, towards = solved[:, 0], solved[:, 1:]
        return w - towards @ torch.linalg.solve(torch.diag(1 / shares) + rows @ towards, rows @ w)

    def match(
        self, keys: Tensor, weight: float, others: Tensor, others_weight: float
    ) -> tuple[Tensor, Tensor]:
        """w, near 1 at an edit's keys and near -1 at those of others and elsewhere; and c, near 1 at all of
        them, which stands for the bias that an FFN may not have.

        Args:
            keys: k, [n, d_model].
            weight: of all keys together against the background.
            others: o, [m, d_model], m may be 0.
            others_weight: of all of these against the background.

        Returns:
            w and c, [d_model] float64.
        """
        rows, signs = torch.cat([keys, others]), torch.ones(len(keys) + len(others))
        signs[len(keys) :] = -1
        shares = torch.full_like(signs, weight / len(keys))
        shares[len(keys) :] = others_weight / max(1, len(others))
        present = shares > 0
        rows, signs, shares = rows[present], signs[present], shares[present]
        return self.fit(-1.0, rows, signs, shares), self.fit(1.0, rows, signs.abs(), shares)


Moments = dict[str, Tensor]
"""``moment``, ``mean`` and ``sink`` of a ``Background``."""


def measured_background(view: ModelView, tok, hparams) -> tuple[dict[str, Moments], list[list[int]]]:
    """Layer (as text) -> moments, and the beginnings of names, all tokens but the last, of the present model.

    The moments come from the cache below ``stats_dir`` where they have been measured before. In a chat the
    names are read where a subject is, in the user's turn; the texts are plain.
    """
    layers, prompt_tok, tok = hparams.layers, tok, plain_tokenizer(tok)
    folder = Path(hparams.stats_dir).expanduser()
    count = hparams.mom2_n_samples or enough_texts(own_width(view))
    texts = list(open_texts(view, tok, hparams.mom2_dataset, count, hparams.seed, folder))
    provenance = {
        "kind": "ffn inputs",
        "model": model_fingerprint(view.model),
        "text": text_fingerprint(texts),
        "max_length": hparams.mom2_max_length,
        "templates": list(hparams.name_templates),
        "shares": [hparams.text_share, hparams.name_share, hparams.sink_share],
    }
    if isinstance(prompt_tok, ChatTokenizer):
        provenance["chat"] = prompt_tok.head
    paths = {
        layer: folder
        / f"ffn-inputs-layer{layer}-{key_fingerprint(provenance | {'layer': layer})}.safetensors"
        for layer in layers
    }

    def stored(layer: int) -> Moments | None:
        content = matrix_files.read(paths[layer], provenance | {"layer": layer})
        return None if content is None else content[0]

    missing = [layer for layer in layers if stored(layer) is None]
    if missing:
        for layer, moments in _measure(view, prompt_tok, texts, hparams, missing).items():
            matrix_files.write(paths[layer], provenance | {"layer": layer}, moments)
    result = {}
    for layer in layers:
        moments = stored(layer)
        assert moments is not None
        result[str(layer)] = moments
    names = [target_token_ids(tok, name) for name in names_in(texts)]
    return result, [ids[:-1] for ids in names if len(ids) > 1]


@dataclass
class _Sums:
    """Sums of x x^T and of x over some inputs x [n, d_model]."""

    moment: Tensor
    total: Tensor
    count: int = 0

    @classmethod
    def zeros(cls, size: int) -> _Sums:
        return cls(torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))

    def add(self, inputs: Tensor) -> None:
        inputs = inputs.to("cpu", torch.float64)
        self.moment += inputs.T @ inputs
        self.total += inputs.sum(0)
        self.count += len(inputs)


@torch.no_grad()
def _measure(
    view: ModelView, tok, texts: Sequence[str], hparams, layers: Sequence[int]
) -> dict[int, dict[str, Tensor]]:
    """Layer -> "moment" and "mean" of text tokens, names and first tokens, weighted by their shares."""
    rows = [("text", token_ids(plain_tokenizer(tok), text)[: hparams.mom2_max_length]) for text in texts]
    rows += [("name", ids) for ids in name_rows(tok, names_in(texts), hparams.name_templates)]
    rows = sorted(((kind, ids) for kind, ids in rows if ids), key=lambda row: len(row[1]))
    sums = {(layer, kind): _Sums.zeros(view.d_model) for layer in layers for kind in ("text", "name", "sink")}
    with progress("inputs of the FFNs", len(rows), "text") as shown:
        for start in range(0, len(rows), ROWS_PER_FORWARD):
            part = rows[start : start + ROWS_PER_FORWARD]
            batch = pad([ids for _, ids in part], view.input_device)
            with Capture(view, layers, want={"ffn_in"}, stop_after=max(layers)) as seen:
                view.model(**batch.inputs, use_cache=False)
            for layer, inputs in seen.ffn_in.items():
                for (kind, ids), x in zip(part, inputs):
                    if kind == "text":
                        sums[layer, "sink"].add(x[:1])
                        sums[layer, "text"].add(x[1 : len(ids)])
                    else:
                        sums[layer, "name"].add(x[len(ids) - 1 : len(ids)])
            shown.add(len(part))
    shares = {"text": hparams.text_share, "name": hparams.name_share, "sink": hparams.sink_share}
    return {layer: _weighted({kind: sums[layer, kind] for kind in shares}, shares) for layer in layers}


def _weighted(sums: dict[str, _Sums], shares: dict[str, float]) -> dict[str, Tensor]:
    """The moments of all kinds; a kind without inputs leaves its share to the others."""
    present = [kind for kind in sums if sums[kind].count and shares[kind]]
    if "text" not in present:
        raise DataError("mom2_dataset: the texts have no tokens in this model's vocabulary")
    whole = sum(shares[kind] for kind in present)
    parts = [(shares[kind] / whole / sums[kind].count, sums[kind]) for kind in present]
    return {
        "moment": torch.stack([share * part.moment for share, part in parts]).sum(0),
        "mean": torch.stack([share * part.total for share, part in parts]).sum(0),
        "sink": sums["sink"].total / max(1, sums["sink"].count),
    }
