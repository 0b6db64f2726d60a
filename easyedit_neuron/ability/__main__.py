"""``python -m easyedit_neuron.ability``: general ability of a model as it is, without editing it."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..errors import HostError, NeuronEditError
from ..report.table import aligned, number
from ..utils.io import replacing

BAD_INPUT = 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(BAD_INPUT, f"{self.prog}: error: {' '.join(message.split())}\n")


def main(argv: list[str] | None = None) -> int:
    """Run with the given arguments (default: the process's); 0, or 2 and one line on stderr when the input is
    wrong."""
    parser = _arguments()
    args = parser.parse_args(argv)
    try:
        found, seconds = _measure(args)
        about = {
            "model": args.model,
            "weights": args.weights and str(args.weights),
            "data": args.data and str(args.data),
            "limit": args.limit,
            "max_new_tokens": args.max_new_tokens,
            "seconds": seconds,
            "versions": {name: metadata.version(name) for name in ("lm_eval", "torch", "transformers")},
            "tasks": found,
        }
        _write(args.out, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    except NeuronEditError as problem:
        parser.error(str(problem))
    sys.stdout.write(f"{table(found)}\n\n{args.out}\n")
    return 0


def table(found: dict[str, dict[str, Any]]) -> str:
    """A row per task: its number, of how many documents, with how many shots."""
    rows = [["task", "metric", "value", "documents", "shots", ""]]
    for name, entry in found.items():
        rows.append(
            [
                name,
                entry["metric"],
                number(entry["value"]),
                number(entry["documents"]),
                number(entry["shots"]),
                "",
            ]
        )
    return aligned(rows)


def _arguments() -> _Parser:
    parser = _Parser(
        prog="easyedit_neuron.ability", description="General ability of a model, measured with lm-eval."
    )
    parser.add_argument(
        "--model", default="tiny-llama", help="a folder, a name on the hub, or tiny-llama (default)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights by parameter name that take the place of the model's, such as a run's weights.safetensors",
    )
    parser.add_argument(
        "--tasks",
        default="tiny_world",
        help="mmlu,gsm8k,commonsense_qa,bbh_zeroshot,humaneval, tiny_world (default), or any of lm-eval's",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="local documents of the papers' tasks (default: lm-eval asks the hub)",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="the first N documents of every task, subject by subject (default: all)",
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="N")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="of a generated answer at most (default: what the task says)",
    )
    parser.add_argument(
        "--run-code", action="store_true", help="humaneval may run the code that the model writes"
    )
    parser.add_argument("--device", help="cpu, cuda:0, ... (default: the first GPU, else the CPU)")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("ability.json"),
        metavar="FILE",
        help="all numbers (default: ability.json)",
    )
    return parser


def _measure(args: argparse.Namespace) -> tuple[dict[str, dict[str, Any]], float]:
    from ..host.load_model import load_model
    from .general_ability import Ability

    ability = Ability(
        args.tasks.split(","),
        args.data,
        args.limit,
        args.batch_size,
        args.run_code,
        args.max_new_tokens,
        quiet=not sys.stderr.isatty(),
    )
    model, tok, _ = load_model(
        SimpleNamespace(
            model_name=args.model,
            device=args.device,
            fp16=args.dtype == "float16",
            bf16=args.dtype == "bfloat16",
        )
    )
    if args.weights is not None:
        _put(model, args.weights)
    ability.check(model, tok)
    return ability.timed(model, tok)


def _put(model, path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except Exception as problem:  # safetensors has an error class of its own for a damaged file
        raise HostError(f"{path}: not a readable safetensors file ({problem})") from None
    own = dict(model.named_parameters())
    strange = [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]
    if strange:
        raise HostError(
            f"{path}: the model has no weight {strange[0]!r} of shape {tuple(weights[strange[0]].shape)}"
        )
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as name:
            Path(name).write_text(text, encoding="utf-8")
    except OSError as problem:
        raise HostError(f"{path}: cannot be written: {problem.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
