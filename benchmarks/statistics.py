"""Covariances of five layers: one pass for all of them (ours) against one pass for each (EasyEdit's
``layer_stats``), in turns.

    EASYEDIT_HOME=... python -m benchmarks.statistics

A random Llama (hidden 512, d_ff 2048, 12 layers, vocabulary 32,000), layers 4 to 8, float32, the same texts.
Both tokenise the texts, and neither finds earlier results: EasyEdit's is told to measure anew, ours gets a
    new folder each time. Without
EASYEDIT_HOME the peer is a plain loop of the same shape: per layer, every text through the model up to that
    layer.
Both results are compared before anything is timed.
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

import torch

from benchmarks import timing
from benchmarks.models import random_llama
from easyedit_neuron import data
from easyedit_neuron.arch.capture import Capture
from easyedit_neuron.arch.tokens import encode, token_ids
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.host.loader import find_easyeditor, import_easyeditor
from easyedit_neuron.models.memit.memit_hparams import MEMITHyperParams
from easyedit_neuron.statistics.cache import Statistics

LAYERS = [4, 5, 6, 7, 8]
POSITIONS = 512
"""Longest text that the model takes; EasyEdit's batches have three times as many tokens."""

Measure = Callable[[], dict[int, torch.Tensor]]


def paragraphs(tok, tokens: int, seed: int = 0) -> tuple[list[str], int]:
    """Texts of very different lengths, none longer than the model, with ``tokens`` tokens in all; and how
    many those are."""
    sentences, draw = data.text("tiny-world"), random.Random(seed)
    texts, total = [], 0
    while total < tokens:
        text = " ".join(draw.choices(sentences, k=draw.randint(1, 20)))
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

    def measure() -> dict[int, torch.Tensor]:
        found = {}
        for layer in LAYERS:
            with contextlib.redirect_stdout(io.StringIO()):
                stat = module.layer_stats(
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
                    hparams=_Device(),
                )
            found[layer] = stat.mom2.moment()
        return found

    return measure


class _Device:
    device = "cpu"


def one_pass_per_layer(model, tok, texts: list[str], _folder: Path) -> Measure:
    """A stand-in for EasyEdit: for each layer, all texts are tokenised and run up to it, 100 at a time,
    sorted by length."""
    view, batch_tokens = ModelView.of(model), 3 * POSITIONS

    @torch.no_grad()
    def of_layer(layer: int) -> torch.Tensor:
        total, count = torch.zeros(view.d_ff, view.d_ff), 0
        for start in range(0, len(texts), 100):
            group = sorted(texts[start : start + 100], key=lambda text: -len(token_ids(tok, text)))
            while group:
                rows = max(1, batch_tokens // len(token_ids(tok, group[0])))
                batch = encode(tok, group[:rows])
                with Capture(view, [layer], stop_after=layer) as seen:
                    model(**batch.inputs)
                keys = seen.key[layer][batch.attention_mask.bool()]
                total += keys.T @ keys
                count += len(keys)
                group = group[rows:]
        return total / count

    return lambda: {layer: of_layer(layer) for layer in LAYERS}


def main() -> int:
    """Entry point."""
    parser = timing.parser(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=20000)
    args = parser.parse_args()
    if args.device != "cpu":
        parser.error("--device: this comparison runs on the CPU")
    torch.set_num_threads(args.threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the peer's loader forks
    model, tok = random_llama("80m", max_position_embeddings=POSITIONS)
    tok.model_max_length = POSITIONS
    texts, tokens = paragraphs(tok, args.tokens)
    peer_name, make_peer = (
        ("EasyEdit", easyedit) if find_easyeditor() else ("one pass per layer", one_pass_per_layer)
    )
    with tempfile.TemporaryDirectory() as folder:
        peer, mine = (make(model, tok, texts, Path(folder)) for make in (make_peer, ours))
        theirs, found = peer(), mine()  # the warm-up
        error = max(float((theirs[layer] - found[layer]).norm() / theirs[layer].norm()) for layer in LAYERS)
        print(
            f"{len(texts)} texts, {tokens} tokens, layers {LAYERS}; peer: {peer_name}; largest relative difference {error:.1e}"
        )
        if error > 1e-5:
            print("the two do not measure the same: no timing")
            return 1
        result = timing.alternate(peer, mine, args.repeats, warm_up=0)
    measured = timing.report(f"statistics of {len(LAYERS)} layers", result)
    timing.write_json(
        args.json,
        [measured],
        peer=peer_name,
        tokens=tokens,
        texts=len(texts),
        layers=LAYERS,
        difference=error,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
