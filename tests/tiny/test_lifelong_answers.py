"""What the model says, in words: asked of the untouched model and at the end, the same in a resumed run."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from easyedit_neuron import data, resources
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.evaluation.answers import answers
from easyedit_neuron.lifelong.engine import Engine
from easyedit_neuron.lifelong.measurer import Measurer
from helpers.chat_server import chat_server, says_target
from helpers.lifelong_runs import NAMES, make_world, outcome, start

SHORT = dict(edits=40, checkpoints=[20], save_every_edits=None, measure={"answers": 8, "fluency": 0})
# Large steps, so that the dummy changes what the model says.
LOUD = {"strength": 20.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    start(world, out, changes=LOUD, **SHORT)
    return out


def lines_of(out):
    return [json.loads(line) for line in (out / "edits.jsonl").read_text().splitlines()]


def test_answers_are_those_of_the_untouched_and_the_final_model(world, run):
    lines = lines_of(run)
    answered = [line for line in lines if "answers" in line]
    assert len(answered) == 8 and all(line["final"] is not None for line in answered)
    live = [line["edit"] for line in lines if line["superseded_by"] is None]
    assert [line["edit"] for line in answered] == [live[i * len(live) // 8] for i in range(8)]
    model, tok = (cls.from_pretrained(world / "model") for cls in (AutoModelForCausalLM, AutoTokenizer))
    # In the runner's batch: a random model's logits are so close that other batches round to other tokens.
    entries = [line["answers"][kind] for line in answered for kind in ("rewrite", "rephrase", "neighbor")]
    prompts = [entry["prompt"] for entry in entries]
    before = answers(model, tok, prompts)
    with torch.no_grad():
        for name, value in load_file(run / "weights.safetensors").items():
            model.get_parameter(name).copy_(value)
    final = answers(model, tok, prompts)
    assert [(entry["before"], entry["final"]) for entry in entries] == list(zip(before, final))
    assert before != final and any(before) and any(final)
    for line in answered:
        request, said = line["request"], line["answers"]
        assert said["rewrite"]["prompt"] == request["prompt"]
        assert said["rephrase"]["prompt"] == request["rephrase_prompt"]
        assert said["neighbor"]["prompt"] == f"{request['subject']} plays"
    summary = json.loads((run / "summary.json").read_text())
    assert [example["edit"] for example in summary["examples"]] == [line["edit"] for line in answered[::2]]
    assert summary["examples"][1]["answers"] == answered[2]["answers"]


def test_answers_in_batches_of_any_size_are_in_the_order_of_the_prompts():
    """The shipped model knows its world, so that rounding does not matter."""
    folder = resources.model_path("tiny-llama")
    model, tok = (cls.from_pretrained(folder) for cls in (AutoModelForCausalLM, AutoTokenizer))
    facts = sorted(data.retained("tiny-world")[:20], key=lambda fact: fact["prompt"][::-1])
    expected = [f"{fact['ground_truth']}." for fact in facts]
    for size in (1, 7, 64):
        assert answers(model, tok, [fact["prompt"] for fact in facts], batch_size=size) == expected
    assert answers(model, tok, []) == []


def test_none(world, tmp_path):
    start(world, tmp_path / "run", **{**SHORT, "edits": 3, "measure": {"answers": 0}})
    assert not any("answers" in line for line in lines_of(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["examples"] == []


def test_a_resumed_run_asks_the_untouched_model_no_more(world, run, tmp_path, monkeypatch):
    """Stopped between the checkpoints, and once more after the answers stood in the lines."""
    out, asked = tmp_path / "run", []
    read = Measurer.read_answers
    monkeypatch.setattr(Measurer, "read_answers", lambda *args: asked.append(args[2]) or read(*args))
    edit, finish = Engine._edit_batch, Engine._finish

    def fail_at_25(self, positions):
        if positions.start == 25:
            raise NeuronEditError("stopped at 25")
        edit(self, positions)

    def fail_after(self):
        finish(self)
        raise NeuronEditError("stopped at the end")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_edit_batch", fail_at_25)
        with pytest.raises(NeuronEditError, match="at 25"):
            start(world, out, changes=LOUD, **SHORT)
    assert len(asked) == 1 and len(json.loads((out / "before.json").read_text())["answers"]) == 8
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_finish", fail_after)
        with pytest.raises(NeuronEditError, match="at the end"):
            start(world, out, changes=LOUD, **SHORT)
    assert len(asked) == 2 and sum("answers" in line for line in lines_of(out)) == 8
    start(world, out, changes=LOUD, **SHORT)
    assert len(asked) == 3
    assert outcome(out) == outcome(run)


def test_an_edited_before_file_is_refused(world, tmp_path):
    """Answers of the untouched model belong to the state as the metrics do."""
    trap = {"fail_at": f"{NAMES[0]} works"}
    options = {**SHORT, "edits": 12, "checkpoints": [5]}
    out = tmp_path / "run"
    with pytest.raises(NeuronEditError, match="fails here"):
        start(world, out, changes=trap, on_failure="stop", **options)
    shutil.copytree(out, tmp_path / "copy")
    before = json.loads((out / "before.json").read_text())
    before["answers"][0]["rewrite"]["text"] += "!"
    (out / "before.json").write_text(json.dumps(before))
    with pytest.raises(NeuronEditError, match="before.json: is not the one that the run's state belongs to"):
        start(world, out, changes=trap, on_failure="continue", **options)
    start(world, tmp_path / "copy", changes=trap, on_failure="continue", **options)


def test_a_judge_grades_the_answers_of_a_run(world, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-key")
    with chat_server(says_target) as chat:
        measure = {"judge": chat.url, "judge_model": "m", "answers": 0, "fluency": 0}
        start(world, tmp_path / "run", edits=4, checkpoints=[], measure=measure)
    finals = [line["final"] for line in lines_of(tmp_path / "run")]
    assert all(set(final["rewrite_answer_judged"]) <= {0.0, 1.0} for final in finals)
    assert len(chat.requests) > 2, "two cases to begin with, then the answers"
    heading, *rows = (tmp_path / "run" / "checkpoints.csv").read_text().splitlines()
    place = heading.split(",").index("rel_judged")
    expected = sum(final["rewrite_answer_judged"][0] for final in finals) / 4
    assert float(rows[-1].split(",")[place]) == pytest.approx(expected) and not rows[0].split(",")[place]
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert files and not any(b"a-secret-key" in file.read_bytes() for file in files)


def test_a_judge_that_cannot_be_asked_ends_the_run_before_an_edit(world, tmp_path, monkeypatch):
    monkeypatch.setattr("easyedit_neuron.evaluation.llm_judge.RETRIES", 0)
    with chat_server(lambda _: 500) as chat, pytest.raises(NeuronEditError, match="cannot be asked"):
        start(world, tmp_path / "run", edits=4, measure={"judge": chat.url, "judge_model": "m"})
    assert not (tmp_path / "run" / "edits.jsonl").exists()


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ({"judge": "http://127.0.0.1:1/v1"}, "field 'judge_model'.*go together"),
        ({"judge_model": "m"}, "field 'judge'.*go together"),
        ({"judge": "127.0.0.1", "judge_model": "m"}, "field 'judge'.*is no address"),
    ],
)
def test_settings_of_a_judge(world, tmp_path, measure, message):
    with pytest.raises(NeuronEditError, match=message):
        start(world, tmp_path / "run", edits=4, measure=measure)
