"""The double of EasyEdit (tests/helpers/double) beside the real one: the same calls of a method, restores and
results."""

import inspect

import pytest

from easyedit_neuron import registry
from easyedit_neuron.host import register
from easyedit_neuron.host.model_name_check import NAME_RULES
from helpers import recorder
from helpers.dummy_method import DummyHyperParams
from helpers.edit_cases import same, weights_of, without_time
from helpers.fake_easyeditor import load_double
from helpers.matrix import CALLS, KINDS, files_below, prepare, run, saved


@pytest.fixture(scope="module")
def both(easyeditor):
    """(EasyEdit, the double), both of which know the recorder."""
    recorder.register_recorder()
    register()
    return easyeditor, load_double()


def registered_here():
    return {name for spec in registry.methods(plugin=True) for name in spec.names}


def registry_of(package):
    return inspect.getmodule(package.BaseEditor).ALG_DICT, inspect.getmodule(package.BaseEditor).BatchEditor


def test_the_registry(both):
    (real, real_batches), (double, double_batches) = (registry_of(package) for package in both)
    assert (
        set(real) == set(double) and type(real) is type(double) is dict and registered_here() <= set(double)
    )
    assert [(m.name, m.value) for m in real_batches] == [(m.name, m.value) for m in double_batches]
    names = [*real, "CALINET", "KE", "nothing"]
    assert [real_batches.is_batchable_method(name) for name in names] == [
        double_batches.is_batchable_method(name) for name in names
    ]


def test_signatures(both):
    for name in ("__init__", "edit", "edit_requests", "batch_edit", "normal_edit", "generate_edit"):
        real, double = (
            inspect.signature(getattr(package.BaseEditor, name)).parameters.values() for package in both
        )
        assert [(p.name, p.default, p.kind) for p in real] == [(p.name, p.default, p.kind) for p in double]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", CALLS)
def test_the_same_calls_restores_and_results(both, kind, call, folder, tmp_path, monkeypatch):
    """All that a method is given and sees, all that a caller gets, and what is left on disk."""
    results, call = [], CALLS[call]
    for number, package in enumerate(both):
        here = tmp_path / str(number)
        here.mkdir()
        monkeypatch.chdir(here)
        recorder.CALLS.clear()
        editor = package.BaseEditor.from_hparams(
            recorder.RecorderHyperParams(
                model_name=str(saved(kind, folder)),
                batch_size=2 if call.name in ("batch_edit", "normal_edit") else 1,
            )
        )
        prepare(editor, call)
        before = weights_of(editor.model)
        metrics, edited, weights = run(editor, call)
        assert edited is editor.model and len(recorder.CALLS) == len(call.chunks)
        results.append(
            {
                "metrics": metrics and without_time(metrics),
                "times": metrics and ["time" in m for m in metrics],
                "order": metrics and [list(m) for m in metrics],
                "calls": list(recorder.CALLS),
                "files": files_below(here),
                "weights": (weights_of(edited), weights, same(weights_of(edited), before)),
            }
        )
    real, double = results
    for tensors in range(2):
        assert same(real["weights"][tensors], double["weights"][tensors])
    assert real["weights"][2] == double["weights"][2] == (not call.sequential)
    for name in ("metrics", "times", "order", "calls", "files"):
        assert real[name] == double[name], name


def test_single_edits_ask_for_batch_size_one(both, folder):
    """Theirs for methods of their own, to which our checks do not apply; the error is EasyEdit's
    assertion."""
    for package in both:
        hparams = DummyHyperParams(model_name=str(saved("llama", folder)), batch_size=2)
        hparams.alg_name = "MEMIT"
        editor = package.BaseEditor.from_hparams(hparams)
        with pytest.raises(AssertionError, match="Single Editing: batch_size should be set to 1"):
            run(editor, CALLS["edit"])


@pytest.mark.parametrize("name", ["llama", "gpt", "qwen2", "qwen3", "mistral", "baichuan"])
def test_padding_side_and_tokens(both, name, folder, tmp_path):
    """For every method in the registry but QLoRA, which loads its model otherwise."""
    (tmp_path / f"{name}-x").symlink_to(saved("qwen2", folder))
    for method in (
        ("ROME", "AlphaEdit", "FT") if name != "llama" else sorted(set(registry_of(both[0])[0]) - {"QLoRA"})
    ):
        tokenizers = []
        for package in both:
            hparams = DummyHyperParams(model_name=str(tmp_path / f"{name}-x"))
            hparams.alg_name = method
            tok = package.BaseEditor.from_hparams(hparams).tok
            tokenizers.append(
                (tok.padding_side, type(tok).__name__, dict(tok.special_tokens_map), tok("Oslo")["input_ids"])
            )
        assert tokenizers[0] == tokenizers[1], method


@pytest.mark.parametrize("name", [rule.word for rule in NAME_RULES] + ["nothing that it knows"])
def test_classes_by_words_in_the_path(both, name, monkeypatch):
    """Which class loads model and tokenizer, for every word of ours (host/model_name_check.py) and none."""
    import transformers

    class Loaded(Exception):
        pass

    results = []
    for package in both:

        def stop(cls, *args, **kwargs):
            raise Loaded(cls.__name__, "fp32" in kwargs)

        with monkeypatch.context() as patched:
            for cls in ("AutoModelForCausalLM", "AutoModel", "T5ForConditionalGeneration"):
                patched.setattr(getattr(transformers, cls), "from_pretrained", classmethod(stop))
            hparams = DummyHyperParams(model_name=f"folder/{name}-1")
            hparams.alg_name = "FT"
            try:
                editor = package.BaseEditor.from_hparams(hparams)
                results.append((editor.model, editor.tok))
            except (Loaded, NotImplementedError) as problem:
                results.append((type(problem).__name__, *problem.args))
    assert results[0] == results[1]
