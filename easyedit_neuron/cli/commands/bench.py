"""Compare methods on sequences of edits. "lasting" makes the edits of real records one after another by every
method, with the runner, and measures all edits so far after 10, 100, 300 and 1,000 of them. Rows, tables and
pictures come from every run that is finished; the same command continues an interrupted one."""

import argparse
import re
from pathlib import Path

from ... import resources
from ...bench.cells import Cell, run_cell
from ...bench.pictures import write_pictures
from ...bench.records import REAL_WORLD, Source, left_out
from ...bench.rows import CellRows, read_all
from ...bench.tables import page
from ...errors import NeuronEditError
from ...report import figures
from ...utils.io import write_text
from ..output import show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bench", choices=("lasting",), help="which bench")
    parser.add_argument("--out", type=Path, default=Path("bench-lasting"), help="folder of the runs")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="that has shipped settings")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[REAL_WORLD],
        metavar="NAME=FILE",
        help="files in a shape that the readers know, or real-world (the default)",
    )
    parser.add_argument("--left-out", type=Path, metavar="FILE", help="JSON list of case_id not to be used")
    parser.add_argument(
        "--methods",
        nargs="*",
        default=[],
        metavar="METHOD",
        help="of ours or EasyEdit:GRACE; 'NMKE method.mask_stage=solve' is a variant; none: no runs",
    )
    parser.add_argument("--edits", type=int, default=300, help="sequential edits (300)")
    parser.add_argument("--batch-size", type=int, default=10, help="of methods that have batches (10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="orders of the records (0)")
    parser.add_argument("--neighbors", type=int, default=5, help="neighbours asked of a record (5)")
    parser.add_argument("--retained", type=Path, metavar="FILE", help="facts that the model may know")
    parser.add_argument("--text", type=Path, metavar="FILE", help="text for perplexity, a passage a line")
    parser.add_argument(
        "--settings", nargs="*", default=[], metavar="NAME=VALUE", help="of every run: evaluation.fluency=0"
    )
    parser.add_argument("--rows", type=Path, metavar="DIR", help="folder of the rows; default: OUT/rows")
    parser.add_argument("--pages", type=Path, metavar="DIR", help="folder of tables, pictures; default: OUT")
    parser.add_argument("--baseline", default="AlphaEdit", help="others are compared with it (AlphaEdit)")


def run(args: argparse.Namespace) -> None:
    figures.require()
    rows_folder, pages = args.rows or args.out / "rows", args.pages or args.out
    if args.methods:
        resources.require_model(args.model)
    excluded = left_out(args.left_out) if args.left_out else frozenset()
    failed = []
    for source in [_source(text, args, excluded) for text in args.data]:
        for seed in args.seeds:
            numbers = args.edits, args.batch_size, seed
            cells = [Cell.of(text, source.name, *numbers) for text in args.methods]
            for cell in cells:
                show(f"{cell.name}\n")
                folder = run_cell(cell, source, args.model, args.out, cells, args.settings)
                if folder is None:
                    failed.append(cell.name)
                else:
                    CellRows.of_run(cell, folder).write(rows_folder)
    rows = read_all(rows_folder)
    if rows:
        pages.mkdir(parents=True, exist_ok=True)
        write_text(pages / "lasting-tables.md", page(rows, args.baseline))
        paths = [pages / "lasting-tables.md", *write_pictures(rows, pages)]
        show("".join(f"{path}\n" for path in paths))
    if failed:
        raise NeuronEditError(f"these cells failed, see above: {', '.join(failed)}")
    if not rows:
        raise NeuronEditError(f"{rows_folder} holds no rows; --methods names what to run")


def _source(text: str, args: argparse.Namespace, excluded: frozenset[int | str]) -> Source:
    name, _, file = text.partition("=")
    if not file and name != REAL_WORLD:
        raise NeuronEditError(f"--data {text}: give a file, counterfact=FILE; without one: {REAL_WORLD}")
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):  # part of the names of files
        raise NeuronEditError(f"--data {text}: {name!r} is no name of letters and digits")
    path = Path(file).expanduser().resolve() if file else None
    own = {key: getattr(args, key).resolve() for key in ("retained", "text") if getattr(args, key)}
    return Source(name, path, args.out.resolve() / "records", excluded, args.neighbors, **own)
