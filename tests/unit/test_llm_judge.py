"""A model behind an endpoint as judge: what it is sent, what its replies mean, and what fails."""

import pytest

from easyedit_neuron.errors import HostError
from easyedit_neuron.evaluation.llm_judge import KEY, LLMJudge
from helpers.chat_server import chat_server, says_target


def test_what_is_sent_and_what_a_reply_means(monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    with chat_server(says_target) as chat:
        judge = LLMJudge(chat.url, "a-judge")
        assert judge.grade(["Q1", "Q2"], ["Rome", "Oslo"], ["In Rome.", "In Bergen."]) == [1.0, 0.0]
    for request in chat.requests:
        assert request["path"] == "/v1/chat/completions" and request["model"] == "a-judge"
        assert request["temperature"] == 0 and request["authorization"] == "Bearer secret"
    sent = {request["messages"][-1]["content"] for request in chat.requests}
    assert "Question: Q2\nTarget: Oslo\nAnswer: In Bergen." in sent


def test_the_same_question_is_asked_once_and_an_empty_answer_never():
    with chat_server(says_target) as chat:
        judge = LLMJudge(chat.url, "m")
        assert judge.grade(["Q"] * 3, ["Rome"] * 3, ["Rome", "Rome", " "]) == [1.0, 1.0, 0.0]
        assert judge.grade(["Q"], ["Rome"], ["Rome"]) == [1.0] and len(chat.requests) == 1


@pytest.mark.parametrize(("reply", "grade"), [("A", 1.0), (" a.", 1.0), ("B", 0.0), ("B: wrong", 0.0)])
def test_letters(reply, grade):
    with chat_server(lambda _: reply) as chat:
        assert LLMJudge(chat.url, "m").grade(["Q"], ["Rome"], ["Rome"]) == [grade]


@pytest.mark.parametrize("reply", ["", "Correct", "All right", "C", "12"])
def test_a_reply_that_is_no_grade_is_an_error(reply):
    with chat_server(lambda _: reply) as chat, pytest.raises(HostError, match="and not A or B"):
        LLMJudge(chat.url, "m").grade(["Q"], ["Rome"], ["Rome"])


def test_an_endpoint_that_refuses_is_named_with_the_remedy():
    with chat_server(lambda _: 401) as chat, pytest.raises(HostError, match=f"AuthenticationError.*{KEY}"):
        LLMJudge(chat.url, "m").grade(["Q"], ["Rome"], ["Rome"])


def test_no_endpoint(monkeypatch):
    monkeypatch.setattr("easyedit_neuron.evaluation.llm_judge.RETRIES", 0)
    with chat_server(says_target) as chat:
        url = chat.url
    with pytest.raises(HostError, match=f"m at {url} cannot be asked: APIConnectionError"):
        LLMJudge(url, "m").grade(["Q"], ["Rome"], ["Rome"])


def test_a_judge_that_cannot_judge_is_refused_beforehand():
    with chat_server(says_target) as chat:
        LLMJudge(chat.url, "m").check()
    with chat_server(lambda _: "A") as chat, pytest.raises(HostError, match=r"grades .* \[1.0, 1.0\]"):
        LLMJudge(chat.url, "m").check()
