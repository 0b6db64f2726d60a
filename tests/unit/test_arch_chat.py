"""Prompts inside a chat template: the tokens are those of ``apply_chat_template``, with one BOS."""

import copy

import pytest

from easyedit_neuron.arch.chat import chat_tokenizer, easyedit_measures, plain_tokenizer, prompt_tokenizer
from easyedit_neuron.arch.tokens import (
    encode,
    pair_ids,
    subject_last_index,
    target_token_ids,
    text_ids,
    token_ids,
)
from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.locate_then_edit.compute_keys import key_prompts
from easyedit_neuron.locate_then_edit.preservation import PreservedPrompt
from easyedit_neuron.locate_then_edit.z_prompts import z_prompts
from easyedit_neuron.models.ft.ft_hparams import FTHyperParams
from easyedit_neuron.models.ft.ft_main import _example
from easyedit_neuron.models.memit.memit_hparams import MEMITHyperParams
from helpers.chats import CHAT, LLAMA2, answered_ids, asked_ids, with_template
from helpers.tiny_models import tiny_tokenizer

PROMPT, SUBJECT, TARGET = "Anna Berg was born in", "Anna Berg", "Oslo and Rome"
REQUEST = {"prompt": PROMPT, "subject": SUBJECT, "target_new": TARGET}


@pytest.fixture(params=[True, False], ids=["bos", "no bos"])
def tok(request):
    return with_template(tiny_tokenizer(request.param))


@pytest.mark.parametrize("template", [CHAT, LLAMA2])
def test_prompts_and_answers_are_those_of_the_template(tok, template):
    chat = chat_tokenizer(with_template(tok, template))
    asked, whole = asked_ids(tok, PROMPT), answered_ids(tok, PROMPT, TARGET)
    assert token_ids(chat, PROMPT) == asked and text_ids(chat, [PROMPT, "x"])[0] == asked
    assert asked.count(tok.bos_token_id) == 1
    target = target_token_ids(chat, " " + TARGET)
    (pair,) = pair_ids(chat, [PROMPT], [TARGET])
    assert pair == asked + target == whole[: len(pair)]
    assert tok.decode(target) == (" " if template == LLAMA2 else "") + TARGET
    batch = encode(chat, [PROMPT], extra_ids=[target[:-1]])
    assert batch.input_ids[0].tolist() == pair[:-1]


@pytest.mark.parametrize("template", ["{} was born in", "The capital of {} is", "{}"])
def test_the_subjects_last_token_by_offsets(tok, template):
    rendered = tok.apply_chat_template(
        [{"role": "user", "content": template.format("Norway")}], add_generation_prompt=True, tokenize=False
    )
    end = rendered.index("Norway") + len("Norway")
    offsets = tok(rendered, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    expected = max(i for i, (start, stop) in enumerate(offsets) if start < stop <= end)
    assert subject_last_index(chat_tokenizer(tok), template, "Norway") == expected


def test_contexts_kl_and_preserved_prompts_are_inside_the_users_turn(tok):
    chat, contexts = chat_tokenizer(tok), ["{}", "You know. {}"]
    preserved = [[PreservedPrompt("{} lives in", " Rome"), PreservedPrompt("{} plays")]]
    target = target_token_ids(chat, TARGET)
    rows = z_prompts(chat, prepare([REQUEST]), contexts, "{} is a", None, preserved)
    batch = rows.targets.batch
    ids = [batch.input_ids[i, :length].tolist() for i, length in enumerate(batch.lengths)]
    rome = target_token_ids(chat, "Rome")
    assert ids == [
        asked_ids(tok, PROMPT) + target[:-1],
        asked_ids(tok, "You know. " + PROMPT) + target[:-1],
        asked_ids(tok, "Anna Berg is a"),
        asked_ids(tok, "Anna Berg lives in") + rome[:-1],
        asked_ids(tok, "Anna Berg plays"),
    ]
    ends = [tok.decode(row[: lookup + 1]) for row, lookup in zip(ids, rows.lookup.tolist())]
    assert [end.split("]\n")[1] for end in ends] == [SUBJECT, "You know. " + SUBJECT, *[SUBJECT] * 3]
    keys = key_prompts(chat, prepare([REQUEST]), [["{}"], contexts[1:]], None).batch
    cut = [keys.input_ids[i, :length].tolist() for i, length in enumerate(keys.lengths)]
    assert cut == [row[: lookup + 1] for row, lookup in zip(ids[:2], rows.lookup.tolist())]


@pytest.mark.parametrize("objective", ["prompt_last", "target_new"])
def test_fine_tuning_reads_both_turns(tok, objective):
    hparams = FTHyperParams(
        alg_name="FT",
        model_name="x",
        layers=[1],
        num_steps=2,
        lr=0.01,
        objective_optimization=objective,
        use_chat_template=True,
    )
    chat, asked = chat_tokenizer(tok), asked_ids(tok, PROMPT)
    target = target_token_ids(chat, TARGET)
    read, trained = _example(chat, REQUEST, 0, hparams)
    assert trained == target and read == (asked if objective == "prompt_last" else asked + target)


def test_everything_else_is_the_tokenizers(tok):
    chat = copy.deepcopy(chat_tokenizer(tok))
    assert chat.eos_token_id == tok.eos_token_id and chat.decode([5]) == tok.decode([5])
    assert chat("Anna")["input_ids"] == tok("Anna")["input_ids"] and len(chat.get_vocab()) == len(tok)
    assert token_ids(chat, "Anna", special=False) == token_ids(tok, "Anna", special=False)
    assert plain_tokenizer(chat) is chat.tok and plain_tokenizer(tok) is tok
    hparams = FTHyperParams(alg_name="FT", model_name="x", layers=[1], num_steps=2, lr=0.01)
    assert prompt_tokenizer(tok, hparams) is tok
    in_chat = prompt_tokenizer(tok, hparams.override({"use_chat_template": True}))
    assert in_chat.tok is tok and chat_tokenizer(in_chat) is in_chat


def test_a_chat_is_as_easyedits_measure_reads_it(tok):
    with easyedit_measures():
        chat = chat_tokenizer(tok)
    assert target_token_ids(chat, "Oslo") == token_ids(tok, " Oslo", special=False)
    assert chat_tokenizer(tok).answer_start == ""
    assert token_ids(chat, PROMPT) == asked_ids(tok, PROMPT)
    with_template(tok, CHAT.replace("{{ bos_token }}", ""))
    with easyedit_measures():
        (pair,) = pair_ids(chat_tokenizer(tok), [PROMPT], [TARGET])
    text = tok.decode(asked_ids(tok, PROMPT)) + " " + TARGET
    assert pair == tok(text)["input_ids"]  # which adds a BOS or none
    assert token_ids(chat_tokenizer(tok), PROMPT) == asked_ids(tok, PROMPT)


@pytest.mark.parametrize(
    "template, words",
    [
        (None, "no chat template; set the field to false"),
        ("{% for m in messages %}{{ m['content'] + m['content'] }}{% endfor %}", "2 times, not once"),
        ("nothing", "0 times, not once"),
        ("{{ 'x' * 1000000 }}", "makes 1,000,000 characters of a short prompt"),
        ("{{ raise_exception('only with a system turn') }}", "only with a system turn"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(template, words):
    tok = tiny_tokenizer()
    tok.chat_template = template
    with pytest.raises(HparamsError, match="field 'use_chat_template'") as problem:
        chat_tokenizer(tok)
    assert words in str(problem.value)


def test_a_quirk_that_tokenises_text_again_is_refused():
    fields = dict(alg_name="MEMIT", model_name="x", layers=[1], use_chat_template=True)
    with pytest.raises(HparamsError, match="retokenised_target cannot be combined with use_chat_template"):
        MEMITHyperParams(**fields, easyedit_quirks=["retokenised_target"])
