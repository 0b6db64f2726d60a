"""Edit facts of zsRE: EasyEdit's run_zsre_llama2.py for NMKE, PNKE, FiNE, KNE and the baselines.

    python examples/run_nmke_zsre.py                     ten edits of tiny-world with the shipped model
    python examples/run_nmke_zsre.py --editing_method FiNE --hparams_dir hparams/FiNE/llama3-8b.yaml \\
        --data_dir ../data/zsre --ds_size 100
"""

import argparse
import json
from pathlib import Path

from easyedit_neuron import BaseEditor, data
from easyedit_neuron.evaluation import summarize
from easyedit_neuron.host import load_hparams

FILE = "zsre_mend_eval_portability_gpt4.json"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--editing_method", default="NMKE")
    parser.add_argument(
        "--hparams_dir", help="a file of hyperparameters, or a shipped name (default: METHOD/tiny-llama)"
    )
    parser.add_argument(
        "--data_dir", default="tiny-world", help=f"folder with {FILE}, or a file of that shape"
    )
    parser.add_argument("--ds_size", default=10, type=int, help="edits, the first of the file (10)")
    parser.add_argument("--metrics_save_dir", default="./output")
    parser.add_argument(
        "--sequential_edit", action="store_true", help="keep every edit (else each is undone once measured)"
    )
    args = parser.parse_args()

    folder = Path(args.data_dir)
    requests = data.load(folder / FILE if folder.is_dir() else args.data_dir, "zsre", args.ds_size)
    hparams = load_hparams(args.editing_method, args.hparams_dir or f"{args.editing_method}/tiny-llama")

    editor = BaseEditor.from_hparams(hparams)
    metrics, edited_model, _ = editor.edit_requests(requests, sequential_edit=args.sequential_edit)

    results = Path(args.metrics_save_dir) / f"{args.editing_method}_results.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(metrics, indent=4))
    print("before:", summarize(metrics, "pre"))
    print("after: ", summarize(metrics, "post"))
    print(results)
