"""Edit facts of KnowEdit and print its four numbers: EasyEdit's run_knowedit_llama2.py for our methods too.

    python examples/run_knowedit.py
    python examples/run_knowedit.py --editing_method KNE --hparams_dir hparams/KNE/llama3-8b.yaml --datatype
    recent \\
        --data_dir ../KnowEdit/benchmark/wiki_recent/recent_test.json --ds_size 100 --pre_file recent_pre.json
        --test_generation
"""

import argparse
import json
from pathlib import Path

from easyedit_neuron import BaseEditor, data
from easyedit_neuron.host import load_hparams


def percent(per_edit):
    """Mean over the edits of the mean over each one's kinds of probes; an edit without probes does not
    count."""
    means = [sum(kinds) / len(kinds) for kinds in per_edit if kinds]
    return f"{100 * sum(means) / len(means):.2f}" if means else "none"


def kinds(metric, section):
    """An edit's accuracy for each kind of probe."""
    accuracies = [values for name, values in metric["post"][section].items() if name.endswith("_acc")]
    return [sum(values) / len(values) for values in accuracies if values]


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
    parser.add_argument("--metrics_save_dir", default="./output")
    parser.add_argument(
        "--datatype", default="zsre", help="counterfact, recent, zsre or wikibio: for the name of the results"
    )
    parser.add_argument(
        "--pre_file", type=Path, help="metrics before the edits: read if the file is there, else written"
    )
    parser.add_argument(
        "--test_generation",
        action="store_true",
        help="fluency too (slow; EasyEdit's editor needs NLTK's punkt)",
    )
    args = parser.parse_args()

    requests = data.load(args.data_dir, "knowedit", args.ds_size, invalid="skip")
    hparams = load_hparams(args.editing_method, args.hparams_dir or f"{args.editing_method}/tiny-llama")
    pre_edit = json.loads(args.pre_file.read_text()) if args.pre_file and args.pre_file.exists() else None

    editor = BaseEditor.from_hparams(hparams)
    metrics, edited_model, _ = editor.edit_requests(
        requests, pre_file=args.pre_file, pre_edit=pre_edit, test_generation=args.test_generation
    )

    name = f"{args.editing_method}_{args.datatype}_{Path(editor.model_name).name}_results.json"
    results = Path(args.metrics_save_dir) / name
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(metrics, indent=4))
    print("Edit_Succ:", percent([metric["post"]["rewrite_acc"] for metric in metrics]))
    print("Overall_portability:", percent([kinds(metric, "portability") for metric in metrics]))
    print("Overall_locality:", percent([kinds(metric, "locality") for metric in metrics]))
    if args.test_generation:
        print("Fluency:", percent([[metric["post"]["fluency"]["ngram_entropy"]] for metric in metrics]))
    print(results)
