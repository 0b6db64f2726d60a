"""Measuring edits: EasyEdit's metrics request by request, by its own code, with ours in shared batches; and
fluency of many prompts one after the other, as EasyEdit writes its texts, with all together.

    EASYEDIT_HOME=... python -m benchmarks.measuring --edits 30 --prompts 20

The numbers must be equal, or nothing is timed. Without EASYEDIT_HOME the peer of the metrics is ours, request
by request. The floor of the metrics: each token of the prompts and answers once through the blocks, in rows
without padding, and the unembedding at the answers' tokens alone. Texts of both kinds of fluency are drawn
from the same generators, so that they are the same up to the rounding of a batch.
"""

import statistics
import sys
from types import SimpleNamespace

import torch

from benchmarks import timing
from easyedit_neuron import data
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.evaluation import compute_edit_quality, evaluate_all
from easyedit_neuron.evaluation.batching import tokenize_pairs
from easyedit_neuron.evaluation.fluency import fluency
from easyedit_neuron.evaluation.sections import sections
from easyedit_neuron.host.loader import find_easyeditor, import_easyeditor

SETTINGS = SimpleNamespace(alg_name="AlphaEdit", max_length=40, device="cpu")
"""What EasyEdit's function reads of hyperparameters."""
TOKENS_IN_A_ROW = 16


def metrics(model, tok, requests: list[dict], repeats: int) -> dict | None:
    """One row for the JSON file; None where the two measure different numbers."""
    theirs = import_easyeditor().compute_edit_quality if find_easyeditor() else compute_edit_quality

    def one_by_one() -> list[dict]:
        device = str(model.device)
        return [theirs(model, SETTINGS.alg_name, SETTINGS, tok, request, device) for request in requests]

    def together() -> list[dict]:
        return evaluate_all(model, tok, requests, hparams=SETTINGS)

    if one_by_one() != together():  # the warm-up
        print("the two do not measure the same: no timing")
        return None
    result = timing.alternate(one_by_one, together, repeats, warm_up=0)
    result = result.per_request(len(requests), len(requests))
    row = timing.report(f"metrics of {len(requests)} edits, for each", result)
    row["floor_seconds"] = timing.seconds(floor, model, tok, requests) / len(requests)
    share = statistics.median(result.ours) / row["floor_seconds"]
    print(f"    floor: {row['floor_seconds'] * 1e3:.0f} ms; ours is {share:.2f} times that")
    return row


@torch.no_grad()
def floor(model, tok, requests: list[dict]) -> None:
    """The bare arithmetic of all metrics."""
    asked = sections(requests)
    prompts, answers = (
        [text for part in asked for text in getattr(part, of)] for of in ("prompts", "answers")
    )
    pairs = tokenize_pairs(tok, prompts, answers)
    rows = -(-sum(len(pair.ids) for pair in pairs) // TOKENS_IN_A_ROW)
    ids = torch.zeros(rows, TOKENS_IN_A_ROW, dtype=torch.long, device=model.device)
    hidden = torch.cat([model.base_model(input_ids=part, use_cache=False)[0] for part in ids.split(64)])
    positions = hidden.flatten(0, 1)[: sum(len(pair.target_ids) for pair in pairs)]
    model.get_output_embeddings()(positions)


def texts(model, tok, prompts: list[str], tokens: int, repeats: int) -> dict:
    """One row for the JSON file: fluency of texts of some tokens behind the prompts."""
    values: dict[int, list[float]] = {}

    def measured(batch_size: int) -> None:
        values[batch_size] = fluency(model, tok, prompts, tokens, batch_size=batch_size)

    result = timing.alternate(lambda: measured(1), lambda: measured(32), repeats, warm_up=0)
    row = timing.report(f"fluency of {len(prompts)} texts of {tokens} tokens", result)
    row["texts that differ"] = sum(one != other for one, other in zip(values[1], values[32]))
    print(f"    texts that differ: {row['texts that differ']} of {len(prompts)}")
    return row


def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 where metrics differ."""
    parser = timing.parser(__doc__, edits=30, prompts=20, tokens=50, repeats=2, threads=1)
    parser.add_argument(
        "--model", default="smollm2-135m-instruct", help="name or folder (default: %(default)s)"
    )
    parser.add_argument("--data", default="real-world", help="edits and prompts (default: %(default)s)")
    args = timing.parse(parser, argv)
    model, tok, _ = load_model(SimpleNamespace(model_name=args.model, device=args.device))
    requests = data.load(args.data, size=max(args.edits, args.prompts))
    row = metrics(model, tok, requests[: args.edits], args.repeats)
    if row is None:
        return 1
    prompts = [request["prompt"] for request in requests[: args.prompts]]
    timing.save(args, [row, texts(model, tok, prompts, args.tokens, args.repeats)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
