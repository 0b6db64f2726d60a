"""``python -m easyedit_neuron.ability``: measure the general ability of a model without editing it."""

import argparse
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..errors import HostError, NeuronEditError
from ..report.table import aligned, number
from ..utils.command import Parser
from ..utils.io import refusing, write_text

COLUMNS = ("metric", "value", "documents", "shots")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or exit with 2 and one line on stderr where the input is wrong."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        results, seconds = _measure(args)
        report: dict[str, Any] = {"model": args.model, "weights": args.weights and str(args.weights)}
        report |= {"data": args.data and str(args.data), "limit": args.limit}
        report |= {"max_new_tokens": args.max_new_tokens, "seconds": seconds}
        packages = ("lm_eval", "torch", "transformers")
        report |= {"versions": {name: metadata.version(name) for name in packages}, "tasks": results}
        with refusing(args.out):
            args.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(args.out, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except NeuronEditError as problem:
        parser.error(str(problem))
    rows = [["task", *COLUMNS, ""]]
    for task, row in results.items():
        rows.append([task, row["metric"], *(number(row[name]) for name in COLUMNS[1:]), ""])
    sys.stdout.write(f"{aligned(rows)}\n\n{args.out}\n")
    return 0


def _parser() -> Parser:
    description = "General ability of a model, measured with lm-eval."
    parser = Parser(prog="easyedit_neuron.ability", description=description)
    add = parser.add_argument
    add("--model", default="tiny-llama", help="a folder, a name on the hub, or tiny-llama (default)")
    add("--weights", type=Path, metavar="FILE", help="use these, e.g. a run's weights.safetensors")
    tasks_help = "mmlu,gsm8k,commonsense_qa,bbh_zeroshot,humaneval, tiny_world (default), or any of lm-eval's"
    add("--tasks", default="tiny_world", help=tasks_help)
    data_help = "local documents of the papers' tasks (default: lm-eval asks the hub)"
    add("--data", type=Path, metavar="DIR", help=data_help)
    limit_help = "measure the first N documents of every task or subject (default: all)"
    add("--limit", type=int, metavar="N", help=limit_help)
    add("--batch-size", type=int, default=64, metavar="N", help="sequences per forward pass (default: 64)")
    new_help = "longest generated answer (default: what the task says)"
    add("--max-new-tokens", type=int, metavar="N", help=new_help)
    add("--run-code", action="store_true", help="allow humaneval to run the code that the model writes")
    add("--device", help="cpu, cuda:0, ... (default: the first GPU, else the CPU)")
    add("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    out_help = "all numbers (default: ability.json)"
    add("--out", type=Path, default=Path("ability.json"), metavar="FILE", help=out_help)
    return parser


def _measure(args: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], float]:
    """Results by task, and the seconds that measuring took."""
    from ..arch.load_model import load_model
    from .general_ability import GeneralAbility

    options = args.data, args.limit, args.batch_size, args.run_code, args.max_new_tokens
    ability = GeneralAbility(args.tasks.split(","), *options, quiet=not sys.stderr.isatty())
    dtype = {"fp16": args.dtype == "float16", "bf16": args.dtype == "bfloat16"}
    model, tok, _ = load_model(SimpleNamespace(model_name=args.model, device=args.device, **dtype))
    if args.weights is not None:
        _replace_weights(model, args.weights)
    ability.check(model, tok)
    start = time.perf_counter()
    return ability.measure(model, tok), time.perf_counter() - start


def _replace_weights(model, path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except Exception as problem:  # safetensors has an error class of its own for a damaged file
        raise HostError(f"{path}: not a readable safetensors file ({problem})") from None
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise HostError(f"{path}: the model has no weight {name!r} of shape {tuple(value.shape)}")
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)


if __name__ == "__main__":
    sys.exit(main())
