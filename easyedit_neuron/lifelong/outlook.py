"""What a run says about its edits before it makes them."""

import logging
from typing import Any

from ..arch.view import ModelView
from ..edits.request import prepare
from ..locate_then_edit.forecast import Clash, Forecast, forecast
from ..locate_then_edit.hparams import PathHyperParams
from ..statistics.cache import Statistics
from .method import ModelEditor
from .stream import Stream

LOG = logging.getLogger(__name__)
TENTH_LOST = 0.086
"""Spill at which SmolLM2 has lost a tenth of the facts that it knew (docs/results/forecast.md)."""
SHOWN = 3


def outlook(editor: ModelEditor, stream: Stream) -> Forecast | None:
    """The forecast for a stream on the untouched model; None for methods that do not solve for keys,
    and for text without names."""
    hparams = editor.hparams
    if not isinstance(hparams, PathHyperParams):
        return None
    view = ModelView.of(editor.model, **hparams.module_overrides())
    statistics = Statistics(view, editor.tok, hparams)
    if not statistics.names:
        LOG.info("no forecast: %s has no names", hparams.mom2_dataset)
        return None
    return forecast(view, editor.tok, prepare(stream.requests), hparams, statistics)


def sentences(result: Forecast, stream: Stream) -> list[str]:
    """The forecast in words."""
    count, spill = max(result.spill.items())
    until = result.edits_until(TENTH_LOST)
    lines = [
        f"forecast: {count:,} edits change what other names give by {spill:.2f} of one edit's own change"
        + (
            ""
            if until is None
            else f"; SmolLM2 loses a tenth of its facts at {TENTH_LOST}, here after {until:,}"
        )
    ]
    if result.clashes:
        pairs = [_words(pair, stream) for pair in result.clashes[:SHOWN]]
        more = len(result.clashes) - len(pairs)
        lines.append(
            "forecast: edits with nearly the same key, which disturb each other: "
            + ", ".join(pairs)
            + (f" and {more:,} more pairs" if more else "")
        )
    return lines


def to_json(result: Forecast) -> dict[str, Any]:
    """``forecast.json`` of a run."""
    clashes = [[pair.first, pair.second, round(pair.cosine, 4)] for pair in result.clashes]
    return {"spill": {str(count): value for count, value in result.spill.items()}, "clashes": clashes}


def _words(pair: Clash, stream: Stream) -> str:
    subjects = (stream.requests[position]["subject"] for position in (pair.first, pair.second))
    return f"{pair.first} and {pair.second} ({', '.join(subjects)})"
