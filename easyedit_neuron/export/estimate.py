"""What the forms would take on a model of other dimensions, from shapes alone: ``python -m easyedit_neuron.export.estimate``."""

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
        return FLOAT32 * min(self.rank, self.rows, self.columns) * sum(self.shape)

    def sparse(self, itemsize: int) -> int:
        """Bytes of the touched rows or columns, ``itemsize`` bytes per weight."""
        d_out, d_in = self.shape
        return min(self.rows * (d_in * itemsize + 8), self.columns * (d_out * itemsize + 8))


LLAMA_3_8B = {"parameters": 8_030_261_248, "d_model": 4096, "d_ff": 14336, "layers": 32}
"""Of its config.json (meta-llama/Meta-Llama-3-8B)."""


def llama_3_8b(method: str, edits: int) -> list[Touched]:
    """The parameters that ``edits`` edits touch, one after the other, with the shipped hyperparameters.

    NMKE, MEMIT: five down projections, rank 1 per edit; a mask of 0.4 of the neurons for NMKE, none for MEMIT. FiNE: 10 columns of
    down projections per edit (top 5 for an object of two tokens), never the same twice. KNE: a set of rows that 1% of the
    parameters are in, of the 32 down projections, the same for all edits.
    """
    d_model, d_ff, layers = (LLAMA_3_8B[name] for name in ("d_model", "d_ff", "layers"))
    shape = (d_model, d_ff)
    if method in ("MEMIT", "NMKE"):
        columns = d_ff if method == "MEMIT" else round(0.4 * d_ff)
        return [Touched(shape, edits, d_model, columns)] * 5
    if method == "FiNE":
        each = min(10 * edits / layers, d_ff)
        return [Touched(shape, round(each) or 1, d_model, round(each) or 1)] * min(layers, 10 * edits)
    rows = round(0.01 * LLAMA_3_8B["parameters"] / d_ff / layers)
    return [Touched(shape, rows, rows, d_ff)] * layers


def table(edits: Sequence[int] = (1, 10, 100, 1000), itemsize: int = 2) -> str:
    """Markdown: MB (10^6 bytes) of adapter and sparse file beside the bfloat16 weights."""
    lines = ["| Llama-3-8B | edits | adapter, MB | sparse file, MB |", "|---|---|---|---|"]
    for method in ("FiNE", "KNE", "NMKE", "MEMIT"):
        for count in edits:
            touched = llama_3_8b(method, count)
            adapter, sparse = sum(t.adapter() for t in touched), sum(t.sparse(itemsize) for t in touched)
            lines.append(f"| {method} | {count:,} | {adapter / 1e6:,.1f} | {sparse / 1e6:,.1f} |")
    lines.append(f"| whole model (bfloat16) | | {itemsize * LLAMA_3_8B['parameters'] / 1e6:,.0f} | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
