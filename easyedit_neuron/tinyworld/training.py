"""Train tiny-llama on a corpus: tokenizer, data order, optimiser. One seed, CPU or GPU."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .bottleneck import subject_bottleneck
from .corpus import packs, sentence

LOG = logging.getLogger(__name__)
BOS, EOS, PAD, UNK = "<s>", "</s>", "<pad>", "<unk>"
BATCHES_SORTED = 16
"""Batches whose sequences are sorted by length together."""
REPORT_EVERY = 500
"""Steps between two calls of ``report``."""

TrainingSequence = list[tuple[str, str | None, str]]
"""A training sequence: (prompt, object, subject) of every sentence; (document, None, "") for a document."""
Report = Callable[[int, LlamaForCausalLM, PreTrainedTokenizerFast], None]


@dataclass
class TrainConfig:
    """Size of the model and schedule of the training.

    The first phase trains on whole sequences. The second, with fresh optimisers, moves the look-up of facts
    to the subject's last token (see ``bottleneck``); trained like that from the start, a model learns several
    times more slowly.

    Attributes:
        width, d_ff, layers, heads, vocab: d_model, neurons of a layer, layers, attention heads, tokens.
        steps, batch: optimiser steps of the first phase, and sequences of a step.
        muon_lr: peak rate of Muon for the matrices of the blocks; 0: AdamW trains them too.
        lr, weight_decay: peak rate of AdamW for embeddings and norms; decay of all matrices.
        warmup, decay: steps of linear warm-up, and share of the steps with linear decay to 2%.
        single: share of the fact sentences that are a sequence of their own.
        other_weight: weight in the loss of tokens that are no object: names above all cannot be predicted.
        bottleneck_steps, bottleneck_rate: steps of the second phase, and factor of its peak rates.
        bottleneck, enrich: share of the second phase's sequences under the masks; layers with the lower mask.
        seed: of everything random.
    """

    width: int = 256
    d_ff: int = 2048
    layers: int = 5
    heads: int = 4
    vocab: int = 2048
    steps: int = 2300
    batch: int = 128
    lr: float = 2e-3
    muon_lr: float = 0.02
    warmup: int = 100
    decay: float = 0.3
    weight_decay: float = 0.05
    single: float = 0.6
    other_weight: float = 0.25
    bottleneck_steps: int = 700
    bottleneck_rate: float = 0.5
    bottleneck: float = 0.75
    enrich: int = 2
    seed: int = 0


def train_tokenizer(texts: list[str], vocab: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE with a space before every text, so that a word has one spelling everywhere."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    options = {"special_tokens": [BOS, EOS, PAD, UNK], "show_progress": False}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet, **options)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "unk_token": UNK}
    # transformers 4 takes its own default for the space, and gives token types that the model does not take
    settings = {"add_prefix_space": True, "model_input_names": ["input_ids", "attention_mask"]}
    settings |= {"model_max_length": 256, "padding_side": "right"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **settings)


def new_model(tok: PreTrainedTokenizerFast, config: TrainConfig) -> LlamaForCausalLM:
    """A randomly initialised Llama of the configured size, float32."""
    torch.manual_seed(config.seed)
    sizes = {"vocab_size": len(tok), "hidden_size": config.width, "intermediate_size": config.d_ff}
    sizes |= {"num_hidden_layers": config.layers, "num_attention_heads": config.heads}
    options = {"max_position_embeddings": 256, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
    ids = {name: getattr(tok, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return LlamaForCausalLM(LlamaConfig(**sizes, **options, **ids))


def epochs(
    facts: list[tuple[str, str, str]], documents: list[str], single: float, rng: random.Random
) -> Iterator[TrainingSequence]:
    """Endless stream of training sequences.

    An epoch has every document once, and every fact sentence once: alone, or in a sequence of two or three.
    """
    while True:
        order = rng.sample(facts, len(facts))
        cut = int(len(order) * single)
        sequences = [[fact] for fact in order[:cut]] + packs(order[cut:], rng, sizes=(2, 3))
        sequences += [[(text, None, "")] for text in documents]
        rng.shuffle(sequences)
        yield from sequences


def encode_sequence(
    tok, sequence: TrainingSequence, other_weight: float
) -> tuple[list[int], list[float], list[tuple[int, int]]]:
    """Token ids, loss weights and subject spans (first, last token) of a sequence.

    Byte-level BPE never merges across a space or into a full stop, so the tokens of the pieces are those of
    the text.
    """
    ids, weights, spans = [tok.bos_token_id], [0.0], []
    stop = tok.convert_tokens_to_ids(".")
    for prompt, target, subject in sequence:
        encoding = tok(prompt, add_special_tokens=False)
        if subject:
            start = prompt.rfind(subject)
            ends = (start, start + len(subject) - 1)
            spans.append(tuple(len(ids) + encoding.char_to_token(position) for position in ends))
        ids += encoding["input_ids"]
        weights += [other_weight] * len(encoding["input_ids"])
        if target is not None:
            target_ids = tok(" " + target, add_special_tokens=False)["input_ids"]
            ids += target_ids + [stop]
            weights += [1.0] * len(target_ids) + [other_weight]
    return ids + [tok.eos_token_id], weights + [other_weight], spans


def batches(
    sequences: Iterator[TrainingSequence], tok, config: TrainConfig, bottleneck: float
) -> Iterator[tuple]:
    """Token ids [batch, T] (padded), loss weights [batch, T] and subject spans per row.

    Sequences of similar length are batched together. Rows that are to be seen whole have no spans.
    """
    rng = random.Random(config.seed)
    while True:
        count = config.batch * BATCHES_SORTED
        encoded = [encode_sequence(tok, next(sequences), config.other_weight) for _ in range(count)]
        encoded.sort(key=lambda row: len(row[0]))
        starts = list(range(0, count, config.batch))
        rng.shuffle(starts)
        for start in starts:
            ids, weights, spans = zip(*encoded[start : start + config.batch])
            yield (
                pad_sequence(list(map(torch.tensor, ids)), batch_first=True, padding_value=tok.pad_token_id),
                pad_sequence(list(map(torch.tensor, weights)), batch_first=True),
                [row_spans if rng.random() < bottleneck else [] for row_spans in spans],
            )


def _optimisers(model, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices (it learns rare facts as fast as frequent ones), AdamW for the rest."""
    matrices = [
        p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2 and config.muon_lr
    ]
    muon_ids = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in muon_ids]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay, "peak": config.lr},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "peak": config.lr},
    ]
    optimisers = [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)]
    if matrices:
        muon_groups = [{"params": matrices, "peak": config.muon_lr}]
        muon = torch.optim.Muon(muon_groups, lr=config.muon_lr, weight_decay=config.weight_decay)
        optimisers.append(muon)
    return optimisers


@dataclass(frozen=True)
class Phase:
    """A part of the training: steps, factor of the peak rates, share of sequences under masks, data seed."""

    steps: int
    rate: float
    bottleneck: float
    seed: int


def run_phase(
    model,
    tok,
    facts: list[tuple[str, str, str]],
    documents: list[str],
    config: TrainConfig,
    phase: Phase,
    report: Report | None = None,
) -> None:
    """Train ``model`` in place for one phase, with fresh optimisers; the other arguments as in ``train``."""
    model.train()
    device = next(model.parameters()).device
    optimisers = _optimisers(model, config)
    sequences = epochs(facts, documents, config.single, random.Random(phase.seed))
    stream = batches(sequences, tok, config, phase.bottleneck)
    started = time.time()
    for step in range(1, phase.steps + 1):
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = group["peak"] * phase.rate * learning_rate(step, phase.steps, config)
        ids, weights, spans = next(stream)
        ids, weights = ids.to(device), weights.to(device)
        with (
            torch.autocast(device.type, dtype=torch.bfloat16),
            subject_bottleneck(model, ids, spans, config.enrich) as mask,
        ):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        # The weighted mean of the tokens' losses: objects count in full.
        token_losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        weight = weights[:, 1:].flatten()
        loss = (token_losses * weight).sum() / weight.sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        if step % 50 == 0:
            is_object = weight == 1
            object_loss = float((token_losses.detach() * is_object).sum() / is_object.sum().clamp_min(1))
            seconds = time.time() - started
            LOG.info("step %d loss %.3f, objects %.3f, %.0f s", step, loss.item(), object_loss, seconds)
        if report and (step % REPORT_EVERY == 0 or step == phase.steps):
            model.eval()
            report(step, model, tok)
            model.train()


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the peak rate at ``step`` (1-based) of ``steps``: warm-up, plateau, linear decay."""
    left = (steps - step) / max(1.0, config.decay * steps)
    return min(1.0, step / config.warmup, 0.02 + 0.98 * left)


def train(
    facts: list[tuple[str, str, str]], documents: list[str], config: TrainConfig, report: Report | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train from scratch on fact sentences (prompt, object, subject) and plain texts; float32, eval mode.

    ``report`` is called with (step, model, tok) every ``REPORT_EVERY`` steps and at the end of each phase.
    """
    tok = train_tokenizer([sentence(prompt, target) for prompt, target, _ in facts] + documents, config.vocab)
    model = new_model(tok, config).to("cuda" if torch.cuda.is_available() else "cpu")
    phases = [
        Phase(config.steps, 1.0, 0.0, config.seed),
        Phase(config.bottleneck_steps, config.bottleneck_rate, config.bottleneck, config.seed + 1),
    ]
    for phase in phases:
        run_phase(model, tok, facts, documents, config, phase, report)
    return model.eval(), tok
