"""Trains tiny-llama on a corpus: tokenizer, data order, optimiser, recall. One seed, CPU or GPU."""

import logging
import random
import time
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..evaluation.batched import predict_targets
from .bottleneck import subject_bottleneck
from .corpus import packs, sentence

LOG = logging.getLogger(__name__)
BOS, EOS, PAD, UNK = "<s>", "</s>", "<pad>", "<unk>"


@dataclass
class TrainConfig:
    """Size of the model and length of the training.

    ``width`` d_model, ``d_ff`` neurons a layer, ``layers``, ``heads``; ``steps`` optimiser steps of ``batch``
    sequences; ``muon_lr`` peak rate of Muon for the matrices of the blocks, ``lr`` of AdamW for the rest
    (embeddings, norms; all of it if ``muon_lr`` is 0): linear warm-up, constant, linear to 2% over the last
    ``decay`` share of the steps; ``single`` share of sequences that hold one sentence; ``other_weight``
    weight in the loss of a token that is no object (most of them, names above all, cannot be predicted and
    only add noise).

    A second phase of ``bottleneck_steps`` steps at ``bottleneck_rate`` times the rates moves the look-up to
    the subject's last token: in a share ``bottleneck`` of its sequences what follows a subject sees it only
    there, and not before layer ``enrich`` (see ``bottleneck.py``). From the start the same would be learned
    several times more slowly.
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
    label_smoothing: float = 0.0
    single: float = 0.6
    other_weight: float = 0.25
    bottleneck_steps: int = 700
    bottleneck_rate: float = 0.5
    bottleneck: float = 0.75
    enrich: int = 2
    rms_eps: float = 1e-5
    seed: int = 0


def train_tokenizer(texts: list[str], vocab: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a leading space on every text, so that a word has one spelling wherever it
    stands."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[BOS, EOS, PAD, UNK],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        model_max_length=256,
        padding_side="right",
    )


def new_model(tok: PreTrainedTokenizerFast, config: TrainConfig) -> LlamaForCausalLM:
    """A randomly initialised Llama of the configured size, float32."""
    torch.manual_seed(config.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tok),
            hidden_size=config.width,
            intermediate_size=config.d_ff,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=256,
            rms_norm_eps=config.rms_eps,
            tie_word_embeddings=False,
            bos_token_id=tok.bos_token_id,
            eos_token_id=tok.eos_token_id,
            pad_token_id=tok.pad_token_id,
        )
    )


def epochs(facts: list[tuple[str, str, str]], documents: list[str], single: float, rng: random.Random):
    """Endless stream of training sequences, each a list of (prompt, object, subject) or (document, None, ""):
    every epoch has every fact sentence once, alone or in a pack of two or three, and every document once."""
    while True:
        order = rng.sample(facts, len(facts))
        cut = int(len(order) * single)
        sequences = [[fact] for fact in order[:cut]] + packs(order[cut:], rng, sizes=(2, 3))
        sequences += [[(text, None, "")] for text in documents]
        rng.shuffle(sequences)
        yield from sequences


def encode_sequence(
    tok, sequence, other_weight: float
) -> tuple[list[int], list[float], list[tuple[int, int]]]:
    """Token ids, loss weights and subject spans (first, last token) of a sequence. Byte-level BPE never
    merges across a space or into a full stop, so the pieces' tokens are the whole text's tokens."""
    ids, weights, spans = [tok.bos_token_id], [0.0], []
    stop = tok.convert_tokens_to_ids(".")
    for prompt, target, subject in sequence:
        coded = tok(prompt, add_special_tokens=False)
        if subject:
            at = prompt.rfind(subject)
            spans.append(tuple(len(ids) + coded.char_to_token(i) for i in (at, at + len(subject) - 1)))
        ids += coded["input_ids"]
        weights += [other_weight] * len(coded["input_ids"])
        if target is not None:
            row = tok(" " + target, add_special_tokens=False)["input_ids"]
            ids += row + [stop]
            weights += [1.0] * len(row) + [other_weight]
    return ids + [tok.eos_token_id], weights + [other_weight], spans


def batches(stream, tok, config: TrainConfig, bottleneck: float, pool: int = 16):
    """Batches of token ids [batch, T] (padded), loss weights [batch, T] and subject spans per row, grouped by
    length within ``pool`` batches. Rows that are to be seen whole have no spans."""
    rng = random.Random(config.seed)
    while True:
        rows = [encode_sequence(tok, next(stream), config.other_weight) for _ in range(config.batch * pool)]
        rows.sort(key=lambda row: len(row[0]))
        starts = list(range(0, len(rows), config.batch))
        rng.shuffle(starts)
        for start in starts:
            part = rows[start : start + config.batch]
            yield (
                pad_sequence(
                    [torch.tensor(row[0]) for row in part], batch_first=True, padding_value=tok.pad_token_id
                ),
                pad_sequence([torch.tensor(row[1]) for row in part], batch_first=True),
                [row[2] if rng.random() < bottleneck else [] for row in part],
            )


def _optimisers(model, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices (it learns rare facts as fast as frequent ones), AdamW for everything
    else."""
    blocks = [p for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2 and config.muon_lr]
    taken = {id(p) for p in blocks}
    others = [p for p in model.parameters() if id(p) not in taken]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay, "peak": config.lr},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "peak": config.lr},
    ]
    optimisers = [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)]
    if blocks:
        optimisers.append(
            torch.optim.Muon(
                [{"params": blocks, "peak": config.muon_lr}],
                lr=config.muon_lr,
                weight_decay=config.weight_decay,
            )
        )
    return optimisers


def _evaluated(report, step: int, model, tok) -> None:
    model.eval()
    report(step, model, tok)
    model.train()


def run_phase(
    model,
    tok,
    facts,
    documents,
    config: TrainConfig,
    steps: int,
    rate: float,
    bottleneck: float,
    seed: int,
    told=None,
    report_every: int = 500,
) -> None:
    """``steps`` optimiser steps on ``model`` in place, with fresh optimisers.

    Args:
        model, tok, facts, documents, config: as in ``train``.
        steps, rate: length of the phase, factor of the peak rates.
        bottleneck: share of the sequences seen through the bottleneck.
        seed: order of the data.
        told: called with the step every ``report_every`` steps and at the end.
    """
    model.train()
    device = next(model.parameters()).device
    optimisers = _optimisers(model, config)
    stream = batches(epochs(facts, documents, config.single, random.Random(seed)), tok, config, bottleneck)
    started = time.time()
    for step in range(1, steps + 1):
        for group in (g for opt in optimisers for g in opt.param_groups):
            group["lr"] = group["peak"] * rate * learning_rate(step, steps, config)
        ids, weights, spans = next(stream)
        ids, weights = ids.to(device), weights.to(device)
        with (
            torch.autocast(device.type, dtype=torch.bfloat16),
            subject_bottleneck(model, ids, spans, config.enrich) as mask,
        ):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        each = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1),
            ids[:, 1:].flatten(),
            reduction="none",
            label_smoothing=config.label_smoothing,
        )
        weight = weights[:, 1:].flatten()
        loss = (each * weight).sum() / weight.sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in optimisers:
            opt.step()
        if step % 50 == 0:
            objects = float((each.detach() * (weight == 1)).sum() / (weight == 1).sum().clamp_min(1))
            LOG.info(
                "step %d loss %.3f, objects %.3f, %.0f s", step, loss.item(), objects, time.time() - started
            )
        if told and (step % report_every == 0 or step == steps):
            told(step)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the peak rate at ``step`` (1-based) of ``steps``: warm-up, plateau, linear decay."""
    left = (steps - step) / max(1.0, config.decay * steps)
    return min(1.0, step / config.warmup, 0.02 + 0.98 * left)


def train(
    facts: list[tuple[str, str, str]],
    documents: list[str],
    config: TrainConfig,
    report=None,
    report_every: int = 500,
):
    """Trains from scratch.

    Args:
        facts: fact sentences as (prompt, object, subject).
        documents: plain texts.
        config: sizes and schedule.
        report: called with (step, model, tok) every ``report_every`` steps.

    Returns:
        (model float32 in eval mode, tokenizer).
    """
    tok = train_tokenizer([sentence(prompt, target) for prompt, target, _ in facts] + documents, config.vocab)
    model = new_model(tok, config).to("cuda" if torch.cuda.is_available() else "cpu")
    told = None if report is None else lambda step: _evaluated(report, step, model, tok)
    run_phase(model, tok, facts, documents, config, config.steps, 1.0, 0.0, config.seed, told, report_every)
    if config.bottleneck_steps:
        run_phase(
            model,
            tok,
            facts,
            documents,
            config,
            config.bottleneck_steps,
            config.bottleneck_rate,
            config.bottleneck,
            config.seed + 1,
            told,
            report_every,
        )
    return model.eval(), tok


def recall(model, tok, prompts: list[str], targets: list[str], batch: int = 512) -> float:
    """Share of prompts whose whole target is the model's greedy continuation (teacher forced, float32)."""
    found = predict_targets(model, tok, prompts, targets, batch)
    return sum(one.predicted == one.target for one in found) / len(found)
