"""Mistakes that users make with EasyEdit's editors: under any editor one clear error before any work, and
nothing changed."""

from contextlib import contextmanager

import pytest
import torch
import transformers

from easyedit_neuron.errors import ArchitectureError, DataError, HparamsError, RequestError, StateError
from helpers.contract import settings, tokenizer_state
from helpers.edit_cases import PROMPTS, TARGETS, same, weights_of
from helpers.matrix import make
from helpers.tiny_models import tiny_model

SUBJECTS = ["Anna Berg", "Peter Olsen"]
ARGUMENTS = dict(prompts=PROMPTS[:2], target_new=TARGETS[:2], subject=SUBJECTS, verbose=False)
READY_REQUESTS = [
    {"prompt": prompt, "target_new": target, "subject": subject}
    for prompt, target, subject in zip(PROMPTS, TARGETS, SUBJECTS)
]


def without(name):
    return {key: value for key, value in ARGUMENTS.items() if key != name}


ASKS = "request 0: field 'subject'.*subject=\\["
REQUESTS = {  # what is wrong: call, keyword arguments, error, words of it
    "no subject: edit": ("edit", {**without("subject"), "sequential_edit": True}, RequestError, ASKS),
    "no subject: batch_edit": ("batch_edit", without("subject"), RequestError, ASKS),
    "no subject: generate_edit": ("generate_edit", without("subject"), RequestError, ASKS),
    "no subject: normal_edit": (
        "normal_edit",
        dict(prompts=PROMPTS, target_new=TARGETS),
        RequestError,
        "call batch_edit",
    ),
    "no subject in the second request": (
        "edit_requests",
        dict(requests=[READY_REQUESTS[0], {**READY_REQUESTS[1], "subject": None}], sequential_edit=True),
        RequestError,
        "request 1: field 'subject'",
    ),
    "subject not in the prompt: edit": (
        "edit",
        {**ARGUMENTS, "subject": ["Anna Berg", "Marie Lund"]},
        RequestError,
        "'Marie Lund' does not occur in the prompt 'Peter Olsen lives in'; write it as",
    ),
    "subject not in the prompt: batch_edit": (
        "batch_edit",
        {**ARGUMENTS, "subject": ["anna berg", "Peter Olsen"]},
        RequestError,
        "'anna berg' does not occur",
    ),
    "subject not in the prompt: edit_requests": (
        "edit_requests",
        dict(requests=[READY_REQUESTS[0], {**READY_REQUESTS[1], "subject": "Marie Lund"}]),
        RequestError,
        "request 1: subject 'Marie Lund' does not occur",
    ),
    "an empty target": (
        "edit",
        {**ARGUMENTS, "target_new": ["Paris", " "]},
        RequestError,
        "request 1: field 'target_new'",
    ),
    "a target too few": (
        "edit",
        {**ARGUMENTS, "target_new": ["Paris"]},
        RequestError,
        "target_new: 1 given for 2 prompts",
    ),
}
BATCHES = {"edit": ARGUMENTS, "generate_edit": ARGUMENTS, "edit_requests": dict(requests=READY_REQUESTS)}


@contextmanager
def no_work(editor):
    """Nothing inside may run the model, nor change it, its tokenizer or a file."""
    before, tokenizer = weights_of(editor.model), tokenizer_state(editor.tok)

    def forward(*args, **kwargs):
        raise AssertionError("the model was run")

    editor.model.forward = forward
    try:
        yield
    finally:
        del editor.model.forward
    assert same(weights_of(editor.model), before) and tokenizer_state(editor.tok) == tokenizer


def check_requests(editor_class, method, folder):
    """Every mistake in a request, in one editor after the other call; ``RequestError`` each time."""
    editor = make(editor_class, method, "llama", folder)
    for call, arguments, error, words in REQUESTS.values():
        with no_work(editor), pytest.raises(error, match=words):
            getattr(editor, call)(**arguments)


def check_batch_size(editor_class, method, folder):
    editor = make(editor_class, method, "llama", folder, batch_size=4)
    for call, arguments in BATCHES.items():
        with (
            no_work(editor),
            pytest.raises(HparamsError, match="field 'batch_size'.*not 4; set it to 1, or call batch_edit"),
        ):
            getattr(editor, call)(**arguments)


def check_foreign_tokenizer(editor_class, method, folder):
    """Ids that the model does not have, as another model's tokenizer gives them."""
    editor = make(editor_class, method, "llama", folder)
    editor.model.resize_token_embeddings(200)
    for call, arguments in (
        ("edit", ARGUMENTS),
        ("batch_edit", ARGUMENTS),
        ("edit_requests", dict(requests=READY_REQUESTS)),
    ):
        with (
            no_work(editor),
            pytest.raises(ArchitectureError, match="request 0: the tokenizer .* has 200 tokens; load"),
        ):
            getattr(editor, call)(**arguments)


def check_before_loading(editor_class, method, folder, tmp_path, monkeypatch):
    """Device, covariance text and statistics folder: found before a model is loaded."""

    def refused(words, error=HparamsError, **changes):
        with monkeypatch.context() as patched, pytest.raises(error, match=words):
            patched.setattr(transformers.AutoModelForCausalLM, "from_pretrained", _never)
            patched.setattr(torch.cuda, "is_available", lambda: False)
            editor_class.from_hparams(
                settings(method, folder, **{"model_name": str(folder / "llama-tiny"), **changes})
            )

    (tmp_path / "file").write_text("")
    for device in (0, "0", "cuda:1"):
        refused("field 'device'.*torch sees no CUDA device here; set 'device: cpu'", device=device)
    if method in ("NMKE", "PNKE"):
        refused(
            "mom2_dataset: no file .*nothing.txt'; name a text file",
            DataError,
            mom2_dataset=str(tmp_path / "nothing.txt"),
        )
        refused("field 'stats_dir'.*/file' is a file; name a folder", stats_dir=str(tmp_path / "file/stats"))
        monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
        words = "mom2_dataset: 'wikipedia'.*'datasets', which is not installed; name a local text file"
        refused(words, DataError, mom2_dataset="wikipedia")
    if method == "KNE":
        refused(
            "field 'localization_data': no file",
            localize="shared",
            localization_data=str(tmp_path / "nothing.json"),
        )


def _never(*args, **kwargs):
    raise AssertionError("a model was loaded")


def check_statistics(editor_class, method, folder, here):
    """Files of covariances and null spaces that cannot be read: named with the remedy, before the search for
    z*."""
    kinds = ("covariance", "nullspace") if method == "NMKE" else ("covariance",)
    changes = dict(stats_dir=str(here / "stats"), context_templates=["{}"])
    make(editor_class, method, "llama", folder, **changes).edit(**ARGUMENTS)
    for kind in kinds:
        editor = make(editor_class, method, "llama", folder, **changes)
        file = sorted((here / "stats").glob(f"{kind}-layer2-*"))[0]
        good = file.read_bytes()
        file.write_bytes(good[:100])
        with (
            no_work(editor),
            pytest.raises(StateError, match=f"{file.name}: not a readable statistics.*delete it"),
        ):
            editor.apply_algo(editor.model, editor.tok, READY_REQUESTS, editor.hparams)
        before = weights_of(editor.model)
        with pytest.raises(StateError, match="delete it"):
            editor.edit(**ARGUMENTS, sequential_edit=True)
        assert same(weights_of(editor.model), before)
        file.write_bytes(good)


def check_misleading_paths(editor_class, method, folder, tmp_path, monkeypatch):
    """Words in the path that lead EasyEdit to other classes than the model's."""
    model, tok = tiny_model("llama")
    for name, words in {
        "gpt-files": "takes GPT2Tokenizer for the word 'gpt', but the model is of type 'llama'",
        "t5-llama": "takes T5ForConditionalGeneration for the word 't5'",
        "internlm-x": "takes AutoModel, which has no unembedding, for the word 'internlm'",
        "qwen2-x": "takes a tokenizer with .* for the word 'qwen2'",
        "qwen-x": "takes a model with the option fp32.* for the word 'qwen'",
        "plain": "knows none of the words in this one",
    }.items():
        place = tmp_path / name
        model.save_pretrained(place)
        with monkeypatch.context() as patched:
            for cls in (
                transformers.AutoModelForCausalLM,
                transformers.AutoModel,
                transformers.T5ForConditionalGeneration,
            ):
                patched.setattr(cls, "from_pretrained", _never)
            remedy = "holds 'llama' and none of t5, chatglm-api, gpt;"
            with pytest.raises(HparamsError, match=f"field 'model_name'.*{words}.*{remedy}"):
                editor_class.from_hparams(settings(method, folder, model_name=str(place)))
    in_memory = settings(method, folder)
    in_memory.model_name = model, tok
    assert editor_class.from_hparams(in_memory).model is model
