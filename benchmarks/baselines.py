"""Sequential edits of tiny-world by EasyEdit's methods and by ours, one run of the command after another, and
one table of all.

    EASYEDIT_HOME=... python -m benchmarks.baselines --edits 100

A run's folder is FOLDER/NAME-EDITS; one that is there is resumed, or left alone when it is finished. Rel and
Gen are token accuracies of prompts and rephrasings, the next two the shares of tokens that are the untouched
model's (neighbours of the subject, other facts of it), retained the share of 1,000 facts never edited that
are still right: all of them on the model after all edits so far.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

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
RUNS = {f"EasyEdit-{name}": ["method=easyedit", *given] for name, given in THEIRS.items()} | OURS
COLUMNS = ("Rel", "Gen", "neighbours", "same subject", "retained", "s/edit")


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 1 where a run failed (the others are made all the same)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--edits", type=int, nargs="*", default=[100], help="lengths of the runs (default: 100)"
    )
    parser.add_argument("--only", nargs="*", metavar="NAME", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--folder", type=Path, default=Path("results/baselines"))
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of what there is")
    args = parser.parse_args(arguments)
    failed = 0
    for edits in () if args.table else args.edits:
        for name in args.only:
            folder = args.folder / f"{name}-{edits}"
            folder.mkdir(parents=True, exist_ok=True)
            command = [
                sys.executable,
                "-m",
                "easyedit_neuron",
                *RUNS[name],
                *MEASURED,
                f"edits={edits}",
                f"output_dir={folder}",
            ]
            with open(
                args.folder / f"{name}-{edits}.log", "w", encoding="utf-8"
            ) as log:  # EasyEdit's methods talk a lot
                failed |= (
                    subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode != 0
                )
    print("| | edits | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    for name in args.only:
        label = name.replace("EasyEdit-", "EasyEdit's ") if name not in THEIRS else f"our {name}"
        for edits, cells in sorted(rows(args.folder, name).items()):
            print(f"| {label} | {edits} | " + " | ".join(cells) + " |")
            label = ""
    return failed


def rows(folder: Path, name: str) -> dict[int, list[str]]:
    """A line of the table for every checkpoint of a method's runs: of its longest run that has it."""
    found: dict[int, list[str]] = {}
    runs = [
        path
        for path in folder.glob(f"{name}-*/checkpoints.jsonl")
        if path.parent.name.removeprefix(f"{name}-").isdigit()
    ]
    for path in sorted(runs, key=lambda path: int(path.parent.name.rpartition("-")[2])):
        for line in path.read_text(encoding="utf-8").splitlines():
            checkpoint = json.loads(line)
            final, edits = checkpoint["final"], checkpoint["edits"]
            if edits in CHECKPOINTS:
                kinds = final["locality"]
                shares = (
                    final["rewrite_acc"],
                    final["rephrase_acc"],
                    kinds["Neighborhood_acc"],
                    kinds["Relation_Specificity_acc"],
                    final["retained"],
                )
                failed = f" ({checkpoint['failed']} failed)" if checkpoint["failed"] else ""
                found[edits] = [
                    *(f"{share:.3f}" for share in shares),
                    f"{checkpoint['seconds']['edit'] / edits:.1f}{failed}",
                ]
    return found


if __name__ == "__main__":
    sys.exit(main())
