"""What the forms would take on a model of other dimensions, from shapes alone: ``python -m
easyedit_neuron.export.estimate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

FLOAT32 = 4


@dataclass(frozen=True)
class Touched:
    """One parameter and what a run of edits does to it.

    Attributes:
        shape: (d_out, d_in).
        rank: of the edits' factors together.
        rows, columns: how many are touched.
    """

    shape: tuple[int, int]
    rank: int
    rows: int
    columns: int

    def adapter(self) -> int:
        """Bytes of the factors in an adapter."""
        return FLOAT32 * min(self.rank, *self.shape) * sum(self.shape)

    def sparse(self, itemsize: int) -> int:
        """Bytes of the touched rows or columns, ``itemsize`` bytes per weight."""
        d_out, d_in = self.shape
        return min(self.rows * (d_in * itemsize + 8), self.columns * (d_out * itemsize + 8))


LLAMA_3_8B = {"parameters": 8_030_261_248, "d_model": 4096, "d_ff": 14336, "layers": 32}
"""Of its config.json (meta-llama/Meta-Llama-3-8B)."""


def llama_3_8b(method: str, edits: int) -> list[Touched]:
    """The parameters that ``edits`` edits touch, one after the other, with the shipped hyperparameters.

    NMKE, MEMIT: five down projections, rank 1 per edit; a mask of 0.4 of the neurons for NMKE, none for
        MEMIT. FiNE: 10 columns
    of down projections per edit (top 5 for an object of two tokens), never the same twice, in all layers but
    the last three. KNE: rows with 1% of the parameters, of all down projections, the same for all edits
    (``localize: shared``).
    """
    d_model, d_ff, layers = (LLAMA_3_8B[name] for name in ("d_model", "d_ff", "layers"))
    shape = (d_model, d_ff)
    if method in ("MEMIT", "NMKE"):
        return [Touched(shape, edits, d_model, d_ff if method == "MEMIT" else round(0.4 * d_ff))] * 5
    if method == "FiNE":
        modules = min(layers - 3, 10 * edits)
        each = round(10 * edits / modules)
        return [Touched(shape, each, d_model, each)] * modules
    rows = round(0.01 * LLAMA_3_8B["parameters"] / d_ff / layers)
    return [Touched(shape, rows, rows, d_ff)] * layers


def records(method: str, edits: int) -> int:
    """Bytes of the tensors of these edits' records: factors with mask and key, or vectors."""
    d_model, d_ff = LLAMA_3_8B["d_model"], LLAMA_3_8B["d_ff"]
    if method in ("MEMIT", "NMKE"):
        return edits * 5 * (FLOAT32 * (d_model + 2 * d_ff) + (d_ff if method == "NMKE" else 0))
    if method == "FiNE":
        return edits * 10 * FLOAT32 * d_model
    return edits * sum(FLOAT32 * touched.rows * d_ff for touched in llama_3_8b("KNE", 1))


def table(edits: Sequence[int] = (1, 10, 100, 1000), itemsize: int = 2) -> str:
    """Markdown: MB (10^6 bytes) of every form beside the bfloat16 weights."""
    lines = ["| Llama-3-8B | edits | records, MB | adapter, MB | sparse file, MB |", "|---|---|---|---|---|"]
    for method in ("FiNE", "KNE", "NMKE", "MEMIT"):
        for count in edits:
            touched = llama_3_8b(method, count)
            sizes = (
                records(method, count),
                sum(t.adapter() for t in touched),
                sum(t.sparse(itemsize) for t in touched),
            )
            lines.append(
                f"| {method} | {count:,} | " + " | ".join(f"{size / 1e6:,.1f}" for size in sizes) + " |"
            )
    lines.append(f"| whole model (bfloat16) | | | | {itemsize * LLAMA_3_8B['parameters'] / 1e6:,.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
