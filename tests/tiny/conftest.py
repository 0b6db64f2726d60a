"""What tests of tiny models share."""

import pytest
import torch


@pytest.fixture
def exact(monkeypatch):
    """Models compute norms and softmax in float32 whatever their dtype; here float32 is another name of
    float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)
