"""A GPU for tests of what happens when it is full, where there is none."""

import torch


class OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU; ``.cpu()`` and ``.to()`` give a plain one."""

    @property
    def device(self):
        return torch.device("cuda", 0)

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def to(self, *args, **kwargs):
        return self.as_subclass(torch.Tensor).to(*args, **kwargs)
