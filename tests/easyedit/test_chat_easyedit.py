"""Edits inside the chat template in both editors; EasyEdit measures ``template + " " + answer``."""

import pytest

from easyedit_neuron.errors import HparamsError
from easyedit_neuron.models.kne.kne_hparams import KNEHyperParams
from helpers.chats import CHAT
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS

TEMPLATE = CHAT.replace("{{ bos_token }}", "")  # EasyEdit's measure puts the tokenizer's in front


def hparams_of(folder):
    fields = dict(attribution_steps=2, share_of_parameters=0.5, num_steps=40, lr=0.05, kl_factor=0.0)
    fields |= dict(alg_name="KNE", model_name=str(folder), device="cpu", use_chat_template=True)
    return KNEHyperParams(**fields)


def edit(editor):
    texts = PROMPTS[:1], TARGETS[:1]
    return editor.edit(*texts, subject=EXTRAS["subject"][:1], sequential_edit=True, verbose=False)[0][0]


def test_an_edit_in_the_chat_is_what_each_editor_measures(editors, llama_folder):
    for editor in editors(hparams_of(llama_folder)):
        editor.tok.chat_template = TEMPLATE
        metrics = edit(editor)
        assert metrics["pre"]["rewrite_acc"] != metrics["post"]["rewrite_acc"] == [1.0]


def test_without_a_template_both_say_so(editors, llama_folder):
    for editor in editors(hparams_of(llama_folder)):
        editor.tok.chat_template = None
        with pytest.raises(HparamsError, match="field 'use_chat_template': the tokenizer has no chat"):
            edit(editor)
