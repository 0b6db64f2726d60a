"""``easyedit-neuron serve`` with the client of openai, a real server, and kills."""

import argparse
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
import torch

from easyedit_neuron import FiNEHyperParams, FTHyperParams, LastingHyperParams, data
from easyedit_neuron.cli import main
from easyedit_neuron.cli.commands.editing import add_editing, edited_model
from easyedit_neuron.editlog import EditLog
from easyedit_neuron.registry import get_method
from easyedit_neuron.serving.edited_model import EditedModel

pytest.importorskip("fastapi", reason="pip install 'easyedit-neuron[serve]'")
pytest.importorskip("uvicorn", reason="pip install 'easyedit-neuron[serve]'")

from easyedit_neuron.serving.generation import Sampling, continue_text
from helpers.long import LONG
from helpers.served import TOKEN, Served, served, served_by_a_process

HPARAMS = {"Lasting": LastingHyperParams, "FiNE": FiNEHyperParams, "FT": FTHyperParams}
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.fixture(scope="module")
def facts():
    return data.load("tiny-world", size=4)


@pytest.fixture
def make(shipped_model, tmp_path):
    """Makes a model to serve, with a log of its own."""

    def edited(method="FiNE", **fields):
        hparams = HPARAMS[method].from_hparams(f"{method}/tiny-llama")
        for name, value in fields.items():
            setattr(hparams, name, value)
        model, tok = shipped_model
        return EditedModel(model.float(), tok, EditLog(tmp_path / "log"), get_method(method), hparams)

    return edited


@pytest.fixture
def server(make):
    with served(make()) as running:
        yield running


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(weights, model):
    return all(bool((value == model.state_dict()[name]).all()) for name, value in weights.items())


def test_completions(server, facts):
    """The client's own types; the text is the model's greedy answer."""
    prompts = [fact["prompt"] for fact in facts]
    create = server.client.completions.create
    answer = create(model="tiny-llama", prompt=prompts, temperature=0, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    for fact, choice in zip(facts, answer.choices):
        assert choice.text.startswith(f" {fact['ground_truth']}")
        assert choice.text == server.say(fact["prompt"]), "as asked alone"
    assert server.client.models.list().data[0].id == answer.model == "tiny-llama"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.prompt_tokens > 8

    short = create(model="tiny-llama", prompt=prompts[0], temperature=0, max_tokens=1)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 1
    assert answer.choices[0].finish_reason == "stop"
    first, *_, last = facts[0]["ground_truth"].split()
    stopped = create(
        model="tiny-llama", prompt=prompts[0], temperature=0, max_tokens=8, stop=[f" {last}", "#"]
    )
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == (f" {first}", "stop")


def test_sampling_by_a_seed(server):
    options = {"temperature": 1.5, "max_tokens": 12}
    texts = {seed: server.say("Many", seed=seed, **options) for seed in range(4)}
    assert len(set(texts.values())) > 1 and texts[2] == server.say("Many", seed=2, **options)
    assert len({server.say("Many", **options) for _ in range(4)}) > 1, "without a seed another one each time"
    narrow = {server.say("Many", seed=seed, top_p=1e-6, **options) for seed in range(3)}
    assert narrow == {server.say("Many", max_tokens=12)}, "the smallest nucleus is the likeliest token"


def test_streams(server, facts):
    """Pieces are those of the whole text; a stop text is never begun; reasons and counts end a stream."""
    prompts = [fact["prompt"] for fact in facts[:2]]
    options = {"model": "tiny-llama", "prompt": prompts, "temperature": 0, "max_tokens": 8}
    whole = server.client.completions.create(**options)
    chunks = list(
        server.client.completions.create(**options, stream=True, stream_options={"include_usage": True})
    )
    pieces = [choice for chunk in chunks for choice in chunk.choices]
    for choice in whole.choices:
        own = [piece for piece in pieces if piece.index == choice.index]
        assert len(own) > 2 and "".join(piece.text for piece in own) == choice.text
        assert [piece.finish_reason for piece in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1].finish_reason == choice.finish_reason
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    _, *_, last = facts[0]["ground_truth"].split()
    stop = last + whole.choices[0].text.rpartition(last)[2]  # of several tokens
    stopped = server.client.completions.create(**options | {"prompt": prompts[0]}, stop=stop, stream=True)
    text = "".join(chunk.choices[0].text for chunk in stopped)
    assert text == whole.choices[0].text.partition(stop)[0]
    raw = server.request("POST", "/v1/completions", json=options | {"stream": True})
    assert raw.headers["content-type"].startswith("text/event-stream") and raw.text.endswith(
        "data: [DONE]\n\n"
    )


def test_chat(make, facts):
    edited = make()
    edited.tok.chat_template = TEMPLATE
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": facts[0]["prompt"].strip()}]
    with served(edited) as server:
        create = server.client.chat.completions.create
        options = {"model": "tiny-llama", "messages": messages, "temperature": 0, "max_completion_tokens": 8}
        answer = create(**options)
        assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
        assert answer.object == "chat.completion" and answer.usage.completion_tokens <= 8
        chunks = list(create(**options, stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == answer.choices[0].message.content
        assert chunks[-1].choices[0].finish_reason == answer.choices[0].finish_reason
        parts = [{"type": "text", "text": messages[1]["content"]}]
        in_parts = create(**options | {"messages": [messages[0], {"role": "user", "content": parts}]})
        assert in_parts.choices[0].message.content == text
        edited.tok.chat_template = "{{ raise_exception('turns must alternate') }}"
        with pytest.raises(openai.BadRequestError, match="turns must alternate"):
            create(**options)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"logprobs": 3}, "logprobs", "is not supported"),
        ({"n": 2}, "n", "is not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty", "is not supported"),
        ({"beam": 4}, "beam", "is not supported"),
        ({"prompt": [1, 2]}, "prompt", "valid string"),
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"prompt": None}, "prompt", "is missing"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "0"}, "temperature", "valid number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 999}, "prompt", "more than the model's 256 positions"),
        ({"prompt": "word " * 10_000}, "prompt", "the model has 256 positions"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4 items"),
        ({"model": "gpt-4"}, "model", "this server has 'tiny-llama'"),
    ],
)
def test_refused_fields_are_named(server, fields, param, words):
    body = {"model": "tiny-llama", "prompt": "Many"} | fields
    answer = server.request("POST", "/v1/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == (404 if param == "model" else 400)
    assert error["param"] == param and words in error["message"] and error["type"]
    assert "\n" not in error["message"] and (repr(param) in error["message"] or "positions" in words)


def test_other_refusals(server, facts):
    """What changes nothing is accepted; a chat needs a template; bodies and paths that there are not."""
    neutral = {"n": 1, "logprobs": None, "frequency_penalty": 0, "logit_bias": {}, "echo": False}
    assert server.say("Many", extra_body=neutral) == server.say("Many")
    with pytest.raises(openai.BadRequestError, match="has no chat template: use /v1/completions"):
        server.client.chat.completions.create(
            model="tiny-llama", messages=[{"role": "user", "content": "Hello"}]
        )
    assert server.request("POST", "/v1/completions", content="{no").json()["error"]["message"]
    for path, status in (("/nowhere", 404), ("/docs", 404), ("/edits/7", 404), ("/edits/x", 400)):
        answer = server.request("GET", path)
        assert answer.status_code == status and answer.json()["error"]["message"], path


def test_edit_list_and_take_back(make, facts):
    edited, (fact, other, *_) = make("Lasting"), facts
    neighbour = fact["locality"]["Neighborhood"]["prompt"][0]
    before = weights_of(edited.model)
    with served(edited) as server:
        answer = server.edit(fact, rephrase=fact["rephrase_prompt"], neighbours=[neighbour])
        assert answer.status_code == 201
        edit = answer.json()
        assert (edit["id"], edit["method"], edit["in_weights"]) == (1, "Lasting", True)
        assert [(asked["kind"], asked["prompt"]) for asked in edit["asked"]] == [
            ("edited", fact["prompt"]),
            ("rephrased", fact["rephrase_prompt"]),
            ("neighbour", neighbour),
        ]
        asked, _, beside = edit["asked"]
        assert asked["before"].startswith(fact["ground_truth"]) and asked["after"].startswith(
            fact["target_new"]
        )
        assert beside["before"] == beside["after"]
        assert server.say(fact["prompt"]).startswith(f" {fact['target_new']}")
        assert server.edit(other).json()["id"] == 2

        listed = server.request("GET", "/edits", token=None).json()["data"]
        assert [(each["id"], each["requests"][0]["target_new"]) for each in listed] == [
            (1, fact["target_new"]),
            (2, other["target_new"]),
        ]
        shown = server.request("GET", "/edits/1", token=None).json()
        assert shown == listed[0] and all(change["neurons"] for change in shown["changes"].values())

        taken = server.request("DELETE", "/edits/1")
        assert taken.status_code == 200 and taken.json()["undone_by"] == 3
        assert taken.json()["asked"][0]["after"] == asked["before"]
        assert not server.request("GET", "/edits/1").json()["in_weights"]
        again = server.request("DELETE", "/edits/1")
        assert again.status_code == 409 and "was taken back before" in again.json()["error"]["message"]
        assert server.request("DELETE", "/edits/3").status_code == 404, "an undo is no edit"
        assert server.say(other["prompt"]).startswith(f" {other['target_new']}")
        server.request("DELETE", "/edits/2")
    grown = weights_of(edited.model)
    for name, value in before.items():  # neurons that were added are zero again
        part = grown[name][tuple(slice(length) for length in value.shape)]
        assert bool((part == value).all()), name


def test_the_token(make, facts):
    """Making and undoing edits needs it; with --token-for-all everything but /health does."""
    edited = make()
    with served(edited) as server:
        for token in (None, "wrong", TOKEN[:-1], TOKEN + "x", "tökén"):
            headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
            for method, path in (("POST", "/edits"), ("DELETE", "/edits/1")):
                answer = httpx.request(method, server.url + path, headers=headers, json={})
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
        assert server.request("GET", "/edits", token=None).json()["data"] == []
        assert httpx.get(f"{server.url}/v1/models").status_code == 200
    with served(edited, token_for_all=True) as server:
        for path in ("/v1/models", "/edits", "/edits/1"):
            assert httpx.get(server.url + path).status_code == 401
        assert httpx.post(f"{server.url}/v1/completions", json={}).status_code == 401
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok", "model": "tiny-llama", "edits": 0}
        assert server.say("Many") == server.say("Many")


def test_a_failed_edit_leaves_all_as_it_was(make, facts, monkeypatch):
    fact, edited = facts[0], make("Lasting")
    weights = weights_of(edited.model)
    with served(edited) as server:
        wrong = server.edit(fact | {"subject": "Nobody"})
        assert wrong.status_code == 400 and "does not occur in prompt" in wrong.json()["error"]["message"]
        missing = server.request("POST", "/edits", json={"prompt": "x", "subject": "x"})
        assert missing.status_code == 400 and missing.json()["error"]["param"] == "target_new"
        edited.hparams.threshold, edited.hparams.saturation = 50.0, 60.0  # no neuron can reach it
        refused = server.edit(fact)
        assert (
            refused.status_code == 422
            and "cannot be told from other text" in refused.json()["error"]["message"]
        )
        edited.hparams.threshold, edited.hparams.saturation = 0.5, 0.9
        with monkeypatch.context() as broken:
            broken.setattr(EditLog, "append", lambda *_: 1 / 0)
            crashed = server.edit(fact)
            assert crashed.status_code == 500 and "ZeroDivisionError" in crashed.json()["error"]["message"]
        assert server.request("GET", "/edits").json()["data"] == [] and not edited.log.folder.exists()
        assert same(weights, edited.model)
        assert server.edit(fact).status_code == 201, "and goes on"


def test_a_method_without_records_is_refused(make, facts):
    edited = make("FT")
    weights = weights_of(edited.model)
    with served(edited) as server:
        answer = server.edit(facts[0])
        assert answer.status_code == 400 and "FT gives no record" in answer.json()["error"]["message"]
    assert same(weights, edited.model)


def test_every_answer_is_of_one_whole_state(make, facts):
    """Three prompts in each request, while three edits are made and taken back."""
    prompts, edited = [fact["prompt"] for fact in facts[:3]], make()
    states, answers, stop = {}, [], threading.Event()

    def read(server: Served):
        create = server.client.completions.create
        answer = create(model="tiny-llama", prompt=prompts, temperature=0, max_tokens=6)
        return answer.system_fingerprint, tuple(choice.text for choice in answer.choices)

    def ask(server: Served):
        while not stop.is_set():
            answers.append(read(server))

    with served(edited) as server, ThreadPoolExecutor(3) as pool:
        states |= [read(server)]
        asking = [pool.submit(ask, server) for _ in range(3)]
        try:
            for fact in facts[:3]:
                assert server.edit(fact).status_code == 201
                states |= [read(server)]
            for number in (2, 1, 3):
                assert server.request("DELETE", f"/edits/{number}").status_code == 200
                states |= [read(server)]
        finally:
            stop.set()
        for task in asking:
            task.result()
    assert list(states) == [f"edits-{number}" for number in range(7)]
    assert len(set(states.values())) == 7 - 1, "the last is the first again"
    assert len({state for state, _ in answers}) > 3, "they were asked while edits were made"
    assert all(states[state] == texts for state, texts in answers)


def test_a_client_that_goes_away_does_not_hold_the_model(make, monkeypatch):
    edited = make()
    tokens = []
    generate = edited.model.generate
    edited.tok.eos_token = None  # it would go on to the end
    edited.model.generation_config.eos_token_id = None
    monkeypatch.setattr(
        edited.model, "generate", lambda *a, **k: tokens.append(generate(*a, **k)) or tokens[-1]
    )
    with served(edited) as server:
        body = {"model": "tiny-llama", "prompt": "Many", "max_tokens": 250, "temperature": 0, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/completions", json=body) as answer:
            for _ in answer.iter_lines():
                break
        assert server.say("Many", max_tokens=2)
    assert tokens[0].shape[1] < 250, "it ended before its length"


def test_continuing_changes_no_random_state(shipped_model):
    model, tok = shipped_model
    model.generation_config.min_p, model.generation_config.top_k = 0.9999, 1
    state = torch.random.get_rng_state()
    texts = [
        continue_text(model, tok, tok("Many")["input_ids"], Sampling(12, 1.5, seed=s)) for s in (1, 2, 3)
    ]
    assert torch.equal(state, torch.random.get_rng_state())
    assert len({text.text for text in texts}) > 1, "the model's own top-k and min-p are not used"


# A process of its own

DIES_BETWEEN_FILE_AND_LINE = """
import os, signal
from easyedit_neuron.editlog.log import EditLog
append = EditLog._append
def dying(self, entry):
    if len(self.entries) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, entry)
EditLog._append = dying
"""


def state_of(server):
    """What distinguishes weights: drawn texts depend on every logit."""
    texts = [
        server.say(text, temperature=1.5, seed=seed, max_tokens=30)
        for text in ("Many", "In")
        for seed in (1, 2)
    ]
    edits = server.request("GET", "/edits").json()["data"]
    return texts, edits


def test_kill_9(here, facts):
    first, second, third, _ = facts
    log = ("--log", "edits")
    with served_by_a_process(*log, before=DIES_BETWEEN_FILE_AND_LINE) as server:
        assert server.edit(first).status_code == 201
        state = state_of(server)
        with pytest.raises(httpx.TransportError):
            server.edit(second)
        assert server.process.wait(30) == -9
    assert (here / "edits" / "000002.safetensors").is_file(), "killed between the record and its line"

    with served_by_a_process(*log) as server:
        assert state_of(server) == state, "the edit that was not noted is not there at all"
        assert server.edit(second).json()["id"] == 2
        assert server.request("DELETE", "/edits/1").status_code == 200
        state = state_of(server)
        assert main(["edit", third["prompt"], "--subject", third["subject"], "--target", "x", *log]) == 2
        assert main(["undo", "edits", "2"]) == 2
        server.kill()
    with open(here / "edits" / "entries.jsonl", "a") as file:
        file.write('{"id": 4, "type": "ed')  # as a kill in the middle of writing leaves it

    # What the next start of the command does, in this process
    parser = argparse.ArgumentParser()
    add_editing(parser)
    with edited_model(parser.parse_args(["--model", "tiny-llama", *log])) as edited, served(edited) as server:
        assert state_of(server) == state
        assert [(edit["id"], edit["in_weights"]) for edit in state[1]] == [(1, False), (2, True)]
        assert server.say(second["prompt"]).startswith(f" {second['target_new']}")
        assert server.edit(third).json()["id"] == 4
    assert EditLog("edits").ids == [2, 4]
    json.loads((here / "edits" / "entries.jsonl").read_text().splitlines()[-1])


@LONG
def test_kills_at_random_moments(here, capsys):
    """Eight kills around the end of an edit: it is in the log and in the model, or in neither."""
    first, *facts = data.load("tiny-world", size=9)
    draw, there = random.Random(0), [first]

    def check(server):
        for fact in there:
            assert server.say(fact["prompt"]).startswith(f" {fact['target_new']}")

    with served_by_a_process("--log", "edits") as server:
        started = time.perf_counter()
        assert server.edit(first).status_code == 201
        seconds = time.perf_counter() - started
    for fact in facts:
        with served_by_a_process("--log", "edits") as server, ThreadPoolExecutor(1) as pool:
            check(server)
            pool.submit(server.edit, fact)
            time.sleep(seconds * draw.uniform(0.05, 0.6))
            server.kill()
        newest = len(EditLog("edits").ids)
        assert newest - len(there) in (0, 1)
        there += [fact] * (newest - len(there))
    with served_by_a_process("--log", "edits") as server:
        check(server)
    with capsys.disabled():
        print(f"8 kills: {len(there) - 1} after the edit was noted, {9 - len(there)} before")


def test_the_command_refuses(here, monkeypatch, capsys):
    import socket

    with monkeypatch.context() as bare:
        bare.setattr("importlib.util.find_spec", lambda name, *_: None)
        for extra, module in (("serve", "fastapi and uvicorn"), ("demo", "gradio")):
            assert main([extra]) == 2
            message = f"needs {module}: pip install 'easyedit-neuron[{extra}]'"
            assert message in capsys.readouterr().err
    monkeypatch.setenv("EASYEDIT_NEURON_TOKEN", "short")
    assert main(["serve", "--model", "tiny-llama"]) == 2
    assert "EASYEDIT_NEURON_TOKEN must have 16" in capsys.readouterr().err
    monkeypatch.delenv("EASYEDIT_NEURON_TOKEN")
    assert main(["serve", "--port", "70000"]) == 2
    assert "--port 70000" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "in use" in capsys.readouterr().err
    assert main(["serve", "--host", "no.such.host.invalid"]) == 2
    assert "--host no.such.host.invalid" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--model", "tiny-llama", "--method", "Nothing"]) == 2
    assert "unknown method" in capsys.readouterr().err
    (here / "run" / "log").mkdir(parents=True)
    (here / "run" / "log" / "log.json").write_text("{}")
    (here / "run" / "weights.safetensors").touch()
    assert main(["serve", "--port", "0", "--log", "run/log"]) == 2
    assert "is the log of a run" in capsys.readouterr().err
    assert not (here / "easyedit-neuron-edits").exists()
