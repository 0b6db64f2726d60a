"""Whole greedy answers against the new object, and the distribution of the first token."""

import pytest
import torch

from easyedit_neuron import data
from easyedit_neuron.evaluation import answers as answers_module
from easyedit_neuron.evaluation import evaluate_all, summarize
from easyedit_neuron.evaluation.answers import Verdict, judge_answers
from easyedit_neuron.evaluation.batching import evaluating
from easyedit_neuron.evaluation.decoding import greedy_tokens
from easyedit_neuron.evaluation.first_token import first_token_divergence, first_tokens
from easyedit_neuron.evaluation.llm_judge import LLMJudge
from helpers.chat_server import chat_server, says_target
from helpers.tiny_models import tiny_model

PROMPTS = ["Anna lives in", "The capital of the country is called", "Anna"]
SAID = ["Paris.", "Rome.", "Rome or Paris."]


@pytest.mark.parametrize(
    "written, target, old, expected",
    [
        ("Rome.", "Rome", "Paris", (1, 1, 1)),
        (" rome, Italy. It is old.", "Rome", "Paris", (1, 0, 0)),
        ("Rome, not Paris.", "Rome", "Paris", (0, 0, 0)),
        ("Romeville.", "Rome", None, (0, 0, 0)),
        ("the city of Rome", "Rome", None, (0, 0, 0)),
        ("Rome.\nParis", "Rome", "Paris", (1, 1, 0)),
        ("Rome. Paris is next", "Rome", "Paris", (1, 1, 0)),
        ("York", "New York", "York", (0, 0, 0)),
        ("New York!", "New York", "York", (1, 1, 1)),  # the old object is part of the new one
        ("", "Rome", None, (0, 0, 0)),
    ],
)
def test_an_answer_is_judged_as_a_whole(monkeypatch, written, target, old, expected):
    _, tok = tiny_model("llama")
    ids = [*tok(written, add_special_tokens=False)["input_ids"], tok.eos_token_id]
    monkeypatch.setattr(answers_module, "greedy_tokens", lambda model, rows, *_: [(ids + [0] * 40)[:60]])
    model = tiny_model("llama")[0]
    assert judge_answers(model, tok, ["x"], [target], [old]) == [Verdict(*map(float, expected))]


WRITTEN = [
    "Rome", "Rome.", "Rome. Paris is next", "Rome.\nParis", "Rome, not Paris. It is.", "Romeville",
    "New York!",
    "New York", "New. York", "new york, 3.5 miles. Then", "3. 5", "", " \n\nRome", "Paris Rome", "Rome Rome",
    "Rome 3.", "Rome 3.5 of it", "caf\u00e9 Rome", "Rome? No", "York. New York", "Rome...  and on. And",
]  # fmt: skip


@pytest.mark.parametrize("target", ["Rome", "New York", "New", "caf\u00e9 Rome", "3.5", "Rome Rome"])
def test_a_verdict_does_not_wait_for_the_rest(target):
    """As soon as it is settled, no text behind it changes it: compared with the judge of whole texts."""
    _, tok = tiny_model("llama")

    def verdict(text, ends):
        ids = tok(text, add_special_tokens=False)["input_ids"] + [tok.eos_token_id] * ends
        return answers_module._judge(tok, ids, target, "Paris")

    new, settled = answers_module._words(target).split(), 0
    for text in WRITTEN:
        for end in range(len(text) + 1):
            if answers_module._is_judged(text[:end], new):
                settled += 1
                stop = verdict(text[:end], ends=False)
                for behind in (text[end:], *WRITTEN, " Rome.", ".5", "\n", "ville"):
                    for ends in (False, True):
                        assert verdict(text[:end] + behind, ends) == stop, (text[:end], behind)
            if answers_module._is_over(text[:end]):
                ids = [tok(text[:end] + behind, add_special_tokens=False)["input_ids"] for behind in WRITTEN]
                assert len({answers_module.cut_answer(tok, row) for row in ids}) == 1
    assert settled > 40


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "qwen3_5_text"])
def test_rows_that_leave_a_batch_change_no_other(kind):
    model, tok = tiny_model(kind, seed=2)
    rows = [tok(text)["input_ids"] for text in ("Anna lives in", "Anna", "The capital of Norway is", "Rome")]
    with evaluating(model):
        whole = greedy_tokens(model, rows, 9)
        ends = [2, 9, 5, 1]
        cut = greedy_tokens(model, rows, 9, lambda row, ids: len(ids) >= ends[row])
        assert greedy_tokens(model, rows, 9, lambda *_: True) == [row[:1] for row in whole]
    for row, ids, end in zip(whole, cut, ends):
        assert ids[:end] == row[:end]
    assert kind == "qwen3_5_text" or [len(ids) for ids in cut] == ends


def test_text_without_its_end_is_never_equal(monkeypatch):
    model, tok = tiny_model("llama")
    ids = tok("Rome.", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(answers_module, "greedy_tokens", lambda *_: [ids])
    assert judge_answers(model, tok, ["x"], ["Rome"], [None]) == [Verdict(1.0, 1.0, 0.0)]


def test_the_protocol_has_the_verdicts_of_rewrites_and_rephrasings(monkeypatch):
    model, tok = tiny_model("llama")
    said = {text: tok(answer, add_special_tokens=False)["input_ids"] for text, answer in zip(PROMPTS, SAID)}
    by_row = {tuple(tok(text)["input_ids"]): said[text] for text in PROMPTS}
    monkeypatch.setattr(
        answers_module, "greedy_tokens", lambda model, rows, *_: [by_row[tuple(row)] for row in rows]
    )
    requests = [
        {"prompt": PROMPTS[0], "subject": "Anna", "target_new": "Rome", "rephrase_prompt": PROMPTS[1:]},
        {"prompt": PROMPTS[2], "subject": "Anna", "target_new": "Rome", "ground_truth": "Paris"},
    ]
    first, second = evaluate_all(model, tok, requests, whole_answers=True)
    assert first["rewrite_answer_says"] == [0.0] and first["rephrase_answer_says"] == [1.0, 1.0]
    assert first["rephrase_answer_exact_match"] == [1.0, 0.0]
    assert second["rewrite_answer_says"] == [0.0] and "rephrase_answer_says" not in second


def test_first_token_divergence_is_that_of_the_coarser_distribution():
    before, tok = tiny_model("llama")
    now = tiny_model("llama", seed=1)[0]
    reference = first_tokens(before, tok, PROMPTS, batch_size=2)
    assert first_token_divergence(before, tok, PROMPTS, reference) == pytest.approx([0, 0, 0], abs=1e-6)
    measured = first_token_divergence(now, tok, PROMPTS, reference, batch_size=2)
    for prompt, (ids, values), value in zip(PROMPTS, reference, measured):
        inputs = tok(prompt, return_tensors="pt")
        with torch.no_grad():
            p0, p = (model(**inputs).logits[0, -1].double().softmax(-1) for model in (before, now))
        torch.testing.assert_close(torch.tensor(values).double(), p0[ids].log(), atol=1e-5, rtol=0)
        inside = sum(float(p0[i] * (p0[i] / p[i]).log()) for i in ids)
        rest = float(1 - p0[ids].sum()), float(1 - p[ids].sum())
        expected = inside + (rest[0] * torch.tensor(rest[0] / rest[1]).log().item() if rest[0] > 1e-9 else 0)
        assert value == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert value <= float((p0 * (p0 / p).log()).sum()) + 1e-6


def test_a_judge_grades_the_answers_to_their_end(shipped_model):
    """tiny-llama answers its own facts; the judge gets the whole sentence, of every prompt."""
    model, tok = shipped_model
    facts = data.retained("tiny-world")[:3]
    requests = [
        {
            "prompt": fact["prompt"],
            "target_new": fact["ground_truth"],
            "rephrase_prompt": [fact["prompt"]] * 2,
        }
        for fact in facts
    ]
    requests[1]["target_new"] = "nothing of the kind"
    with chat_server(says_target) as chat:
        judge = LLMJudge(chat.url, "m")
        results = evaluate_all(model, tok, requests, judge=judge)
    assert [result["rewrite_answer_judged"] for result in results] == [[1.0], [0.0], [1.0]]
    assert [result["rephrase_answer_judged"] for result in results] == [[1.0] * 2, [0.0] * 2, [1.0] * 2]
    assert "rewrite_answer_says" not in results[0]
    sent = {request["messages"][-1]["content"].splitlines()[-1] for request in chat.requests}
    assert sent == {f"Answer: {fact['ground_truth']}." for fact in facts}
    assert summarize(results)["rewrite_answer_judged"] == pytest.approx(2 / 3)
