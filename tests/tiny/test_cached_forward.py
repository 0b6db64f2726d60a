"""The fast search for z* and the fast keys against whole forwards with hooks placed by hand, in float64."""

import pytest
import torch

from easyedit_neuron.arch.tokens import subject_last_index
from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.locate_then_edit import cached_forward
from easyedit_neuron.locate_then_edit import compute_z as compute_z_module
from easyedit_neuron.locate_then_edit.compute_keys import LayerwiseKeys, compute_keys, key_prompts
from easyedit_neuron.locate_then_edit.compute_z import compute_z
from helpers.editing import CONTEXTS, REQUESTS, find_target, make_hparams
from helpers.plain_search import plain_search
from helpers.tiny_models import ALL_TYPES, FFN_WIDTH, tiny_model

FLAT, LAYER = ["{}", *CONTEXTS], 1
LOOSE = {"mpt": 1e-5}  # its softmax computes in float32
WHOLE_ROWS = ("qwen3_5_text",)  # linear attention has a state and no keys of single tokens
CASES = [(name, {}, "layer_out") for name in ALL_TYPES] + [
    ("mistral", {"sliding_window": 6}, "layer_out"),
    ("gemma2", {"sliding_window": 6}, "layer_out"),
    ("cohere2", {"sliding_window": 6}, "layer_out"),
    ("gpt_neo", {"window_size": 4}, "layer_out"),
    ("olmo3", {"sliding_window": 6}, "layer_out"),
    ("falcon", {"parallel_attn": False, "multi_query": False, "alibi": True}, "layer_out"),
    ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, "layer_out"),
    *((name, {}, "ffn_out") for name in ("llama", "gpt2", "gptj", "gemma2", "granite", "bloom")),
]


@pytest.mark.parametrize("model_type, overrides, site", CASES, ids=lambda x: str(x))
def test_search_in_float64(model_type, overrides, site, tmp_path, exact):
    """Three requests in a batch, one of which stops early and leaves it, against each alone by the plain
    formula."""
    model, tok = tiny_model(model_type, dtype=torch.float64, **overrides)
    view = ModelView.of(model)
    module = view.layer(LAYER) if site == "layer_out" else view.down_proj(LAYER)
    hparams = make_hparams("AlphaEdit", tmp_path, v_num_grad_steps=8, v_lr=0.3, clamp_norm_factor=1.0)
    losses = [plain_search(model, module, tok, r, hparams, FLAT)[2] for r in REQUESTS]
    # a stop between the fastest and the slowest request
    stop = sorted(min(each) for each in losses)
    hparams = hparams.override({"v_stop_loss": (stop[0] + stop[1]) / 2})
    targets = compute_z(view, tok, prepare(REQUESTS), hparams, FLAT, LAYER, site=site).targets
    assert len({len(t.losses) for t in targets}) > 1 or len(targets[0].losses) == 8
    for target, request in zip(targets, REQUESTS):
        initial, delta, plain = plain_search(model, module, tok, request, hparams, FLAT)
        assert target.value.dtype == torch.float64
        loose = LOOSE.get(model_type, 0.0)
        assert target.losses == pytest.approx(plain, rel=max(loose, 1e-9))
        torch.testing.assert_close(target.initial, initial, rtol=max(loose, 1e-8), atol=max(loose, 1e-9))
        moved = target.value - target.initial
        torch.testing.assert_close(moved, delta, rtol=max(100 * loose, 1e-8), atol=max(100 * loose, 1e-9))


@pytest.mark.parametrize("model_type", [name for name in ALL_TYPES if name not in WHOLE_ROWS])
def test_only_the_changed_tokens_are_run(model_type, tmp_path, monkeypatch):
    """The path with frozen keys and values is the one taken: a step sees fewer tokens than the row has."""
    widths, plain = [], cached_forward.Suffix.run

    def run(self, *args, **kwargs):
        widths.append((self.past is not None, self.ids.shape[1], self.mask.shape[1]))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(cached_forward.Suffix, "run", run)
    model, tok = tiny_model(model_type)
    find_target(
        ModelView.of(model), tok, prepare(REQUESTS)[0], make_hparams("AlphaEdit", tmp_path), FLAT, LAYER
    )
    assert widths and all(frozen and width < whole for frozen, width, whole in widths)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gemma2"])
def test_without_keys_and_values_whole_rows_give_the_same(model_type, tmp_path, monkeypatch):
    model, tok = tiny_model(model_type, dtype=torch.float64)
    args = ModelView.of(model), tok, prepare(REQUESTS), make_hparams("AlphaEdit", tmp_path), FLAT, LAYER
    fast = compute_z(*args).targets
    monkeypatch.setattr(cached_forward.CleanPass, "_past", lambda self, width: None)
    for target, other in zip(fast, compute_z(*args).targets):
        assert target.losses == pytest.approx(other.losses, rel=1e-10)
        torch.testing.assert_close(target.value, other.value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("size", [1, 2])
def test_batching_changes_nothing(size, tmp_path):
    model, tok = tiny_model("llama")
    hparams = make_hparams("AlphaEdit", tmp_path)
    args = ModelView.of(model), tok, prepare(REQUESTS)
    together = compute_z(*args, hparams, FLAT, LAYER).targets
    for target, other in zip(
        together, compute_z(*args, hparams.override({"z_batch_size": size}), FLAT, LAYER).targets
    ):
        torch.testing.assert_close(target.value, other.value, rtol=1e-4, atol=1e-5)
        assert target.probability == pytest.approx(other.probability, rel=1e-4)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: "
            "you tried to allocate 9 bytes"
        ),
    ],
)
def test_out_of_memory_halves_the_batch(error, tmp_path, monkeypatch):
    sizes, plain = [], compute_z_module.CleanPass

    def small(view, batch, *args):
        sizes.append(len(batch.lengths) // 4)
        if sizes[-1] > 1:
            raise error
        return plain(view, batch, *args)

    model, tok = tiny_model("llama")
    args = ModelView.of(model), tok, prepare(REQUESTS), make_hparams("AlphaEdit", tmp_path), FLAT, LAYER
    expected = compute_z(*args).targets
    monkeypatch.setattr(compute_z_module, "CleanPass", small)
    for target, other in zip(expected, compute_z(*args).targets):
        torch.testing.assert_close(target.value, other.value, rtol=1e-4, atol=1e-5)
    assert sizes == [3, 1, 1, 1]


def test_what_does_not_fit_alone_is_an_error(tmp_path, monkeypatch):
    def never(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compute_z_module, "CleanPass", never)
    model, tok = tiny_model("llama")
    with pytest.raises(torch.OutOfMemoryError):
        compute_z(
            ModelView.of(model), tok, prepare(REQUESTS), make_hparams("AlphaEdit", tmp_path), FLAT, LAYER
        )


@pytest.mark.parametrize("model_type", ALL_TYPES)
def test_layerwise_keys_in_float64(model_type, exact):
    """While layers 1 and 2 are edited: the keys of a whole forward, and the value at layer 3 of the bare
    prompt."""
    model, tok = tiny_model(model_type, dtype=torch.float64)
    view, rtol = ModelView.of(model), max(LOOSE.get(model_type, 0.0), 1e-9)
    prompts = key_prompts(tok, prepare(REQUESTS), [["{}"], CONTEXTS], "cpu")
    layerwise = LayerwiseKeys(view, prompts, 3)
    generator = torch.Generator().manual_seed(0)
    seen = {}
    for layer in (0, 1, 2):
        now = layerwise.at(layer)
        keys, values = now.keys, now.z
        for number, request in enumerate(REQUESTS):
            expected = []
            for context in FLAT:
                template = context.replace("{}", request["prompt"].replace(request["subject"], "{}"))
                seen.clear()
                handles = [
                    view.down_proj(layer).register_forward_pre_hook(lambda m, a: seen.update(key=a[0])),
                    view.layer(3).register_forward_hook(
                        lambda m, a, o: seen.update(out=o[0] if isinstance(o, tuple) else o)
                    ),
                ]
                with torch.no_grad():
                    model(
                        input_ids=torch.tensor([tok(template.format(request["subject"]))["input_ids"]]),
                        use_cache=False,
                    )
                for handle in handles:
                    handle.remove()
                at = subject_last_index(tok, template, request["subject"])
                expected.append(
                    seen["key"].view(seen["out"].shape[1], -1)[at]
                )  # OPT has no dimension of rows
                if context == "{}":
                    torch.testing.assert_close(
                        values[:, number], seen["out"][0, at], rtol=rtol, atol=rtol / 10
                    )
            mean = expected[0] / 2 + (expected[1] + expected[2]) / 4
            torch.testing.assert_close(keys[:, number], mean, rtol=rtol, atol=rtol / 10)
        with torch.no_grad():
            view.down_matrix(layer).add_(
                0.1 * torch.randn(32, FFN_WIDTH[model_type], generator=generator, dtype=torch.float64)
            )
        # what execute relies on: a layer's keys do not move when the layer itself is edited
        torch.testing.assert_close(compute_keys(view, prompts, [layer])[layer], keys, rtol=1e-12, atol=1e-12)
