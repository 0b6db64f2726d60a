"""What z* can do at best: it is searched for under several settings and put in at the subject's last token.

``python -m easyedit_neuron.studies.target_values --model smollm2-135m-instruct --method Lasting --data FILE
--settings "layers=[8]" "layers=[12]" "layers=[12] v_noise=0.3"``

No weight changes. Rel and Gen are teacher-forced token accuracies with z* in place, with 95% bootstrap
intervals over records, and their differences to the first setting, record by record.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from torch import Tensor

from .. import data
from ..arch.view import ModelView
from ..errors import HparamsError
from ..evaluation.intervals import mean_interval, paired_difference
from ..locate_then_edit.compute_z import TargetValue, compute_z
from ..locate_then_edit.context_templates import contexts_of
from ..utils.lists import mean
from ..utils.progress import progress
from .command import Study, add_data, add_model, hparams_of, load
from .output import Result, Table
from .patching import Probe, SubjectPrompts, patched_accuracy

BATCH = 10


@dataclass(frozen=True)
class Ceiling:
    """Rel and Gen of every record with z* put in (None without a rephrasing that holds the subject), and CPU
    seconds of the search for an edit."""

    setting: str
    rel: list[float | None]
    gen: list[float | None]
    seconds: float


def parse_setting(text: str) -> dict[str, Any]:
    """Fields of ``name=value`` pairs that are divided by blanks; the values are YAML."""
    pairs = [part.partition("=") for part in text.split()]
    if any(not (name and sign) for name, sign, _ in pairs):
        raise HparamsError(f"--settings {text!r}: give fields, as in 'layers=[12] v_noise=0.3'")
    return {name: yaml.safe_load(value) for name, _, value in pairs}


def measure_ceiling(view: ModelView, tok, requests: Sequence[dict], hparams, setting: str = "") -> Ceiling:
    """Search for the z* of every request on the untouched model, and put them in one after the other."""
    layer, probe = hparams.layers[-1], Probe.of(tok, requests, contexts_of(view.model, tok, hparams))
    contexts = [context for group in probe.contexts for context in group]
    targets: list[TargetValue] = []
    started = time.process_time()
    with progress(f"z* {setting}".strip(), len(requests), "edit") as shown:
        for first in range(0, len(requests), BATCH):
            batch = probe.requests[first : first + BATCH]
            targets += compute_z(view, tok, batch, hparams, contexts, layer).targets
            shown.add(len(batch))
    seconds = (time.process_time() - started) / len(requests)
    z = torch.stack([target.value for target in targets], 1)
    rel, gen = (_shares(view, prompts, layer, z) for prompts in (probe.rewrite, probe.rephrase))
    return Ceiling(setting, rel, gen, seconds)


def _shares(view: ModelView, prompts: SubjectPrompts, layer: int, z: Tensor) -> list[float | None]:
    """Of each request the mean over its texts."""
    by_request: list[list[float]] = [[] for _ in range(z.shape[1])]
    for number, share in zip(prompts.request, patched_accuracy(view, prompts, layer, z)):
        by_request[number].append(share)
    return [mean(shares) for shares in by_request]


def rows_of(ceilings: Sequence[Ceiling]) -> list[dict[str, Any]]:
    """A row for each setting: means, intervals, differences to the first one."""
    rows = []
    for ceiling in ceilings:
        row: dict[str, Any] = {"setting": ceiling.setting or "as shipped", "edits": len(ceiling.rel)}
        for name in ("rel", "gen"):
            values, first = getattr(ceiling, name), getattr(ceilings[0], name)
            interval, difference = mean_interval(values), paired_difference(values, first)
            row[name] = interval and interval[0]
            row[f"{name}_interval"] = interval and f"{interval[1]:.3f}-{interval[2]:.3f}"
            row[f"{name}_difference"] = difference and "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference)
        rows.append(row | {"seconds": ceiling.seconds})
    return rows


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, 60)
    parser.add_argument("--part", default="all", choices=("all", "choose", "report"), help="of the data")
    parser.add_argument("--method", default="MEMIT", help="whose hyperparameters are the start (MEMIT)")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=[""],
        metavar="FIELDS",
        help="'layers=[12] v_noise=0.3': changed fields; z* is for the last of the layers",
    )


def measure(args: argparse.Namespace) -> Result:
    changes = [parse_setting(text) for text in args.settings]
    start = hparams_of(args.method, args.model, None, **({"device": args.device} if args.device else {}))
    settings = [start.override(change, source="--settings") for change in changes]
    requests = data.load(args.data, size=args.edits, rephrasings="all", part=args.part, invalid="skip")
    studied = load(args)
    ceilings = [
        measure_ceiling(studied.view, studied.tok, requests, hparams, text)
        for hparams, text in zip(settings, args.settings)
    ]
    note = f"z* of {len(requests)} edits of {args.data}, put in at the subject's last token of {args.model}"
    return Result(
        "target_values", "What z* can do", note, [], [Table("target_values", note, rows_of(ceilings))]
    )


main = Study("target_values", __doc__ or "", _add_arguments, measure).main

if __name__ == "__main__":
    raise SystemExit(main())
