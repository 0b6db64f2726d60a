"""Edit facts of CounterFact and look at what is left of them: EasyEdit's run_AlphaEdit_editing.py for our
methods too.

    python examples/run_counterfact.py --sequential_edit
    python examples/run_counterfact.py --editing_method PNKE --hparams_dir hparams/PNKE/gpt2-xl.yaml \\
        --data_dir ../data/counterfact-edit.json --ds_size 100 --sequential_edit

The file may be EasyEdit's flat one or that of ROME and MEMIT (multi_counterfact.json); its keys tell which.
"""

import argparse
import json
from pathlib import Path

from easyedit_neuron import BaseEditor, data
from easyedit_neuron.evaluation import evaluate_all, summarize
from easyedit_neuron.host import load_hparams

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--editing_method", default="NMKE")
    parser.add_argument(
        "--hparams_dir", help="a file of hyperparameters, or a shipped name (default: METHOD/tiny-llama)"
    )
    parser.add_argument("--data_dir", default="tiny-world", help="the JSON file")
    parser.add_argument("--ds_size", default=10, type=int, help="edits, the first of the file (10)")
    parser.add_argument("--output_dir", "--metrics_save_dir", default="./outputs")
    parser.add_argument(
        "--sequential_edit", action="store_true", help="keep every edit (else each is undone once measured)"
    )
    args = parser.parse_args()

    requests = data.load(
        args.data_dir, "counterfact" if args.data_dir == "tiny-world" else None, args.ds_size
    )
    hparams = load_hparams(args.editing_method, args.hparams_dir or f"{args.editing_method}/tiny-llama")

    editor = BaseEditor.from_hparams(hparams)
    metrics, edited_model, _ = editor.edit_requests(requests, sequential_edit=args.sequential_edit)
    print("before:", summarize(metrics, "pre"))
    print("right after each edit:", summarize(metrics, "post"))
    if (
        args.sequential_edit
    ):  # EasyEdit stops here; an edit that a later one has overwritten counts above, and not below
        untouched = [metric["pre"]["locality"] for metric in metrics]
        for metric, final in zip(
            metrics, evaluate_all(edited_model, editor.tok, requests, untouched, hparams=hparams)
        ):
            metric["final"] = final
        print("all edits in the end: ", summarize(metrics, "final"))

    run = f"{args.editing_method}_N={args.ds_size}_Sequential={args.sequential_edit}"
    name = f"{Path(editor.model_name).name}_{run}.json"
    results = Path(args.output_dir) / name
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(metrics, indent=4))
    print(results)
