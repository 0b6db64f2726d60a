"""Sequential edits of tiny-world by EasyEdit's methods and by ours: runs of the command, and one table of
all.

    EASYEDIT_HOME=... python -m benchmarks.baselines --edits 100

A run's folder is FOLDER/NAME-EDITS. A finished run is left alone, an interrupted one is resumed. Rel and Gen
are token accuracies of prompts and rephrasings; the next two are the shares of tokens that are the untouched
model's (neighbours of the subject, other facts of it); retained is the share of 1,000 facts never edited that
are still right. All are measured on the model after all edits so far.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from .timing import markdown_row

CHECKPOINTS = (10, 100, 500)
MEASURED = [
    "evaluation.exact_match=false",
    "evaluation.ability=[]",
    "evaluation.immediate=false",
    "evaluation.fluency=0",
    "evaluation.perplexity=0",
    f"runner.checkpoints={[*CHECKPOINTS]}".replace(" ", ""),
    "runner.report=false",
    "runner.keep_weights=false",
    "--quiet",
]
THEIRS = {
    "FT": ["method.alg=FT"],
    "FT-L": ["method.alg=FT", "+method.objective_optimization=prompt_last"],
    "LoRA": ["method.alg=LoRA"],
    "AdaLoRA": ["method.alg=LoRA", "+method.lora_type=adalora"],
    **{
        name: [f"method.alg={name}"] for name in ("KN", "ROME", "MEMIT", "PMET", "AlphaEdit", "WISE", "GRACE")
    },
}
OURS = {
    "FT": ["method=ft"],
    "ROME": ["method=rome"],
    "MEMIT": ["method=memit"],
    "AlphaEdit": ["method=alphaedit"],
    "NMKE": ["method=nmke"],
    "NMKE-solve": ["method=nmke", "method.mask_stage=solve"],
    "PNKE": ["method=pnke"],
    "FiNE": ["method=fine"],
    "KNE": ["method=kne"],
}
RUNS = {f"EasyEdit-{name}": ["method=easyedit", *words] for name, words in THEIRS.items()} | OURS
COLUMNS = ("Rel", "Gen", "neighbours", "same subject", "retained", "s/edit")


def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 where a run failed (the others are made nevertheless)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--edits", type=int, nargs="*", default=[100], help="lengths of the runs (default: 100)"
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--folder", type=Path, default=Path("results/baselines"))
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of what there is")
    args = parser.parse_args(argv)
    failed = 0
    for edits in () if args.table else args.edits:
        for name in args.only:
            folder = args.folder / f"{name}-{edits}"
            folder.mkdir(parents=True, exist_ok=True)
            words = [*RUNS[name], *MEASURED, f"edits={edits}", f"output_dir={folder}"]
            command = [sys.executable, "-m", "easyedit_neuron", *words]
            # EasyEdit's methods print much.
            with open(args.folder / f"{name}-{edits}.log", "w", encoding="utf-8") as log:
                process = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
            failed |= process.returncode != 0
    print(markdown_row(["", "edits", *COLUMNS]) + "\n" + "|---" * (len(COLUMNS) + 2) + "|")
    for name in args.only:
        label = name.replace("EasyEdit-", "EasyEdit's ") if name not in THEIRS else f"our {name}"
        for edits, cells in sorted(rows(args.folder, name).items()):
            print(markdown_row([label, edits, *cells]))
            label = ""
    return failed


def rows(folder: Path, name: str) -> dict[int, list[str]]:
    """Cells by checkpoint of a method's runs, from the longest run that has the checkpoint."""
    paths = {}
    for path in folder.glob(f"{name}-*/checkpoints.jsonl"):
        length = path.parent.name.removeprefix(f"{name}-")
        if length.isdigit():
            paths[int(length)] = path
    cells: dict[int, list[str]] = {}
    for _, path in sorted(paths.items()):
        for line in path.read_text(encoding="utf-8").splitlines():
            checkpoint = json.loads(line)
            if checkpoint["edits"] in CHECKPOINTS:
                cells[checkpoint["edits"]] = _cells(checkpoint)
    return cells


def _cells(checkpoint: dict) -> list[str]:
    final, locality = checkpoint["final"], checkpoint["final"]["locality"]
    shares = (
        final["rewrite_acc"],
        final["rephrase_acc"],
        locality["Neighborhood_acc"],
        locality["Relation_Specificity_acc"],
        final["retained"],
    )
    failed = f" ({checkpoint['failed']} failed)" if checkpoint["failed"] else ""
    spent = checkpoint["seconds"]["edit"] / checkpoint["edits"]
    return [*(f"{share:.3f}" for share in shares), f"{spent:.1f}{failed}"]


if __name__ == "__main__":
    sys.exit(main())
