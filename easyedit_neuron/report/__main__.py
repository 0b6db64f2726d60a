"""``python -m easyedit_neuron.report``: a page, pictures and a table of run folders."""

import argparse
import sys
from pathlib import Path

from ..errors import NeuronEditError
from ..utils.command import Parser
from . import figures
from .page import write_page, write_pictures
from .runs import read_runs
from .table import as_text, write_table


def main(argv: list[str] | None = None) -> int:
    """Run with these arguments (default: the process's); 0, or 2 and one line on stderr for wrong input."""
    description = "An HTML page, PNG pictures and a table of finished and unfinished runs."
    parser = Parser(prog="easyedit_neuron.report", description=description)
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="a run's folder, or one with runs below it (a sweep)")
    out_help = "the page (default: report.html in FOLDER, or in the current folder if there are several)"
    add("--out", type=Path, metavar="FILE", help=out_help)
    add("--png", type=Path, metavar="DIR", help="also write one picture per section")
    add("--table", type=Path, metavar="FILE", help="also write the table over all runs: .csv, .md or .txt")
    args = parser.parse_args(argv)
    try:
        _report(args)
    except NeuronEditError as problem:
        parser.error(str(problem))
    return 0


def _report(args: argparse.Namespace) -> None:
    runs = read_runs(args.folders)
    if args.png:
        figures.require()
    elif not figures.available():
        sys.stderr.write(f"easyedit_neuron.report: without plots: {figures.INSTALL}\n")
    out = args.out or (Path(args.folders[0]) if len(args.folders) == 1 else Path()) / "report.html"
    paths = [write_page(runs, out)]
    if args.png:
        paths += write_pictures(runs, args.png)
    if args.table:
        paths.append(write_table(runs, args.table))
    sys.stdout.write(as_text(runs) + "".join(f"\n{path}" for path in paths) + "\n")


if __name__ == "__main__":
    sys.exit(main())
