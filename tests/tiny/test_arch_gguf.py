"""GGUF files of a tiny llama: logits, token ids and errors."""

import types

import pytest
import torch

from easyedit_neuron.arch.gguf import load_gguf
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.errors import HostError
from helpers.gguf_files import write_gguf
from helpers.tiny_models import tiny_model

TEXT = "Anna Berg lives in 1984, Zoë's café!\n"


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama", bos=False)


def written(tmp_path, llama, **options):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, *llama, **options)
    return path


def test_logits_and_token_ids_are_those_of_the_model(tmp_path, llama):
    model, tok = llama
    read_model, read_tok = load_gguf(written(tmp_path, llama), dtype=torch.float32)
    assert read_tok(TEXT)["input_ids"] == tok(TEXT)["input_ids"]
    assert (read_tok.bos_token, read_tok.eos_token) == ("<s>", "</s>")
    ids = torch.tensor([tok(TEXT)["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(read_model(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_load_model_takes_a_file_and_gives_a_pad_token(tmp_path, llama):
    hparams = types.SimpleNamespace(model_name=str(written(tmp_path, llama)), device="cpu")
    model, tok, device = load_model(hparams)
    assert tok.pad_token == "</s>" and device.type == "cpu" and not model.training


def test_bos_is_added_where_the_file_says_so(tmp_path, llama):
    plain = llama[1](TEXT)["input_ids"]
    _, tok = load_gguf(written(tmp_path, llama, add_bos=True))
    assert tok(TEXT)["input_ids"] == [tok.bos_token_id, *plain]
    assert tok(TEXT, add_special_tokens=False)["input_ids"] == plain


def test_smollm_splits_numbers_into_digits(tmp_path, llama):
    _, tok = load_gguf(written(tmp_path, llama, pre="smollm"))
    tokens = tok.convert_ids_to_tokens(tok("in 1984")["input_ids"])
    assert tokens[-4:] == ["1", "9", "8", "4"]
    assert tok.decode(tok(TEXT)["input_ids"]) == TEXT


def test_errors_name_the_file(tmp_path, llama):
    with pytest.raises(HostError, match=r"there is no file .*missing\.gguf"):
        load_gguf(tmp_path / "missing.gguf")
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(written(tmp_path, llama).read_bytes()[:2000])
    with pytest.raises(HostError, match=r"damaged\.gguf: cannot be read as a GGUF model"):
        load_gguf(damaged)
