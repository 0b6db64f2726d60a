"""Edit facts with NMKE: an EasyEdit script in which two lines changed (the import and the hyperparameter class).

    python examples/run_nmke.py --hparams_dir hparams/NMKE/tiny-llama --data tiny-world --ds_size 5 --sequential_edit

With EasyEdit on the path (EASYEDIT_HOME, PYTHONPATH) its BaseEditor runs the edits, without it the built-in one does;
EASYEDIT_NEURON_HOST=builtin or easyedit says which.
"""

import argparse
import json
import sys

from easyedit_neuron import BaseEditor, NMKEHyperParams, data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hparams_dir", default="NMKE/tiny-llama", help="YAML file, or the name of a shipped one")
    parser.add_argument("--data", default="tiny-world", help="tiny-world, or a CounterFact, zsRE or KnowEdit JSON file")
    parser.add_argument("--ds_size", type=int, default=5, help="number of edits")
    parser.add_argument("--sequential_edit", action="store_true", help="keep each edit while the next one is made")
    parser.add_argument("--metrics_save_path", help="JSON file for the metrics (default: standard output)")
    args = parser.parse_args()

    hparams = NMKEHyperParams.from_hparams(args.hparams_dir)
    requests = data.load(args.data, size=args.ds_size)
    editor = BaseEditor.from_hparams(hparams)
    metrics, edited_model, _ = editor.edit_requests(requests, sequential_edit=args.sequential_edit, verbose=False)

    rows = [{"prompt": m["requested_rewrite"]["prompt"], "target_new": m["requested_rewrite"]["target_new"],
             "pre": m["pre"]["rewrite_acc"], "post": m["post"]["rewrite_acc"], "rephrase": m["post"].get("rephrase_acc"),
             "locality": {k: v for k, v in m["post"]["locality"].items() if k.endswith("_acc")},
             "portability": m["post"]["portability"]} for m in metrics]
    with open(args.metrics_save_path, "w", encoding="utf-8") if args.metrics_save_path else sys.stdout as out:
        out.write("\n".join(json.dumps(row) for row in rows) + "\n")


if __name__ == "__main__":
    main()
