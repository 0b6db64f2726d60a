"""Every method through EasyEdit's editor and the built-in one: the same weights and metrics, whatever the padding side."""

import pytest
import torch
from helpers.contract import CASES, METHODS, about_tokenizer, apply, settings
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, same, taught, weights_of, without_time

from easyedit_neuron.errors import RequestError

cases = pytest.mark.parametrize("method, kind", CASES)
ARGUMENTS = dict(prompts=PROMPTS, target_new=TARGETS, verbose=False, **EXTRAS)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """``{architecture: folder}``. EasyEdit goes by the name: what is called llama it loads by its config, whatever it is."""
    found = {}
    for number, kind in enumerate(("llama", "gpt2", "qwen2")):
        found[kind] = tmp_path_factory.mktemp("models") / f"llama-{number}"
        model, tok = taught(kind)
        model.save_pretrained(found[kind])
        tok.save_pretrained(found[kind])
    return found


@pytest.fixture(scope="session")
def statistics(tmp_path_factory):
    return tmp_path_factory.mktemp("statistics")


@pytest.fixture
def pair(editors, folders, statistics):
    """``make(method, kind) -> (EasyEdit's editor, the built-in one)``."""
    def make(method, kind, **changes):
        theirs, ours = editors(settings(method, statistics, model_name=str(folders[kind]), **changes))
        assert (theirs.tok.padding_side, ours.tok.padding_side) == ("left", "right")
        return theirs, ours

    return make


@cases
def test_single_edits_are_put_back(pair, method, kind):
    found, both = [], pair(method, kind)
    for e in both:
        before, tokenizer = weights_of(e.model), about_tokenizer(e.tok)
        metrics, edited, weights = e.edit(**ARGUMENTS)
        assert edited is e.model and same(weights_of(e.model), before) and about_tokenizer(e.tok) == tokenizer
        assert weights and all(torch.equal(value, before[name]) for name, value in weights.items())
        found.append((metrics, weights))
    assert found[0][0] == found[1][0] and same(found[0][1], found[1][1])


@cases
def test_sequential_edits(pair, method, kind):
    theirs, ours = pair(method, kind)
    before = weights_of(ours.model)
    found = [e.edit(sequential_edit=True, **ARGUMENTS) for e in (theirs, ours)]
    assert found[0][0] == found[1][0] and same(found[0][2], found[1][2])
    assert same(weights_of(found[0][1]), weights_of(found[1][1])) and not same(weights_of(ours.model), before)


@cases
def test_batches(pair, method, kind):
    both = pair(method, kind, batch_size=2)
    before = weights_of(both[1].model)
    found = [e.batch_edit(sequential_edit=True, **ARGUMENTS) for e in both]
    assert without_time(found[0][0]) == without_time(found[1][0]) and same(found[0][2], found[1][2])
    assert same(weights_of(found[0][1]), weights_of(found[1][1])) and not same(weights_of(found[1][1]), before)


@pytest.mark.parametrize("method", METHODS)
def test_an_edit_that_was_put_back_leaves_no_trace(pair, method):
    """Put back by the host, then made again for good: the same weights as on a model that never had it."""
    one = {"prompts": PROMPTS[:1], "target_new": TARGETS[:1], "subject": EXTRAS["subject"][:1], "verbose": False}
    theirs, ours = pair(method, "llama")
    for e in (theirs, ours):
        e.edit(**one)
        e.edit(sequential_edit=True, **one)
    request = {"prompt": PROMPTS[0], "target_new": TARGETS[0], "subject": EXTRAS["subject"][0]}
    model, tok = pair(method, "llama")[1].model, ours.tok
    apply(model, tok, [request], ours.hparams)
    assert same(weights_of(theirs.model), weights_of(ours.model)) and same(weights_of(ours.model), weights_of(model))


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_subject_is_one_error_and_changes_nothing(pair, method):
    """EasyEdit's normal_edit has no place for a subject."""
    for e in pair(method, "llama"):
        before, tokenizer = weights_of(e.model), about_tokenizer(e.tok)
        with pytest.raises(RequestError, match="request 0: field 'subject'"):
            e.normal_edit(prompts=PROMPTS, target_new=TARGETS)
        assert same(weights_of(e.model), before) and about_tokenizer(e.tok) == tokenizer
