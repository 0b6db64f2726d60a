"""Fluency of many prompts: one after the other, as EasyEdit writes its texts, and all together.

    python -m benchmarks.fluency --prompts 20

Both draw from the same generators, so that the texts are the same up to the rounding of a batch; how many
differ is in the row.
"""

import sys
from types import SimpleNamespace

from benchmarks import timing
from easyedit_neuron import data
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.evaluation.fluency import fluency


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = timing.parser(__doc__, prompts=20, tokens=50, repeats=2, threads=1)
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="name or folder (default: %(default)s)"
    )
    parser.add_argument("--data", default="real-world", help="whose prompts (default: %(default)s)")
    args = timing.parse(parser, argv)
    model, tok, _ = load_model(SimpleNamespace(model_name=args.model, device=args.device))
    prompts = [request["prompt"] for request in data.load(args.data, size=args.prompts)]
    values: dict[int, list[float]] = {}

    def measured(batch_size: int) -> None:
        values[batch_size] = fluency(model, tok, prompts, args.tokens, batch_size=batch_size)

    result = timing.alternate(lambda: measured(1), lambda: measured(32), args.repeats, warm_up=0)
    row = timing.report(f"{len(prompts)} texts of {args.tokens} tokens", result)
    row["texts that differ"] = sum(one != other for one, other in zip(values[1], values[32]))
    print(f"texts that differ: {row['texts that differ']} of {len(prompts)}")
    timing.write_json(args, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
