"""``python -m easyedit_neuron.tinyworld``: write the world's data, train the model, or both.

python -m easyedit_neuron.tinyworld --out DIR                 data and model of the shipped world
python -m easyedit_neuron.tinyworld --out DIR --no-model      the data only
python -m easyedit_neuron.tinyworld --out DIR --facts A.json B.json
                                                              a model of the facts in these editing data
                                                              files; DIR/text.txt, its text (for
                                                              mom2_dataset), and DIR/retained.json (for
                                                              data.retained): facts beyond --limit that teach
                                                              it the new objects' words
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from ..errors import NeuronEditError
from ..evaluation.batched import perplexity
from .assets import round_to_shipped, write_data, write_json, write_lines, write_model
from .card import Results, card, facts_card
from .corpus import build_corpus, held_out_text, sentence
from .facts import documents, read_facts
from .recall import measure_recall, recall
from .training import TrainConfig, train
from .world import build_world

LOG = logging.getLogger(__name__)
SIZES = ("steps", "bottleneck_steps", "batch", "layers", "width", "d_ff", "vocab")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    text = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m easyedit_neuron.tinyworld", **text)
    out_help = "folder; gets tiny-llama/, and tiny-world/ or text.txt and retained.json"
    parser.add_argument("--out", type=Path, required=True, help=out_help)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, help="people in the world (default: the shipped number)")
    parser.add_argument("--facts", nargs="+", metavar="FILE", help="train on these data files instead")
    parser.add_argument("--limit", type=int, help="at most so many records of each --facts file")
    parser.add_argument("--no-model", action="store_true", help="write the data only")
    for name in SIZES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int)
    args = parser.parse_args(argv)
    if args.facts and args.no_model:
        parser.error("--facts trains a model; it cannot be combined with --no-model")
    return args


def _train_timed(
    args: argparse.Namespace, facts: list[tuple[str, str, str]], texts: list[str], recall_of: Callable
):
    """The model as it ships, its tokenizer, the configuration, and the minutes that training took.

    ``recall_of(model, tok)`` is logged along the way.
    """
    sizes = {name: getattr(args, name) for name in SIZES if getattr(args, name) is not None}
    config = TrainConfig(seed=args.seed, **sizes)
    started = time.time()

    def report(step, model, tok):
        LOG.info("step %d recall %s", step, recall_of(model, tok))

    model, tok = train(facts, texts, config, report)
    minutes = (time.time() - started) / 60
    return round_to_shipped(model.cpu()), tok, config, minutes


def _train_world(args: argparse.Namespace) -> None:
    world = build_world(args.seed, **({"people": args.people} if args.people else {}))
    corpus = build_corpus(world, args.seed)
    write_data(world, corpus, args.out / "tiny-world")
    counts = len(world.facts), len(corpus.facts), len(corpus.documents)
    LOG.info("%d facts, %d sentences, %d documents", *counts)
    if args.no_model:
        return

    def sample_recall(model, tok):
        return _rounded(measure_recall(model, tok, world, corpus, sample=400))

    model, tok, config, minutes = _train_timed(args, corpus.facts, corpus.documents, sample_recall)
    held_out = perplexity(model, tok, held_out_text(world, corpus, args.seed))
    results = Results(measure_recall(model, tok, world, corpus), held_out, minutes)
    recalls = _rounded(results.recall)
    LOG.info("recall %s, held-out perplexity %.2f, %.1f minutes", recalls, held_out, minutes)
    folder = args.out / "tiny-llama"
    write_model(model, tok, folder, card(world, corpus, config, results))
    write_json(folder / "recall.json", asdict(results) | {"threads": torch.get_num_threads()}, indent=1)


def _train_facts(args: argparse.Namespace) -> None:
    facts = read_facts(args.facts, args.limit)
    LOG.info(
        "%d sentences, %d facts to edit, %d others for their new objects, %d new objects as bare words",
        *map(len, (facts.sentences, facts.pairs, facts.others, facts.words)),
    )
    texts = documents(facts, args.seed)

    def sample_recall(model, tok):
        return f"{recall(model, tok, facts.pairs[:400]):.3f}"

    model, tok, config, minutes = _train_timed(args, facts.sentences, texts, sample_recall)
    share = recall(model, tok, facts.pairs)
    LOG.info("recall of the %d edit prompts %.4f, %.1f minutes", len(facts.pairs), share, minutes)
    write_model(model, tok, args.out / "tiny-llama", facts_card(args.facts, len(facts.pairs), config, share))
    lines = [sentence(prompt, target) for prompt, target, _ in facts.sentences] + texts
    write_lines(args.out / "text.txt", [" ".join(line.split()) for line in lines])
    if facts.others:
        names = ("prompt", "ground_truth", "subject")
        retained = [dict(zip(names, fact)) | {"relation": "fact"} for fact in facts.others]
        write_json(args.out / "retained.json", retained, indent=0)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in values.items()}


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or 2 with one line on stderr where the input is wrong."""
    args = _parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _train_facts(args) if args.facts else _train_world(args)
    except NeuronEditError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
