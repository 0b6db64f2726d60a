"""Edits inside the chat template: every method reads it, changes the answer there, and is measured there."""

import pytest
import torch

from easyedit_neuron import data
from easyedit_neuron.arch.chat import chat_tokenizer
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.arch.widen import free_neurons
from easyedit_neuron.cli import main
from easyedit_neuron.editlog import EditLog, recording, replay, undo
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.evaluation import evaluate_all
from easyedit_neuron.export import export_peft
from easyedit_neuron.host.base_editor import BaseEditor
from easyedit_neuron.models.fine.fine_hparams import FiNEHyperParams
from easyedit_neuron.models.ft.ft_hparams import FTHyperParams
from easyedit_neuron.models.lasting.background import measured_background
from easyedit_neuron.models.lasting.state import LastingState
from easyedit_neuron.registry import get_method
from helpers import contract
from helpers.chats import answered_ids, asked_ids, log_probability, with_template
from helpers.editing import METHODS as EDITING
from helpers.editing import REQUESTS, changed_tensors, make_hparams, snapshot
from helpers.tiny_models import tiny_model

METHODS = ("FT", "FiNE", "KNE", "PNKE", "NMKE", "Lasting", "ROME", "MEMIT", "AlphaEdit")
MASKED = ("NMKE", "PNKE")
"""Their masks are of no use in a random model."""
REQUEST = REQUESTS[0]
HEAD = "<s>[user]\n"


def settings(method, folder, **changes):
    """Of any method, for a tiny model, inside the chat."""
    changes = {"use_chat_template": True, **changes}
    if method == "FT":
        fields = dict(alg_name="FT", model_name="in memory", device="cpu", layers=[1], num_steps=5, lr=0.01)
        return FTHyperParams(**{**fields, "batch_size": 1, **changes})
    if method in EDITING:
        return make_hparams(method, folder, **changes)
    if method in ("PNKE", "Lasting"):
        changes |= {"v_num_grad_steps": 20, "v_lr": 1.0}
    return contract.settings(method, folder, **changes)


def edit(model, tok, hparams, **options):
    return get_method(hparams.alg_name).load_apply()(model, tok, [REQUEST], hparams, **options)


CASES = [(method, kind) for method in METHODS for kind in ("llama", "gpt2")]


def test_lasting_tells_subjects_in_a_chat_from_names_in_the_chat(tmp_path):
    model, tok = tiny_model("llama", seed=3)
    with_template(tok)
    view, hparams = ModelView.of(model), settings("Lasting", tmp_path)
    state = LastingState.of(view, tok, hparams)
    in_chat, _ = measured_background(view, chat_tokenizer(tok), hparams)
    plain, _ = measured_background(view, tok, hparams)
    for layer, moments in state.moments.items():
        assert torch.equal(moments["moment"], in_chat[layer]["moment"])
        assert not torch.allclose(moments["moment"], plain[layer]["moment"])


@pytest.mark.parametrize("method, kind", [case for case in CASES if case[0] not in MASKED])
def test_the_answer_is_likelier_in_the_chat(method, kind, tmp_path):
    """Wherever a method reads the subject, it stands in the user's turn."""
    model, tok = tiny_model(kind, seed=3)
    with_template(tok)
    before = log_probability(model, tok, REQUEST["prompt"], REQUEST["target_new"])
    texts = []

    def read(_, args, inputs):
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None or mask is None or ids.shape != mask.shape:
            return  # written text, or the rest of rows whose beginning has been run
        texts.extend(tok.decode(row[real.bool()]) for row, real in zip(ids, mask))

    hook = model.register_forward_pre_hook(read, with_kwargs=True)
    model, _ = edit(model, tok, settings(method, tmp_path))
    hook.remove()
    assert log_probability(model, tok, REQUEST["prompt"], REQUEST["target_new"]) > before + 0.05
    corpus = ("Anna Berg was born in Paris. Anna", "Anna Berg lives in Rome.")  # text of the statistics
    asked = [text for text in texts if REQUEST["subject"] in text and not any(t in text for t in corpus)]
    assert asked and all(text.startswith(HEAD) and text.count("<s>") == 1 for text in asked), asked
    assert any("</s>\n[assistant]\n" in text for text in asked)


@pytest.mark.parametrize("method", MASKED)
def test_the_answer_of_the_shipped_model_is_likelier_in_the_chat(method, tmp_path):
    hparams = get_method(method).load_hparams().from_hparams(f"{method}/tiny-llama")
    few = {"mom2_n_samples": 300, "stats_dir": str(tmp_path)}
    model, tok, _ = load_model(hparams)
    with_template(tok)
    (request,) = data.load("tiny-world", size=1)
    texts = request["prompt"], request["target_new"]
    before = log_probability(model, tok, *texts)
    apply = get_method(method).load_apply()
    apply(model, tok, [request], hparams.override({"use_chat_template": True, **few}))
    assert log_probability(model, tok, *texts) > before + 5


@pytest.mark.parametrize("method", METHODS)
def test_without_a_template_nothing_is_changed(method, tmp_path):
    model, tok = tiny_model("llama", seed=3)
    before = snapshot(model)
    hparams = settings(method, tmp_path)
    with pytest.raises(HparamsError, match="field 'use_chat_template': the tokenizer has no chat template"):
        edit(model, tok, hparams)
    hparams.model_name = model, tok
    editor = BaseEditor.from_hparams(hparams)
    with pytest.raises(HparamsError, match="no chat template; set the field to false"):
        editor.edit([REQUEST["prompt"]], [REQUEST["target_new"]], subject=[REQUEST["subject"]])
    assert not changed_tensors(model, before) and not (tmp_path / "stats").exists()


def accuracy(model, tok, prompt, answer):
    """Token accuracy of an answer in the chat, by hand."""
    start, whole = len(asked_ids(tok, prompt)), answered_ids(tok, prompt, answer)
    end = len(whole) - len(tok("</s>\n", add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        best = model(input_ids=torch.tensor([whole])).logits[0].argmax(-1)
    right = [int(best[at - 1]) == whole[at] for at in range(start, end)]
    return sum(right) / len(right)


def test_the_built_in_editor_measures_in_the_chat(tmp_path):
    model, tok = tiny_model("llama", seed=3)
    with_template(tok)
    trained = dict(layers=[1, 2, 3], num_steps=40, objective_optimization="target_new")
    hparams = settings("FT", tmp_path, **trained)
    hparams.model_name = model, tok
    neighbour = {"near": {"prompt": ["Marie Lund works"], "ground_truth": ["London"]}}
    hop = {"hop": {"prompt": ["The place where Anna Berg"], "ground_truth": ["Oslo"]}}
    editor = BaseEditor.from_hparams(hparams)
    texts = REQUEST["prompt"], REQUEST["target_new"]
    further = dict(rephrase_prompts="Anna Berg comes from", locality_inputs=neighbour)
    further |= dict(portability_inputs=hop, subject=REQUEST["subject"])
    metrics, edited, _ = editor.edit(*texts, **further, sequential_edit=True, verbose=False)
    post = metrics[0]["post"]
    assert post["rewrite_acc"] == [accuracy(edited, tok, *texts)]
    assert post["rewrite_acc"][0] > metrics[0]["pre"]["rewrite_acc"][0]
    assert post["rephrase_acc"] == [accuracy(edited, tok, "Anna Berg comes from", texts[1])]
    assert post["portability"]["hop_acc"] == [accuracy(edited, tok, "The place where Anna Berg", "Oslo")]
    plain = evaluate_all(edited, tok, [metrics[0]["requested_rewrite"]])
    assert post["locality"]["near_output"] == plain[0]["locality"]["near_output"]  # as in EasyEdit
    in_chat = evaluate_all(edited, chat_tokenizer(tok), [metrics[0]["requested_rewrite"]])
    assert in_chat[0]["rewrite_acc"] == post["rewrite_acc"]
    asked = [metrics[0]["requested_rewrite"]]
    (there,) = evaluate_all(edited, tok, asked, hparams=hparams, locality_in_chat=True)
    assert there["locality"] == in_chat[0]["locality"]


def test_the_log_says_so_and_takes_back_and_exports(tmp_path):
    model, tok = tiny_model("llama", seed=3)
    with_template(tok)
    before, hparams = snapshot(model), settings("AlphaEdit", tmp_path)
    with recording(model, tmp_path / "log"):
        edit(model, tok, hparams)
        edit(model, tok, hparams.override({"use_chat_template": False}))
    log = EditLog(tmp_path / "log")
    assert [entry.get("use_chat_template") for entry in log.entries] == [True, None]
    assert [record.made_in_chat for record in log] == [True, False]
    twin = tiny_model("llama", seed=3)[0]
    assert replay(log, twin, tok).exact and not changed_tensors(twin, snapshot(model))
    source = tiny_model("llama", seed=3)[0]
    assert export_peft(log, source, tmp_path / "adapter", tok=tok, max_rank=1)
    assert not changed_tensors(source, before)


@pytest.mark.parametrize("method", ["AlphaEdit", "MEMIT", "KNE", "Lasting"])
def test_an_edit_in_the_chat_is_taken_back(method, tmp_path):
    """The next edit is made as if it had never been, also with one in plain text between them."""
    ends = []
    for takes_back in (True, False):
        model, tok = tiny_model("llama", seed=3)
        with_template(tok)
        hparams, first, last = settings(method, tmp_path), REQUESTS[0], REQUESTS[2]
        plain = hparams.override({"use_chat_template": False})
        with recording(model, tmp_path / f"log-{takes_back}") as log:
            if takes_back:
                contract.apply(model, tok, [first], hparams)
                asked = (model, tok, first["prompt"], first["target_new"])
                edited = log_probability(*asked)
                undo(model, log, 1)
                assert log_probability(*asked) < edited
            contract.apply(model, tok, [REQUESTS[1]], plain)
            contract.apply(model, tok, [last], hparams)
        ends.append(log_probability(model, tok, last["prompt"], last["target_new"]))
        assert [record.made_in_chat for record in log][-2:] == [False, True]
    assert ends[0] == pytest.approx(ends[1], abs=1e-3)


def test_neurons_of_edits_in_both_forms_stay(tmp_path):
    """Lasting has a state for each form; an edit in one takes no neuron of the other."""
    model, tok = tiny_model("llama", seed=3)
    with_template(tok)
    hparams = settings("Lasting", tmp_path)
    edit(model, tok, hparams)
    edit(model, tok, hparams.override({"use_chat_template": False}))
    assert len(free_neurons(ModelView.of(model), hparams.layers[0])) == hparams.capacity - 2


def test_edit_and_ask_by_hand(tmp_path, monkeypatch, capsys):
    """The log is asked in the form of its newest edit, or as told."""
    monkeypatch.chdir(tmp_path)
    (request,) = data.load("tiny-world", size=1)
    words = ["edit", request["prompt"], "--subject", request["subject"], "--target", request["target_new"]]
    words += ["--method", "FiNE", "--chat"]
    assert main([*words, "--model", "tiny-llama"]) == 2
    assert "the tokenizer has no chat template" in capsys.readouterr().err and not list(tmp_path.iterdir())

    model, tok, _ = load_model(FiNEHyperParams.from_hparams("FiNE/tiny-llama"))
    for part in (model, with_template(tok)):
        part.save_pretrained("instruct")
    file = ["--model", "instruct", "--hparams", "FiNE/tiny-llama"]
    assert main([*words, *file]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "..." in line][1:3]
    assert main(["log", "easyedit-neuron-edits"]) == 0
    assert "FiNE in chat" in capsys.readouterr().out
    for option, is_same in (([], True), (["--chat"], True), (["--no-chat"], False)):
        assert main(["ask", "easyedit-neuron-edits", request["prompt"], *option]) == 0
        asked = [line for line in capsys.readouterr().out.splitlines() if "..." in line][1:3]
        assert (asked == said) is is_same
