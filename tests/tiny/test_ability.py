"""The tasks of tiny-world under lm-eval against plain formulas in float64; the model is left unchanged."""

import json
import math
import re

import pytest
import torch

from easyedit_neuron import data, resources
from easyedit_neuron.ability import __main__ as command
from easyedit_neuron.ability import lm, tasks
from easyedit_neuron.ability.general_ability import GeneralAbility
from easyedit_neuron.data.files import read_records
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.utils.fingerprint import model_fingerprint
from helpers.contract import random_states, tokenizer_state
from helpers.tiny_models import tiny_model

LIMIT = 24


@pytest.fixture(scope="module")
def ability():
    return GeneralAbility(["tiny_world"], limit=LIMIT)


def damaged(model, strength):
    """Damage the model as destructive edits do: noise on the down projections."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("down_proj.weight", "c_proj.weight")):
                weight += strength * weight.std() * torch.randn_like(weight)
    return model


def plain(model, tok, prompt, answer):
    """Log-likelihood of the answer's tokens in nats; greedy or not. One text, no padding, float64."""
    context = tok(prompt)["input_ids"] if prompt else [tok.bos_token_id]
    ids = (
        tok(prompt + answer)["input_ids"]
        if prompt
        else context + tok(answer, add_special_tokens=False)["input_ids"]
    )
    with torch.no_grad():
        logs = model.double()(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    token_logs = [logs[i - 1, ids[i]].item() for i in range(len(context), len(ids))]
    greedy = all(logs[i - 1].argmax().item() == ids[i] for i in range(len(context), len(ids)))
    return math.fsum(token_logs), greedy


@pytest.mark.parametrize("strength", [0.0, 4.0])
def test_numbers_are_those_of_the_plain_formulas(shipped_model, ability, strength):
    model, tok = shipped_model
    damaged(model.float(), strength)
    results = ability.measure(model, tok)
    assert list(results) == list(tasks.WORLD_TASKS)
    questions = read_records(resources.data_dir("tiny-world") / "questions.json")
    for kind, task in (("fact", "tiny_world_facts"), ("hop", "tiny_world_hops")):
        asked = [question for question in questions if question["kind"] == kind][:LIMIT]
        lines = [[plain(model, tok, q["prompt"], f" {choice}")[0] for choice in q["choices"]] for q in asked]
        right = sum(line.index(max(line)) == q["answer"] for line, q in zip(lines, asked))
        assert results[task]["value"] == pytest.approx(right / LIMIT)
        assert (results[task]["documents"], results[task]["shots"]) == (LIMIT, 0)
        is_right = [line.index(max(line)) == q["answer"] for line, q in zip(lines, asked)]
        assert results[task]["outcomes"] == [float(value) for value in is_right]
    asked = [question for question in questions if question["kind"] == "fact"][:LIMIT]
    answers = [plain(model, tok, q["prompt"], f" {q['choices'][q['answer']]}") for q in asked]
    cloze = results["tiny_world_cloze"]
    assert cloze["value"] == pytest.approx(math.exp(-math.fsum(log for log, _ in answers) / LIMIT), rel=1e-4)
    assert cloze["metrics"]["acc,none"] == pytest.approx(sum(greedy for _, greedy in answers) / LIMIT)
    texts = data.text("tiny-world", "heldout")[:LIMIT]
    total, words = (
        math.fsum(plain(model, tok, "", text)[0] for text in texts),
        sum(len(re.split(r"\s+", text)) for text in texts),
    )
    assert results["tiny_world_text"]["outcomes"] is None, "a perplexity is no mean over documents"
    assert results["tiny_world_text"]["value"] == pytest.approx(math.exp(-total / words), rel=1e-4)
    assert (
        not results["tiny_world_text"]["higher_is_better"] and results["tiny_world_facts"]["higher_is_better"]
    )
    if strength:
        assert results["tiny_world_facts"]["value"] < 0.9 and results["tiny_world_text"]["value"] > 4
    else:
        assert results["tiny_world_facts"]["value"] == results["tiny_world_hops"]["value"] == 1.0


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])  # tied weights, and no token for the padding
def test_model_tokenizer_and_random_states_are_left_as_they_were(ability, kind):
    model, tok = tiny_model(kind, pad=False)
    model.train()
    model.transformer.h[0].eval() if kind == "gpt2" else model.model.layers[0].eval()
    tok.padding_side = "left"

    def everything():
        torch_state, python_state, numpy_state = random_states()
        return {
            "weights": model_fingerprint(model),
            "training": [module.training for module in model.modules()],
            "tokenizer": tokenizer_state(tok),
            "pad": tok.pad_token,
            "generation": model.generation_config.to_dict(),
            "torch": torch_state,
            "python": python_state,
            "numpy": numpy_state,
        }

    before = everything()
    first = ability.measure(model, tok)
    after = everything()
    assert [name for name in before if after[name] != before[name]] == []
    torch.rand(3)
    assert ability.measure(model, tok) == first


def test_room_for_answers(tmp_path):
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    problems = [{"question": f"How much is {i} and 1?", "answer": f"#### {i + 1}"} for i in range(8)]
    (folder / "test.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    model, tok = tiny_model("llama")
    with pytest.raises(
        HparamsError, match="ability_max_new_tokens.*gsm8k lets the model write 256 tokens.*128 positions"
    ):
        GeneralAbility(["gsm8k"], tmp_path).check(model, tok)
    small = GeneralAbility(["gsm8k"], tmp_path, limit=2, max_new_tokens=4)
    small.check(model, tok)
    results = small.measure(model, tok)["gsm8k"]
    assert (results["metric"], results["value"], results["shots"], results["documents"]) == (
        "exact_match",
        0.0,
        5,
        2,
    )
    assert set(results["metrics"]) == {"exact_match,strict-match", "exact_match,flexible-extract"}


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["--tasks", "tiny_world_hops", "--limit", "3", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"tiny_world_hops +acc +1\.000 +3 +0", out) and out.endswith("ability.json\n")
    written = json.loads((tmp_path / "ability.json").read_text())
    assert (
        written["tasks"]["tiny_world_hops"]["value"] == 1.0
        and written["versions"]["lm_eval"]
        and written["limit"] == 3
    )
    for arguments, message in (
        (["--tasks", "mlu", "--data", "."], "did you mean 'mmlu'"),
        (["--tasks", "humaneval", "--data", "."], "--run-code"),
        (["--data", "nowhere", "--tasks", "gsm8k"], "no such folder"),
        (["--limit", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit) as stop:
            command.main(arguments)
        assert stop.value.code == 2
        assert re.search(message, capsys.readouterr().err)


def test_batches_are_as_large_as_the_logits_allow(shipped_model, monkeypatch):
    """The same numbers from rows one by one, and the size by hand."""
    model, tok = shipped_model
    ability = GeneralAbility(["tiny_world_facts"], limit=8)
    sizes, call = [], lm.HFLM._model_call

    def counted(self, inps, *args, **kwargs):
        sizes.append(len(inps))
        return call(self, inps, *args, **kwargs)

    monkeypatch.setattr(lm.HFLM, "_model_call", counted)
    whole = ability.measure(model, tok)
    assert max(sizes) > 8 and lm.rows_that_fit(1000, 50_000) == 5 and lm.rows_that_fit(10**6, 10**6) == 1
    sizes.clear()
    monkeypatch.setattr(lm, "LOGITS_BYTES", 1)
    assert ability.measure(model, tok) == whole and set(sizes) == {1}


def test_cloze_answers_are_compared_per_byte(shipped_model, tmp_path):
    """Plain formula: the answer with the highest log-likelihood divided by its bytes."""
    model, tok = shipped_model
    words = ["Liro Works", "Baimo", "Geirville Gleilmi Wendman", "Tinde Hortman", "clarinet"]
    choices = [{"label": letter, "text": text} for letter, text in zip("ABCDE", words)]
    question = {
        "answerKey": "C",
        "id": "x",
        "question": {"stem": "Where does Baimo work?", "choices": choices},
    }
    file = tmp_path / "commonsenseqa" / "dev_rand_split.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps(question) + "\n")
    row = GeneralAbility(["commonsense_qa_cloze"], tmp_path).measure(model, tok)["commonsense_qa_cloze"]
    prompt = "Question: Where does Baimo work?\nAnswer:"
    logs = [plain(model.float(), tok, prompt, f" {text}")[0] / len(text.encode()) for text in words]
    best = max(range(5), key=logs.__getitem__)
    assert row["metric"] == "acc_norm" and row["value"] == float(best == 2)
    assert row["outcomes"] == [row["value"]]
