"""A long stream of edits, measured at checkpoints and resumed after a crash, with the argument names of
EasyEdit's scripts.

    python examples/run_lifelong.py --ds_size 100
    python examples/run_lifelong.py --editing_method PNKE --ds_size 2000 --batch_size 10 \\
        --hparams_dir hparams/PNKE/llama3-8b-instruct.yaml --data_dir ../data/counterfact-edit.json \\
        --output_dir results/pnke-2000

The same command again goes on where it was. What is given behind "--" goes to the runner as it is
(docs/guides/lifelong.md):

    python examples/run_lifelong.py --ds_size 500 -- runner.order=shuffled evaluation=quick
    method.mask_stage=solve
"""

import argparse
import sys

from easyedit_neuron.cli import main
from easyedit_neuron.host import easyedit_function


def setting(name, value):
    """``name=value`` for the runner, which takes commas and equals signs for its own unless they are
    quoted."""
    quoted = str(value).replace("'", "\\'")
    return f"{name}='{quoted}'"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--editing_method", default="NMKE", help="one of ours; with EasyEdit also its own that edit weights"
    )
    parser.add_argument(
        "--hparams_dir", help="a file of hyperparameters, or a shipped name (default: METHOD/tiny-llama)"
    )
    parser.add_argument(
        "--data_dir", default="tiny-world", help="a JSON file of CounterFact, zsRE or KnowEdit"
    )
    parser.add_argument("--ds_size", default=100, type=int, help="edits (100)")
    parser.add_argument("--batch_size", default=1, type=int, help="edits that are solved together (1)")
    parser.add_argument("--output_dir", "--metrics_save_dir", default="results/lifelong")
    parser.add_argument("settings", nargs="*", help="settings of the runner, behind --")
    args = parser.parse_args()

    if easyedit_function(args.editing_method):
        method = ["method=easyedit", setting("method.alg", args.editing_method)]
    else:
        method = [f"method={args.editing_method.lower()}"]
    edits = (
        ["data=tiny-world"]
        if args.data_dir == "tiny-world"
        else ["data=file", setting("data.path", args.data_dir)]
    )
    hparams = [setting("model.hparams", args.hparams_dir)] if args.hparams_dir else []
    sys.exit(
        main(
            [
                *method,
                *edits,
                *hparams,
                f"edits={args.ds_size}",
                f"batch_size={args.batch_size}",
                setting("output_dir", args.output_dir),
                *args.settings,
            ]
        )
    )
