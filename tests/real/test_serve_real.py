"""The server on the real model: its chat template, and a stream that is the whole answer."""

import pytest

from easyedit_neuron import LastingHyperParams
from easyedit_neuron.editlog import EditLog
from easyedit_neuron.registry import get_method
from easyedit_neuron.serving.edited_model import EditedModel

pytest.importorskip("fastapi", reason="pip install 'easyedit-neuron[serve]'")

from helpers.served import served

NAME = "smollm2-135m-instruct"


def test_a_chat(smollm2, tmp_path):
    hparams = LastingHyperParams.from_hparams(f"Lasting/{NAME}")
    edited = EditedModel(*smollm2, EditLog(tmp_path / "log"), get_method("Lasting"), hparams)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    with served(edited) as server:
        create = server.client.chat.completions.create
        answer = create(model=NAME, messages=messages, temperature=0)
        assert answer.choices[0].message.content == "The capital of France is Paris."
        assert (answer.choices[0].finish_reason, answer.usage.prompt_tokens) == ("stop", 37)
        stream = create(model=NAME, messages=messages, temperature=0, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == answer.choices[0].message.content
