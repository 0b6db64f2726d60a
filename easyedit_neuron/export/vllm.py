"""Whether vLLM's LoRA loader takes an adapter, by the rules that it had when this was written.

The rules were read in vLLM's ``lora/peft_helper.py``, ``lora/lora_model.py`` and ``config/lora.py``; vLLM
itself was not run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ..utils.plain_trees import read_json
from .lora import CONFIG, WEIGHTS

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that ``--max-lora-rank`` takes."""
PREFIX = "base_model.model."
_REFUSED = ("lora_bias", "use_dora", "modules_to_save", "alora_invocation_tokens", "layer_replication")
_REFUSED += ("use_bdlora", "use_qalora")


@dataclass(frozen=True)
class VLLMCheck:
    """``max_lora_rank`` that vLLM must be started with, and why it would refuse the adapter (empty: it takes
    it)."""

    max_lora_rank: int | None
    problems: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As the side file has it."""
        return {"max_lora_rank": self.max_lora_rank, "problems": self.problems}


def vllm_check(folder: Path) -> VLLMCheck:
    """Check the files of a peft adapter."""
    config = read_json(folder / CONFIG)
    missing = [name for name in ("r", "lora_alpha", "target_modules") if name not in config]
    if missing:
        return VLLMCheck(None, [f"{CONFIG} has no {missing[0]!r}"])
    problems = [f"{name!r} is set" for name in _REFUSED if config.get(name)]
    if config.get("bias", "none") != "none":
        problems.append("biases change")
    if isinstance(config.get("init_lora_weights"), str):
        problems.append("'init_lora_weights' may change the base model")

    # Ranks and scales. Older versions of vLLM do not read the patterns and scale every module alike.
    ranks = {"": config["r"], **(config.get("rank_pattern") or {})}
    alphas = config.get("alpha_pattern") or {}
    scales = {name: alphas.get(name, config["lora_alpha"]) / rank for name, rank in ranks.items()}
    if len(set(scales.values())) > 1:
        problems.append("modules are scaled differently")
    least = [rank for rank in RANKS if rank >= max(ranks.values())]
    if not least:
        remedy = f"--max-rank {RANKS[-1]} cuts it"
        problems.append(
            f"rank {max(ranks.values())} is more than {RANKS[-1]}, the most that it takes; {remedy}"
        )
    return VLLMCheck(least[0] if least else None, problems + _problems_of_tensors(folder, config, ranks))


def _problems_of_tensors(folder: Path, config: dict[str, Any], ranks: dict[str, int]) -> list[str]:
    problems: list[str] = []
    modules: dict[str, set[str]] = {}
    with safe_open(folder / WEIGHTS, "pt") as file:
        for name in file.keys():  # noqa: SIM118 not a dict
            module, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
            if not name.startswith(PREFIX) or part not in ("A.weight", "B.weight"):
                problems.append(f"{WEIGHTS} holds {name!r}, which is no matrix of a LoRA")
                continue
            modules.setdefault(module, set()).add(part)
            tensor = file.get_slice(name)
            rank, dtype = tensor.get_shape()[0 if part[0] == "A" else 1], tensor.get_dtype()
            if rank != ranks.get(module, config["r"]):
                problems.append(f"{name!r} is of rank {rank}, {CONFIG} says {ranks.get(module, config['r'])}")
            if dtype not in ("F32", "F16", "BF16"):
                problems.append(f"{name!r} is of dtype {dtype}")
    problems += [f"{module!r} has one of two matrices" for module, parts in modules.items() if len(parts) < 2]
    if set(modules) != set(config["target_modules"]):
        problems.append(f"{WEIGHTS} and 'target_modules' are of different modules")
    return problems
