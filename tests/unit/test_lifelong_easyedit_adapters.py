"""What EasyEdit's methods need of the runner, on stand-ins for their modules."""

import torch

from easyedit_neuron.lifelong.easyedit_adapters import follow_prompt


class GRACEAdapter(torch.nn.Module):
    """Known by its name."""

    key_id = 7


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.adapter = GRACEAdapter()

    def forward(self, input_ids, logits_to_keep=None):
        return input_ids


def test_grace_looks_at_the_last_token_of_what_is_asked():
    model, tokens = Model().eval(), torch.ones(1, 5, dtype=torch.long)
    follow_prompt(model)
    model(input_ids=tokens[:, :1])  # generation goes on with one token
    assert model.adapter.key_id == 7
    model(
        input_ids=tokens, logits_to_keep=torch.tensor([2, 3])
    )  # a target of two tokens behind a prompt of three
    assert model.adapter.key_id == 2
    model(tokens)  # as lm-eval calls it
    assert model.adapter.key_id == -1
    model.train()
    model(tokens, logits_to_keep=torch.tensor([1]))  # the method's own training sets it
    assert model.adapter.key_id == -1
