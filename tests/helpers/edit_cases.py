"""Edits with everything that EasyEdit measures, and comparisons of what two editors make of them."""

import torch

from helpers.tiny_models import CORPUS, tiny_model

PROMPTS = ["Anna Berg was born in", "Peter Olsen lives in", "Marie Lund plays"]
TARGETS = ["Paris", "Rome and London", "tennis"]
EXTRAS = dict(
    ground_truth=["Rome", "Oslo", "French"],
    subject=["Anna Berg", "Peter Olsen", "Marie Lund"],
    rephrase_prompts=[
        "The birth place of Anna Berg is",
        "Peter Olsen is at home in",
        "The sport of Marie Lund is",
    ],
    locality_inputs={
        "Neighborhood": {
            "prompt": [["Oslo is", "London is the capital of"], "You know", None],
            "ground_truth": [["Norway", "French"], "Norway is Oslo", None],
        },
        "Other": {
            "prompt": ["The capital of Norway", "Rome", "Because I think"],
            "ground_truth": ["is Oslo", "lives", "that"],
        },
    },
    portability_inputs={
        "Reasoning": {
            "prompt": [["Anna lives in", "Berg"], None, "She plays"],
            "ground_truth": [["Paris", "lives in Rome"], None, "tennis"],
        }
    },
)

RECORDS = [
    {
        "prompt": PROMPTS[0],
        "target_new": "Paris",
        "ground_truth": "Rome",
        "rephrase_prompt": EXTRAS["rephrase_prompts"][0],
        "locality": {
            "Neighborhood": {
                "prompt": ["Oslo is", "London is the capital of", "Marie"],
                "ground_truth": ["Norway", "French", "works is"],
            },
            "Single": {"prompt": "The place where", "ground_truth": "Peter lives"},
        },
        "portability": {
            "Reasoning": {
                "prompt": ["Anna lives in", "The mother tongue of Anna Berg is"],
                "ground_truth": ["Paris", "French, and"],
            },
            "One": {"prompt": ["You know"], "ground_truth": ["London"]},
        },
    },
    {"prompt": "Oslo", "target_new": "is Norway is", "ground_truth": None, "locality": {}, "portability": {}},
    {
        "prompt": ["Marie Lund plays", "Rome is the capital of the"],
        "target_new": ["tennis and", "sport"],
        "ground_truth": None,
    },
]


def taught(kind, **overrides):
    """A tiny model that has read the corpus a few times: some of its predictions are right, not all (a random
    one has none)."""
    model, tok = tiny_model(kind, **overrides)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rows = [torch.tensor([tok(line)["input_ids"]]) for line in CORPUS]
    for step in range(30):
        optimizer.zero_grad()
        row = rows[step % len(rows)]
        logits = model(input_ids=row).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, row[0, 1:]).backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return model.eval(), tok


def without_time(metrics):
    """Metrics but for the seconds, which no two runs share."""
    return [{key: value for key, value in metric.items() if key != "time"} for metric in metrics]


def weights_of(model):
    """Copies of all parameters."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def bits_of(model) -> dict[str, bytes]:
    """All parameters, to be compared bit for bit, also where they are not numbers."""
    return {name: value.numpy().tobytes() for name, value in weights_of(model).items()}


def same(first, second):
    """Bit-identical weights."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
