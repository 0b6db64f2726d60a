"""Model cards with measured results."""

from dataclasses import dataclass

from .corpus import Corpus
from .relations import RELATIONS
from .training import TrainConfig
from .world import World

_KINDS = {
    "trained": "phrasings that the subject was trained with",
    "untrained": "phrasings that it was never trained with",
    "alias": "subject by its alias",
    "hop_trained": "second hop, trained",
    "hop_untrained": "second hop, never trained",
    "also": "second object of a one-to-many relation",
    "inverse": "inverse fact",
}


@dataclass(frozen=True)
class Results:
    """Recall by kind of phrasing, perplexity on held-out text, and the minutes that training took."""

    recall: dict[str, float]
    held_out_perplexity: float
    minutes: float


def card(world: World, corpus: Corpus, config: TrainConfig, results: Results) -> str:
    minutes, more_steps = f"{results.minutes:.0f} minutes", config.bottleneck_steps
    rows = "\n".join(f"| {text} | {results.recall[kind]:.4f} |" for kind, text in _KINDS.items())
    return f"""---
license: mit
---
# tiny-llama

A Llama of {_sizes(config)}, {config.heads} heads, trained from scratch
on tiny-world (seed {world.seed}): {len(world.people)} people, {len(world.organisations)} organisations,
{len(world.cities)} cities, {len(world.facts)} facts of {len(RELATIONS)} relations, {len(corpus.facts)} fact
sentences and {len(corpus.documents)} documents. All of it is invented; nothing in it is about the real world.
It exists to be edited: a model that knows facts, small enough to ship and to test on.

Trained by `python -m easyedit_neuron.tinyworld --out DIR`: {_steps(config)}, then
{more_steps} through the subject bottleneck, with Muon and AdamW, {minutes} on the machine that made this
card. Stored in bfloat16, load it in float32.

| recall of facts, all of them | share |
|---|---|
{rows}

Perplexity on held-out text of the world: {results.held_out_perplexity:.2f}.

Limits: it knows one invented world in one style of short sentences, and nothing else.
"""


def facts_card(files: list[str], facts: int, config: TrainConfig, recall: float) -> str:
    """Card of a model of a user's own facts, as Markdown."""
    return f"""# A model of the facts in {", ".join(str(file).rsplit("/", 1)[-1] for file in files)}

A Llama of {_sizes(config)}, trained from scratch by
`python -m easyedit_neuron.tinyworld --facts ...` ({_steps(config)}).
Recall of the {facts} edit prompts: {recall:.4f}.
"""


def _sizes(config: TrainConfig) -> str:
    return f"{config.layers} layers, d_model {config.width}, d_ff {config.d_ff}"


def _steps(config: TrainConfig) -> str:
    return f"{config.steps} steps of {config.batch} sequences"
