"""Kinds of neurons by the tasks that they are active in; ``ablation`` defines them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import NeuronEditError


@dataclass(frozen=True)
class Kind:
    """Neurons of one kind (``general``, ``domain``, ``task``), best first: ``[n, 2]``, layer and number.

    ``own``, ``near``, ``far``: the tasks of the kind, the others of its domain, those of other domains.
    """

    kind: str
    name: str
    neurons: Tensor
    own: list[str]
    near: list[str]
    far: list[str]

    def best(self, count: int) -> dict[int, Tensor]:
        """Layer -> the numbers of its neurons among the ``count`` best."""
        best = self.neurons[:count]
        return {layer: best[best[:, 0] == layer, 1] for layer in best[:, 0].unique().tolist()}


def kinds_of(
    scores: Mapping[str, Tensor], layers: Sequence[int], domains: Mapping[str, Sequence[str]], active: float
) -> list[Kind]:
    """Find general, domain-specific and task-specific neurons.

    Args:
        scores: task -> ``A_t [layers, d_ff]``; ``layers``: number of each row.
        domains: domain -> its tasks; each task is in one domain.
        active: share of all neurons that is active in a task, in (0, 1).
    """
    if not 0 < active < 1:
        raise NeuronEditError(f"--active must lie between 0 and 1, got {active}")
    tasks = list(scores)
    if len(tasks) < 2:
        remedy = "--field names the field with the task"
        raise NeuronEditError(f"roles need at least two tasks, the data has {tasks}; {remedy}")
    values = torch.stack([scores[task].double().cpu().flatten() for task in tasks])  # [tasks, neurons]
    count = max(1, round(active * values.shape[1]))
    thresholds = values.topk(count, dim=1).values[:, -1:]
    is_active = (values >= thresholds) & (values > 0)

    masks = [("general", "all", is_active.all(0), tasks)]
    for domain, members in domains.items():
        inside = torch.tensor([task in members for task in tasks])
        if 2 <= len(members) < len(tasks):
            mask = (is_active[inside].sum(0) >= 2) & ~is_active[~inside].any(0)
            masks.append(("domain", domain, mask, list(members)))
        for task in members:
            masks.append(("task", task, is_active[tasks.index(task)] & (is_active.sum(0) == 1), [task]))

    d_ff, kinds = values.shape[1] // len(layers), []
    for kind, name, mask, own in masks:
        rank = values[[tasks.index(task) for task in own]].mean(0)
        order = torch.where(mask, rank, -torch.inf).argsort(descending=True, stable=True)[: int(mask.sum())]
        neurons = torch.stack([torch.tensor(list(layers))[order // d_ff], order % d_ff], dim=1)
        domain = next(members for members in domains.values() if own[0] in members)
        near = [] if kind == "general" else [task for task in domain if task not in own]
        far = [task for task in tasks if task not in own and task not in near]
        kinds.append(Kind(kind, name, neurons, own, near, far))
    return kinds
