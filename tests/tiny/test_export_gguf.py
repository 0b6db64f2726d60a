"""GGUF of an edited model: read back by our own loader, with the same tokens and the same answers."""

import copy
import json

import pytest
import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers

from easyedit_neuron.arch.gguf import load_gguf
from easyedit_neuron.cli import main
from easyedit_neuron.errors import ArchitectureError, HostError
from easyedit_neuron.export import export_gguf, import_edits
from easyedit_neuron.export import gguf as gguf_module
from helpers.contract import apply, fresh, settings
from helpers.editing import REQUESTS, make_hparams
from helpers.editlogs import edited
from helpers.tiny_models import tiny_model, tiny_tokenizer

TEXT = "Anna Berg lives in Paris and plays tennis."


def logits(model, tok):
    with torch.no_grad():
        return model(torch.tensor([tok(TEXT)["input_ids"]])).logits.float()


def edit_of(model, tok, folder, method="MEMIT"):
    """(unedited copy, record) of an edit of the model."""
    base = copy.deepcopy(model)
    hparams = make_hparams("MEMIT", folder) if method == "MEMIT" else settings(method, folder)
    return base, apply(model, tok, [REQUESTS[0]], hparams)[2]


@pytest.mark.parametrize(
    ("model_type", "overrides"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "rope_theta": 500.0}),
        ("mistral", {}),
        ("qwen2", {}),
    ],
)
def test_what_is_read_back_answers_the_same(model_type, overrides, tmp_path):
    model, tok = tiny_model(model_type, **overrides)
    base, record = edit_of(model, tok, tmp_path)
    exported = export_gguf([record], base, tok, tmp_path / "out", base="mine")
    read, read_tok = load_gguf(tmp_path / "out" / "model.gguf")
    assert read_tok(TEXT)["input_ids"] == tok(TEXT)["input_ids"]
    torch.testing.assert_close(logits(read, read_tok), logits(model, tok), rtol=1e-5, atol=1e-5)
    assert float((logits(read, read_tok) - logits(base, tok)).abs().max()) > 1e-3, "the edit is in it"
    side_file = json.loads((tmp_path / "out" / "easyedit_neuron.json").read_text())
    assert side_file["kind"] == "gguf" and list(side_file["files"]) == ["model.gguf"] and exported.size > 0
    names = {tensor.name for tensor in GGUFReader(tmp_path / "out" / "model.gguf").tensors}
    assert ("output.weight" in names) != model.config.tie_word_embeddings


def test_neurons_that_were_added_are_in_it(tmp_path):
    model, tok = fresh("llama")
    base, record = edit_of(model, tok, tmp_path, "Lasting")
    export_gguf([record], base, tok, tmp_path / "out", base="mine")
    read, read_tok = load_gguf(tmp_path / "out" / "model.gguf")
    assert read.config.intermediate_size == model.config.intermediate_size > 48
    torch.testing.assert_close(logits(read, read_tok), logits(model, tok), rtol=1e-5, atol=1e-5)


def test_half_precision_stays_and_bfloat16_is_exact(tmp_path):
    for dtype, stored in ((torch.float16, "F16"), (torch.bfloat16, "F32")):
        model, tok = tiny_model("llama", dtype=dtype)
        base, record = edit_of(model, tok, tmp_path)
        export_gguf([record], base, tok, tmp_path / stored, base="mine")
        tensors = GGUFReader(tmp_path / stored / "model.gguf").tensors
        kinds = {t.name: t.tensor_type.name for t in tensors}
        assert kinds["blk.0.ffn_down.weight"] == stored and kinds["output_norm.weight"] == "F32"


def test_special_tokens_and_the_template_are_in_it(tmp_path):
    model, tok = tiny_model("llama")
    tok.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    base, record = edit_of(model, tok, tmp_path)
    export_gguf([record], base, tok, tmp_path / "out", base="mine")
    read_tok = load_gguf(tmp_path / "out" / "model.gguf")[1]
    assert (read_tok.bos_token, read_tok.eos_token) == ("<s>", "</s>")
    assert read_tok.chat_template == tok.chat_template
    assert read_tok("a</s>b")["input_ids"] == tok("a</s>b")["input_ids"]


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_the_way_of_cutting_words_is_recognised(pre):
    tok = tiny_tokenizer()
    fields = gguf_module.tokenizer_fields(tok, 400)
    assert fields["tokenizer.ggml.tokens"][-1] == "[PAD399]" and fields["tokenizer.ggml.token_type"][-1] == 5
    fields |= {"tokenizer.ggml.pre": pre}
    rebuilt = gguf_module.byte_level_tokenizer(fields)
    again = gguf_module.tokenizer_fields(rebuilt, 400)
    assert gguf_module._same_tokens(gguf_module.byte_level_tokenizer(again), rebuilt)


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path):
    gpt, tok = tiny_model("gpt2")
    with pytest.raises(ArchitectureError, match="llama, mistral, qwen2, not 'gpt2'.*--to merged"):
        export_gguf([], gpt, tok, tmp_path / "out", base="mine")
    model, tok = tiny_model("llama")
    tok.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ArchitectureError, match="no way of cutting words"):
        export_gguf([], model, tok, tmp_path / "out", base="mine")
    scaled = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    model, tok = tiny_model("llama", rope_parameters=scaled)
    with pytest.raises(ArchitectureError, match="rope_type 'linear'"):
        export_gguf([], model, tok, tmp_path / "out", base="mine")
    assert not (tmp_path / "out").exists()


def test_a_file_that_reads_back_otherwise_is_not_kept(tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    base, record = edit_of(model, tok, tmp_path)
    monkeypatch.setattr(gguf_module, "_interleaved", lambda matrix, heads: matrix)
    with pytest.raises(HostError, match="q_proj.weight is not what was written"):
        export_gguf([record], base, tok, tmp_path / "out", base="mine")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_model_that_other_commands_take(tmp_path, capfd):
    base, tok = edited("qwen2", "KNE", tmp_path, requests=[])[:2]
    for part in (base, tok):
        part.save_pretrained(tmp_path / "base")
    (tmp_path / "run").mkdir()
    model = edited("qwen2", "KNE", tmp_path, name="run/log", model_name=str(tmp_path / "base"))[0]
    out = tmp_path / "gguf"
    assert main(["export", str(tmp_path / "run"), "--to", "gguf", "--out", str(out)]) == 0
    assert f"edits as gguf: {out} (" in capfd.readouterr().out
    torch.testing.assert_close(
        logits(load_gguf(out / "model.gguf")[0], tok), logits(model, tok), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(Exception, match="name it as model.path"):
        import_edits(out, base, tok, tmp_path / "again")
