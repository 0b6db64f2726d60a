"""The global random generators of Python, numpy and torch."""

import random
from typing import Any

import numpy
import torch


def seed_everything(seed: int) -> None:
    """Seed the global generators; methods with a seed of their own do not use them."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> dict[str, Any]:
    """The state of all global generators, as plain values and tensors."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


NUMPY_KEYS = 624
"""Numbers in the state of the Mersenne twister."""


def set_random_states(saved: dict[str, Any]) -> None:
    """Put the global generators into a state that ``random_states`` returned."""
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = saved["numpy"]
    if not 0 <= position <= len(keys) == NUMPY_KEYS:
        raise ValueError(f"position {position} of {len(keys)} numbers")  # numpy would read beyond its array
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
