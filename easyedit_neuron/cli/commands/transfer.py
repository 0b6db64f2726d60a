"""``easyedit-neuron export`` and ``easyedit-neuron import``: edits of a run in forms that others can use, and
back."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..report import show
from .common import add_model, chosen, load_base, log_folder

FORMS = ("peft", "sparse", "merged")


def export(argv: list[str]) -> int:
    """``export RUN_OR_LOG --to peft|sparse|merged --out DIR``, or ``--sizes``."""
    parser = argparse.ArgumentParser(
        prog="easyedit-neuron export",
        description="Writes the edits of a run's log that are in its "
        "weights as a PEFT adapter, a sparse file of the rows that they touch, or a checkpoint.",
    )
    parser.add_argument("log", metavar="RUN_OR_LOG", help="folder of a run, or of a log")
    parser.add_argument("--to", choices=FORMS, help="form")
    parser.add_argument("--out", metavar="DIR", help="folder that does not exist yet")
    parser.add_argument(
        "--sizes", action="store_true", help="write nothing; say how many bytes every form takes"
    )
    parser.add_argument(
        "--edits", metavar="3,5-9", help="only these (default: all that have not been taken back)"
    )
    parser.add_argument(
        "--max-rank", type=int, metavar="N", help="peft: cut every change to rank N, and say what is lost"
    )
    parser.add_argument(
        "--energy",
        type=float,
        metavar="SHARE",
        help="peft: cut to the least rank with this share of the squared singular values",
    )
    add_model(parser, "base model (default: the one that the log names)")
    given = parser.parse_args(argv)
    if not given.sizes and (given.to is None or given.out is None):
        parser.error("--to and --out are needed, or --sizes")
    if given.to != "peft" and not given.sizes and (given.max_rank is not None or given.energy is not None):
        parser.error("--max-rank and --energy are for --to peft")
    return _export(given)


def _export(given: argparse.Namespace) -> int:
    from ...editlog import EditLog
    from ...export import export_merged, export_peft, export_sparse, size_table, sizes
    from ...export.adapter import check_truncation
    from ...export.side_file import refuse_existing

    check_truncation(given.max_rank, given.energy)
    log = EditLog(log_folder(given.log))
    ids = chosen(log.ids, given.edits)
    if not given.sizes:
        refuse_existing(Path(given.out))
    model, tok = load_base(
        given.model or log.base.name, given.device, {about["dtype"] for about in log.base.weights.values()}
    )
    log.base.check(model)
    records, named = [log[number] for number in ids], {"base": given.model or log.base.name, "ids": ids}
    if given.sizes:
        show(size_table(sizes(records, model, given.max_rank, given.energy)))
        return 0
    if given.to == "peft":
        made = export_peft(
            records, model, given.out, max_rank=given.max_rank, energy=given.energy, tok=tok, **named
        )
    elif given.to == "sparse":
        made = export_sparse(records, model, given.out, **named)
    else:
        made = export_merged(records, model, tok, given.out, **named)
    show(_told(made, len(ids)))
    return 0


def import_(argv: list[str]) -> int:
    """``import FILE_OR_DIR --model BASE --out DIR``."""
    parser = argparse.ArgumentParser(
        prog="easyedit-neuron import",
        description="Puts an exported adapter or sparse file into "
        "its base model and writes the edited checkpoint.",
    )
    parser.add_argument("path", metavar="FILE_OR_DIR", help="what export wrote with --to peft or --to sparse")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder that does not exist yet")
    parser.add_argument(
        "--take-off", action="store_true", help="sparse: the model has these edits, write it without them"
    )
    add_model(parser, "base model (default: the one that the export names)")
    given = parser.parse_args(argv)

    from ...export import import_edits, read_side_file
    from ...export.side_file import refuse_existing

    refuse_existing(Path(given.out))
    _, about = read_side_file(given.path)
    model, tok = load_base(given.model or about["base"]["name"], given.device, {about["base"]["dtype"]})
    made = import_edits(given.path, model, tok, given.out, take_off=given.take_off)
    what = "taken off" if given.take_off else "put in"
    show(f"{_edits(len(about['edits']))} {what}: {made.folder} ({made.size:,} bytes)\n")
    return 0


def _edits(count: int) -> str:
    return f"{count} edit{'' if count == 1 else 's'}"


def _told(made, count: int) -> str:
    parameters = made.side_file["parameters"]
    lines = [
        f"{_edits(count)} as {made.side_file['kind']}: {made.folder} ({made.size:,} bytes, {len(parameters)} parameters)"
    ]
    if made.side_file["kind"] == "peft":
        worst, about = max(parameters.items(), key=lambda item: item[1]["truncation"])
        lost = "nothing is lost"
        if about["truncation"]:
            lost = f"at most {about['truncation']:.2%} of a weight's change is lost, in {worst}"
        ranks = [about["rank"] for about in parameters.values()]
        lines.append(f"ranks {min(ranks)} to {max(ranks)}; {lost}")
        lines.append(
            f"the edited model's weights, rounded to {made.side_file['base']['dtype']}, are within "
            f"{max(about['deviation'] for about in parameters.values()):.1e} of their change from it"
        )
        if "rewrite_acc" in made.side_file:
            answers = made.side_file["rewrite_acc"]
            lines.append(
                f"rewrite_acc {answers['edited']:.3f} with the whole edits, {answers['cut']:.3f} with the cut adapter"
            )
        lines.append(f"load it: peft.PeftModel.from_pretrained(model, {str(made.folder)!r})")
    return "\n".join(lines) + "\n"
