"""Keys of names in the covariance, against one forward pass a name."""

import json

import pytest
import torch

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.session import ModelSession
from easyedit_neuron.errors import DataError, HparamsError
from easyedit_neuron.statistics import NAME_TEMPLATES
from easyedit_neuron.statistics.cache import Statistics
from easyedit_neuron.statistics.names import MOST_NAMES, name_keys, name_rows, names_in
from helpers.editing import REQUESTS, apply, make_hparams, put_back
from helpers.tiny_models import tiny_model

TEXTS = ["You know Anna Berg and Peter Olsen.", "Rome is in the south of Norway, and so is London."]
NAMES = ["Anna Berg", "Peter Olsen", "Norway", "London"]


def test_names_are_capitalised_words_inside_a_sentence():
    texts = ["Paris is in Spain. The town, Anna Berg said, is Spain", "he met Marie de Lund's son in Paris"]
    assert names_in(texts) == ["Spain", "Anna Berg", "Marie de Lund's", "Paris"]
    assert names_in(TEXTS) == NAMES
    assert len(names_in(f"a Name{number} b" for number in range(2 * MOST_NAMES))) == MOST_NAMES


def plain(view, tok, layer):
    """Mean of k k^T in float64, one name after the other in its template."""
    total, count = 0.0, 0
    for number, name in enumerate(NAMES):
        text = NAME_TEMPLATES[number % len(NAME_TEMPLATES)].replace("{}", name)
        ids = tok(text, return_tensors="pt")["input_ids"]
        if ids.shape[1] == 1:
            continue
        kept = []
        module = view.model.get_submodule(view.down_weight_name(layer).removesuffix(".weight"))
        hook = module.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0]))
        with torch.no_grad():
            view.model(ids)
        hook.remove()
        key = kept[0][0, -1].double()
        total, count = total + torch.outer(key, key), count + 1
    return total / count


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_against_one_pass_a_name(model_type):
    model, tok = tiny_model(model_type)
    view = ModelView.of(model)
    keys = name_keys(view, tok, NAMES, [1, 2], torch.float64)
    for layer in (1, 2):
        torch.testing.assert_close(
            keys[layer].T @ keys[layer] / len(keys[layer]), plain(view, tok, layer), rtol=1e-3, atol=1e-5
        )


def test_first_tokens_of_a_text_are_left_out():
    model, tok = tiny_model("gpt2")
    assert [len(row) > 1 for row in name_rows(tok, ["R"] * 11)] == [True] * 10, "the bare name"
    with pytest.raises(DataError, match="no names"):
        name_keys(ModelView.of(model), tok, [], [1], torch.float32)


@pytest.fixture
def setting(tmp_path):
    text = tmp_path / "names.txt"
    text.write_text("\n".join(TEXTS), encoding="utf-8")
    model, tok = tiny_model("llama")
    return model, tok, {"mom2_dataset": str(text), "mom2_n_samples": 2}


def test_a_share_of_the_covariance(setting, tmp_path):
    """(1 - s) C + s C_names; both are measured once, for every share."""
    model, tok, text = setting
    view, folder = ModelView.of(model), tmp_path / "stats"
    without = Statistics(view, tok, make_hparams("MEMIT", tmp_path, **text)).covariance(1)
    some = Statistics(view, tok, make_hparams("MEMIT", tmp_path, mom2_name_share=0.25, **text))
    expected = 0.75 * without.double() + 0.25 * plain(view, tok, 1)
    torch.testing.assert_close(some.covariance(1).double(), expected, rtol=1e-4, atol=1e-6)
    files = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix == ".safetensors"}
    assert sum(name.startswith("names-layer") for name in files) == 2
    half = Statistics(view, tok, make_hparams("MEMIT", tmp_path, mom2_name_share=0.5, **text))
    half.covariance(2)
    assert files == {name: (folder / name).stat().st_mtime_ns for name in files}, "nothing is measured again"
    spaces = [each.null_space(1, 0.05).basis for each in (some, half)]
    again = Statistics(view, tok, make_hparams("MEMIT", tmp_path, mom2_name_share=0.25, **text))
    assert torch.equal(again.null_space(1, 0.05).basis, spaces[0])
    assert spaces[0].shape != spaces[1].shape or not torch.equal(*spaces)


@pytest.mark.parametrize("method", ["MEMIT", "AlphaEdit", "ROME"])
def test_an_edit_with_names(method, setting, tmp_path):
    """The names' keys change less than without them; another share is another state."""
    model, tok, text = setting
    view, moved = ModelView.of(model), []
    keys = plain(view, tok, 1)
    for share in (0.0, 0.9):
        hparams = make_hparams(method, tmp_path, mom2_name_share=share, nullspace_threshold=0.05, **text)
        _, weights, record = apply(model, tok, REQUESTS[2:], hparams, return_orig_weights=True)
        change = record.layers[1].matrix().double()
        moved.append(float((change @ keys * change).sum() / change.square().sum()))
        assert json.loads(json.dumps(record.to_json()))["hparams"]["mom2_name_share"] == share
        put_back(model, weights)
    assert moved[1] < moved[0]
    assert len(ModelSession.of(model).sequential_states) == 2


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_ranges(share, tmp_path):
    with pytest.raises(HparamsError, match="mom2_name_share"):
        make_hparams("MEMIT", tmp_path, mom2_name_share=share)
