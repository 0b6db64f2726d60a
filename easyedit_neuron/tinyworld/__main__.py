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
import json
import logging
import sys
import time
from pathlib import Path

import torch

from ..errors import NeuronEditError
from ..evaluation.batched import perplexity
from .assets import round_to_shipped, write_data, write_model
from .card import card, facts_card
from .corpus import build_corpus, held_out_text, sentence
from .facts import documents, read_facts
from .recall import measure_recall
from .training import TrainConfig, recall, train
from .world import build_world

LOG = logging.getLogger(__name__)
_SIZES = ("steps", "bottleneck_steps", "batch", "layers", "width", "d_ff", "vocab")


def _arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m easyedit_neuron.tinyworld",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder; gets tiny-llama/, and tiny-world/ or text.txt and retained.json",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--people", type=int, default=None, help="people in the world (default: the shipped number)"
    )
    parser.add_argument(
        "--facts", nargs="+", metavar="FILE", help="train on these editing data files instead"
    )
    parser.add_argument(
        "--limit", type=int, default=None, help="at most so many records of each --facts file"
    )
    parser.add_argument("--no-model", action="store_true", help="write the data only")
    for name in _SIZES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=None)
    args = parser.parse_args(argv)
    if args.facts and args.no_model:
        parser.error("--facts trains a model; it cannot be combined with --no-model")
    return args


def _config(args) -> TrainConfig:
    changed = {name: getattr(args, name) for name in _SIZES if getattr(args, name) is not None}
    return TrainConfig(seed=args.seed, **changed)


def _train_world(args) -> None:
    world = build_world(args.seed, **({"people": args.people} if args.people else {}))
    corpus = build_corpus(world, args.seed)
    write_data(world, corpus, args.out / "tiny-world")
    LOG.info(
        "%d facts, %d sentences, %d documents", len(world.facts), len(corpus.facts), len(corpus.documents)
    )
    if args.no_model:
        return

    def report(step, model, tok):
        LOG.info("step %d recall %s", step, _rounded(measure_recall(model, tok, world, corpus, sample=400)))

    started = time.time()
    config = _config(args)
    model, tok = train(corpus.facts, corpus.documents, config, report)
    minutes = (time.time() - started) / 60
    model = round_to_shipped(model.cpu())
    measured = measure_recall(model, tok, world, corpus)
    held_out = perplexity(model, tok, held_out_text(world, corpus, args.seed))
    LOG.info("recall %s, held-out perplexity %.2f, %.1f minutes", _rounded(measured), held_out, minutes)
    write_model(model, tok, args.out / "tiny-llama", card(world, corpus, config, measured, held_out, minutes))
    (args.out / "tiny-llama" / "recall.json").write_text(
        json.dumps(
            {
                "recall": measured,
                "held_out_perplexity": held_out,
                "minutes": minutes,
                "threads": torch.get_num_threads(),
            },
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )


def _train_facts(args) -> None:
    facts = read_facts(args.facts, args.limit)
    LOG.info(
        "%d sentences, %d facts to edit, %d others for their new objects, %d new objects as bare words",
        len(facts.sentences),
        len(facts.pairs),
        len(facts.others),
        len(facts.words),
    )

    def report(step, model, tok):
        LOG.info("step %d recall %.3f", step, recall(model, tok, *map(list, zip(*facts.pairs[:400]))))

    config = _config(args)
    pages = documents(facts, args.seed)
    started = time.time()
    model, tok = train(facts.sentences, pages, config, report)
    minutes = (time.time() - started) / 60
    model = round_to_shipped(model.cpu())
    measured = recall(model, tok, *map(list, zip(*facts.pairs)))
    LOG.info("recall of the %d edit prompts %.4f, %.1f minutes", len(facts.pairs), measured, minutes)
    write_model(
        model, tok, args.out / "tiny-llama", facts_card(args.facts, len(facts.pairs), config, measured)
    )
    text = [sentence(prompt, answer) for prompt, answer, _ in facts.sentences] + pages
    (args.out / "text.txt").write_text(
        "".join(f"{' '.join(line.split())}\n" for line in text), encoding="utf-8"
    )
    if facts.others:
        (args.out / "retained.json").write_text(
            json.dumps(
                [
                    {"prompt": prompt, "ground_truth": answer, "subject": subject, "relation": "fact"}
                    for prompt, answer, subject in facts.others
                ],
                ensure_ascii=False,
                indent=0,
            )
            + "\n",
            encoding="utf-8",
        )


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in values.items()}


def main(argv=None) -> int:
    """Entry point; 2 on bad input, with one line on stderr."""
    args = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _train_facts(args) if args.facts else _train_world(args)
    except NeuronEditError as problem:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
