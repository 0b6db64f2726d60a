"""Covariances of five layers: one pass for all (ours) against one pass each (EasyEdit's ``layer_stats``), in
turns.

    EASYEDIT_HOME=... python -m benchmarks.statistics

A random Llama (hidden 512, d_ff 2048, 12 layers, vocabulary 32,000), layers 4 to 8, float32, the same texts.
Both tokenise the texts, and neither finds earlier results. Without EASYEDIT_HOME the peer is a plain loop of
the same shape: per layer, every text through the model up to that layer. Both results are compared before
anything is timed.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch

from benchmarks import timing
from benchmarks.editing import LAYERS
from benchmarks.models import random_llama
from easyedit_neuron import data
from easyedit_neuron.arch.capture import Capture
from easyedit_neuron.arch.tokens import encode, token_ids
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.host.loader import find_easyeditor, import_easyeditor
from easyedit_neuron.models.memit.memit_hparams import MEMITHyperParams
from easyedit_neuron.statistics.cache import Statistics

POSITIONS = 512
"""Longest text that the model takes; EasyEdit's batches have three times as many tokens."""

Measure = Callable[[], dict[int, torch.Tensor]]


def paragraphs(tok, tokens: int, seed: int = 0) -> tuple[list[str], int]:
    """Texts of very different lengths, none longer than the model takes, and their number of tokens."""
    sentences, rng = data.text("tiny-world"), random.Random(seed)
    texts, total = [], 0
    while total < tokens:
        text = " ".join(rng.choices(sentences, k=rng.randint(1, 20)))
        count = len(token_ids(tok, text))
        if count <= POSITIONS:
            texts.append(text)
            total += count
    return texts, total


def ours(model, tok, texts: list[str], folder: Path) -> Measure:
    """``Statistics`` with an empty cache, from the file of texts to the covariances on disk."""
    source = folder / "texts.jsonl"
    source.write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")

    def measure() -> dict[int, torch.Tensor]:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            hparams = MEMITHyperParams(
                alg_name="MEMIT",
                model_name="llama",
                device="cpu",
                layers=LAYERS,
                mom2_dataset=str(source),
                mom2_n_samples=len(texts),
                mom2_max_length=POSITIONS,
                stats_dir=cache,
            )
            statistics = Statistics(ModelView.of(model), tok, hparams)
            return {layer: statistics.covariance(layer) for layer in LAYERS}

    return measure


def easyedit(model, tok, texts: list[str], folder: Path) -> Measure:
    """EasyEdit's own ``layer_stats``, layer by layer; its data set is replaced by the texts."""
    import_easyeditor()
    logging.disable(logging.INFO)  # importing it configures the root logger
    module = importlib.import_module("easyeditor.models.rome.layer_stats")
    module.load_dataset = lambda *_: {"train": [{"text": text} for text in texts]}

    def of_layer(layer: int) -> torch.Tensor:
        with contextlib.redirect_stdout(io.StringIO()):
            result = module.layer_stats(
                model,
                tok,
                f"model.layers.{layer}.mlp.down_proj",
                folder,
                "wikipedia",
                ["mom2"],
                sample_size=len(texts),
                precision="float32",
                progress=lambda loader, total: loader,
                force_recompute=True,
                hparams=SimpleNamespace(device="cpu"),
            )
        return result.mom2.moment()

    return lambda: {layer: of_layer(layer) for layer in LAYERS}


def one_pass_per_layer(model, tok, texts: list[str], _folder: Path) -> Measure:
    """A stand-in for EasyEdit: per layer, all texts are tokenised and run up to it, 100 at a time, by
    length."""
    view, batch_tokens = ModelView.of(model), 3 * POSITIONS

    @torch.no_grad()
    def of_layer(layer: int) -> torch.Tensor:
        total, count = torch.zeros(view.d_ff, view.d_ff), 0
        for start in range(0, len(texts), 100):
            group = sorted(texts[start : start + 100], key=lambda text: -len(token_ids(tok, text)))
            while group:
                rows = max(1, batch_tokens // len(token_ids(tok, group[0])))
                batch, group = encode(tok, group[:rows]), group[rows:]
                with Capture(view, [layer], stop_after=layer) as capture:
                    model(**batch.inputs)
                keys = capture.key[layer][batch.attention_mask.bool()]
                total += keys.T @ keys
                count += len(keys)
        return total / count

    return lambda: {layer: of_layer(layer) for layer in LAYERS}


def main(argv: list[str] | None = None) -> int:
    """Entry point; 1 where the two do not measure the same."""
    parser = timing.parser(__doc__, repeats=3, threads=1, tokens=20000)
    args = timing.parse(parser, argv)
    if args.device != "cpu":
        parser.error("--device: this comparison runs on the CPU")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the peer's loader forks
    model, tok = random_llama("80m", max_position_embeddings=POSITIONS)
    tok.model_max_length = POSITIONS
    texts, tokens = paragraphs(tok, args.tokens)
    peer_name, make_peer = "one pass per layer", one_pass_per_layer
    if find_easyeditor():
        peer_name, make_peer = "EasyEdit", easyedit
    with tempfile.TemporaryDirectory() as folder:
        measure_peer, measure_ours = (make(model, tok, texts, Path(folder)) for make in (make_peer, ours))
        expected, measured = measure_peer(), measure_ours()  # the warm-up
        difference = max(float((expected[n] - measured[n]).norm() / expected[n].norm()) for n in LAYERS)
        print(
            f"{len(texts)} texts, {tokens} tokens, layers {LAYERS}; peer: {peer_name}; "
            f"largest relative difference {difference:.1e}"
        )
        if difference > 1e-5:
            print("the two do not measure the same: no timing")
            return 1
        result = timing.alternate(measure_peer, measure_ours, args.repeats, warm_up=0)
    row = timing.report(f"statistics of {len(LAYERS)} layers", result)
    sizes = {"tokens": tokens, "texts": len(texts), "layers": LAYERS}
    timing.save(args, [row], peer=peer_name, difference=difference, **sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
