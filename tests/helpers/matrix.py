"""The matrix of EasyEdit's calls: its cells, and what each of them owes.

The editor is EasyEdit's (tests/easyedit) or the double's (tests/tiny); the reference is the built-in editor,
which tests/tiny/test_contract_methods.py compares with plain calls of the methods.
"""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import pytest

from easyedit_neuron.arch.view import ModelView
from easyedit_neuron.errors import RequestError
from easyedit_neuron.host.base_editor import BaseEditor
from easyedit_neuron.locate_then_edit.hparams import PathHyperParams
from easyedit_neuron.locate_then_edit.sequential_state import sequential_state
from helpers.contract import METHODS, settings, tokenizer_state
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, same, taught, weights_of, without_time

KINDS = {"llama": {}, "gpt2": {}, "qwen2": {"vocab_size": 301}}  # EasyEdit gives qwen2 one more token
SIDES = ("left", "right")
VARIANTS = {  # rows of the matrix: name -> method and what differs from its small settings
    **{method: (method, {}) for method in METHODS},
    "PNKE by Adam": ("PNKE", dict(solver="adam", adam_steps=3)),
    "KNE on six modules": (
        "KNE",
        dict(target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]),
    ),
    "KNE on columns": ("KNE", dict(neuron_axis="input")),
    "KNE on a shared ensemble": (
        "KNE",
        dict(localize="shared", localization_data="tiny-world", localization_set_size=2),
    ),
}


@dataclass(frozen=True)
class Call:
    """One way to call the editor.

    Attributes:
        name: the method of the editor.
        chunks: numbers of requests that the method is called with, one after the other.
        sequential: the edits stay.
        results: the files that EasyEdit's own code leaves in ``logs`` beside ``run.log``.
    """

    name: str
    chunks: tuple[int, ...]
    sequential: bool = False
    results: bool = True

    @property
    def count(self) -> int:
        return sum(self.chunks)


CALLS = {
    "edit": Call("edit", (1, 1)),
    "edit sequential": Call("edit", (1, 1), True),
    "edit_requests": Call("edit_requests", (1, 1)),
    "edit_requests sequential": Call("edit_requests", (1, 1), True),
    "batch_edit": Call("batch_edit", (2, 1), results=False),
    "batch_edit sequential": Call("batch_edit", (2, 1), True, results=False),
    "normal_edit": Call("normal_edit", (2,), results=False),
    "generate_edit": Call("generate_edit", (1,)),
}
CELLS = [
    pytest.param(row, kind, side, call, id=f"{row}-{kind}-{side}-{call}")
    for row in METHODS
    for kind in KINDS
    for side in SIDES
    for call in CALLS
]
MORE_CELLS = [
    pytest.param(row, "llama", "left", call, id=f"{row}-llama-left-{call}")
    for row in VARIANTS
    if row not in METHODS
    for call in ("edit", "edit sequential", "batch_edit sequential")
]
HOPS = {
    "rephrase_prompts": ["So, Anna"],
    "portability_inputs": {"por_hop": {"prompt": [["Oslo", "Rome"]], "ground_truth": [["a", "b"]]}},
    "locality_inputs": {"loc_hop": {"prompt": [["Paris is"]], "ground_truth": [["c"]]}},
}


@functools.cache
def saved(kind, folder):
    """Folder of a model that has read the corpus; EasyEdit goes by its name."""
    place = Path(folder) / f"{kind}-tiny"
    model, tok = taught(kind, **KINDS[kind])
    if kind == "qwen2":
        tok.add_special_tokens({"pad_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    model.save_pretrained(place)
    tok.save_pretrained(place)
    return place


def make(editor_class, row, kind, folder, **changes):
    """An editor of that class for a row of the matrix, on a model from disk."""
    method, differing = VARIANTS[row]
    if method == "KNE":
        changes["stats_dir"] = str(Path(folder) / "stats")
    editor = editor_class.from_hparams(
        settings(method, folder, model_name=str(saved(kind, folder)), **differing, **changes)
    )
    for parameter in editor.model.parameters():
        parameter.data = (
            parameter.data.clone()
        )  # mapped files are not aligned, and BLAS then rounds otherwise
    return editor


def builtin_twin(editor):
    """The built-in editor with a copy of another editor's model and tokenizer."""
    hparams = copy.copy(editor.hparams)
    hparams.model_name = copy.deepcopy(editor.model), copy.deepcopy(editor.tok)
    reference = BaseEditor.from_hparams(hparams)
    hparams.model_name = editor.hparams.model_name
    return reference


def arguments(call):
    """Keyword arguments of the editor's call; ``normal_edit`` has no place for more."""
    first = {"prompts": PROMPTS[: call.count], "target_new": TARGETS[: call.count]}
    if call.name == "normal_edit":
        return first
    extras = copy.deepcopy(EXTRAS)
    for section in ("locality_inputs", "portability_inputs"):
        extras[section] = {
            kind: {name: values[: call.count] for name, values in inputs.items()}
            for kind, inputs in extras[section].items()
        }
    lists = {name: extras.pop(name)[: call.count] for name in ("subject", "ground_truth", "rephrase_prompts")}
    keywords = {**first, **lists, **extras, "sequential_edit": call.sequential, "verbose": False}
    if call.name == "generate_edit":
        keywords |= copy.deepcopy(HOPS)
    return keywords


def run(editor, call):
    """Make the call; gives what it returned."""
    keywords = arguments(call)
    if call.name == "edit_requests":
        requests = [
            {
                "prompt": keywords["prompts"][i],
                "target_new": keywords["target_new"][i],
                "subject": keywords["subject"][i],
                "ground_truth": keywords["ground_truth"][i],
                "rephrase_prompt": keywords["rephrase_prompts"][i],
                **{
                    section: {
                        kind: {name: values[i] for name, values in inputs.items()}
                        for kind, inputs in keywords[f"{section}_inputs"].items()
                        if inputs["prompt"][i] is not None
                    }
                    for section in ("locality", "portability")
                },
            }
            for i in range(call.count)
        ]
        return editor.edit_requests(requests, call.sequential, False)
    return getattr(editor, call.name)(**keywords)


def prepare(editor, call):
    """What ``generate_edit`` needs: a chat template, and few tokens where EasyEdit asks for 512 (the model
    has 128 positions)."""
    if call.name == "generate_edit":
        editor.tok.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        editor.model.generation_config.max_length = 60
        generate = editor.model.generate
        editor.model.generate = lambda **keywords: generate(**{**keywords, "max_new_tokens": 4})


def protected(editor):
    """How many keys of earlier edits the sequential state of the model protects, edit by edit; None for
    methods without one."""
    if not isinstance(editor.hparams, PathHyperParams) or getattr(editor.hparams, "solver", "") == "adam":
        return None
    state, _ = sequential_state(ModelView.of(editor.model), editor.tok, editor.hparams)
    assert {len(buffer) for buffer in state._buffers.values()} <= {sum(state.counts)}
    return state.counts


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def check_cell(editor_class, row, kind, side, call, folder, here):
    """One cell. ``folder``: models and statistics; ``here``: the working directory, empty before."""
    call = CALLS[call]
    editor = make(editor_class, row, kind, folder, batch_size=max(call.chunks) if "batch" in call.name else 1)
    assert editor.tok.padding_side == "left", "EasyEdit's choice for methods that it does not know"
    editor.tok.padding_side = side
    reference = builtin_twin(editor)
    for each in (editor, reference):
        prepare(each, call)
    before, tokenizer = weights_of(editor.model), tokenizer_state(editor.tok)
    if call.name == "normal_edit":
        with pytest.raises(RequestError, match="request 0: field 'subject'.*call batch_edit"):
            run(editor, call)
        weights = None
    else:
        metrics, edited, weights = run(editor, call)
        expected = run(reference, call)
        assert edited is editor.model
        assert without_time(metrics) == without_time(expected[0])
        assert [sorted(metric) for metric in metrics] == [
            sorted(["case_id", "post", "pre", "requested_rewrite"] + ["time"] * (call.name == "batch_edit"))
        ] * call.count
        assert (
            [metric["case_id"] for metric in metrics] == [i for size in call.chunks for i in range(size)]
            if call.name == "batch_edit"
            else list(range(call.count))
        )
        assert type(weights) is dict and weights and same(weights, expected[2])
    if call.sequential:
        assert same(weights_of(editor.model), weights_of(reference.model)) and not same(
            weights_of(editor.model), before
        )
        assert protected(editor) in (None, list(call.chunks))
    else:
        assert same(weights_of(editor.model), before)
        assert weights is None or all((value == before[name]).all() for name, value in weights.items())
        assert protected(editor) in (None, [])
    assert tokenizer_state(editor.tok) == tokenizer
    assert files_below(here) == {"logs/run.log"} | ({"logs/results.json"} if call.results else set())


def check_no_trace(editor_class, row, kind, folder):
    """Edits that were put back, and then one for good: the weights of a model that never had the others."""
    weights = []
    for earlier in (["edit", "edit_requests"], []):
        editor = make(editor_class, row, kind, folder)
        for call in earlier:
            run(editor, CALLS[call])
        run(editor, Call("edit", (1,), True))
        weights.append(weights_of(editor.model))
        assert protected(editor) in (None, [1])
    assert same(*weights)
