"""The papers' benchmarks from files in their upstream formats: documents, prompts as lm-eval's own YAML makes
them, mistakes."""

import gzip
import json
import os
from pathlib import Path

import pytest

from easyedit_neuron.ability import code, local, tasks
from easyedit_neuron.errors import DataError, HparamsError
from easyedit_neuron.tinyworld.corpus import build_corpus
from easyedit_neuron.tinyworld.questions import questions
from easyedit_neuron.tinyworld.world import build_world

REAL = Path(os.environ.get("EASYEDIT_NEURON_DATA") or "nowhere") / "general"
HEADER = "question,choice0,choice1,choice2,choice3,answer\n"
PROBLEM = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """Sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("general")
    write(
        base / "mmlu/test/anatomy_test.csv",
        HEADER + '"Which, of these?\nSay ""it""",one,two,three,four,3\n Short? ,a,b,c,d,B\n',
    )
    write(base / "mmlu/dev/anatomy_dev.csv", "Shot?,w,x,y,z,0\n")
    problems = [{"question": f"{i} + 1?", "answer": f"so\n#### {i + 1}"} for i in range(9)]
    write(base / "gsm8k/test.jsonl", "".join(json.dumps(problem) + "\n" for problem in problems))
    choices = [{"label": letter, "text": f"word {letter}"} for letter in "ABCDE"]
    write(
        base / "commonsenseqa/dev_rand_split.jsonl",
        json.dumps({"answerKey": "C", "id": "x", "question": {"stem": "Where? ", "choices": choices}}) + "\n",
    )
    write(
        base / "bbh/snarks.json",
        json.dumps({"canary": "c", "examples": [{"input": "Which?\n(A) x\n(B) y", "target": "(B)"}]}),
    )
    write(base / "humaneval/HumanEval.jsonl.gz", json.dumps(PROBLEM) + "\n")
    return base


def loaded(folder, monkeypatch, tmp_path, *names):
    """Tasks, from another working directory and with every way to the network closed."""
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("network touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    return tasks.load(names, folder, run_code=True)["tasks"]


def prompts(task, shots):
    """(prompt, continuation) of every document's requests."""
    task.set_fewshot_seed(1234)
    task.set_config("num_fewshot", shots)
    task.build_all_requests()
    return [
        [instance.args for instance in task.instances if instance.doc_id == i]
        for i in range(len(task.eval_docs))
    ]


def test_documents(folder):
    documents = local.mmlu(str(folder), "anatomy")
    assert documents["test"][0] == {
        "question": 'Which, of these?\nSay "it"',
        "subject": "anatomy",
        "choices": ["one", "two", "three", "four"],
        "answer": 3,
    }
    assert documents["test"][1]["answer"] == 1 and documents["dev"][0]["answer"] == 0
    assert local.commonsense_qa(str(folder))["validation"][0]["choices"]["text"][2] == "word C"
    assert local.bbh(str(folder), "snarks")["test"][0]["target"] == "(B)"
    assert local.humaneval(str(folder))["test"][0] == PROBLEM


def test_prompts_are_those_of_the_standard_tasks(folder, monkeypatch, tmp_path):
    """Written out from the tasks' descriptions: what the model reads, and what it is asked to continue
    with."""
    loaded_tasks = loaded(folder, monkeypatch, tmp_path, "gsm8k", "commonsense_qa", "humaneval")
    (question,) = prompts(loaded_tasks["commonsense_qa"], 0)
    text = "Question: Where?\nA. word A\nB. word B\nC. word C\nD. word D\nE. word E\nAnswer:"
    assert question == [(text, f" {letter}") for letter in "ABCDE"]
    assert loaded_tasks["commonsense_qa"].doc_to_target(loaded_tasks["commonsense_qa"].eval_docs[0]) == "C"
    assert loaded_tasks["gsm8k"].get_config("num_fewshot") == 5
    for i, ((prompt, options),) in enumerate(prompts(loaded_tasks["gsm8k"], 5)):
        parts = prompt.split("\n\n")
        assert (
            len(parts) == 6
            and parts[-1] == f"Question: {i} + 1?\nAnswer:"
            and options["until"][0] == "Question:"
        )
        assert parts[-1] not in [part.split(" so")[0] for part in parts[:-1]], (
            "the question is not among its own shots"
        )
    (((prompt, options),),) = prompts(loaded_tasks["humaneval"], 0)
    assert prompt == PROBLEM["prompt"] and options["max_gen_toks"] == 1024 and not options["do_sample"]


@pytest.mark.parametrize(
    "benchmark, name, text",
    [
        (
            "mmlu",
            "anatomy",
            "The following are multiple choice questions (with answers) about anatomy.\n\n"
            "Short?\nA. a\nB. b\nC. c\nD. d\nAnswer:",
        ),
        ("bbh", "snarks", "Q: Which?\n(A) x\n(B) y\nA:"),
    ],
)
def test_prompts_of_groups(folder, monkeypatch, tmp_path, benchmark, name, text):
    """A group whose other subjects are not in the folder: the first one that is missing is named."""
    with pytest.raises(
        DataError, match="(abstract_algebra_test.csv|boolean_expressions.json): cannot be read"
    ):
        loaded(folder, monkeypatch, tmp_path, benchmark)
    full = "bbh_zeroshot" if benchmark == "bbh" else benchmark
    task = loaded(folder, monkeypatch, tmp_path, f"{full}_{name}")[f"{full}_{name}"]
    last = prompts(task, 0)[-1]
    assert last[0][0].endswith(text)
    if benchmark == "mmlu":
        assert last[0][0] == text and [continuation for _, continuation in last] == [" A", " B", " C", " D"]


@pytest.mark.parametrize(
    "name, path, content, match",
    [
        (
            "mmlu",
            "mmlu/test/anatomy_test.csv",
            HEADER + "q,a,b,c,d,4\n",
            "anatomy_test.csv, question 1: expected question",
        ),
        ("gsm8k", "gsm8k/test.jsonl", '{"question": "q"}\n', r"test.jsonl, line 1: .*answer"),
        ("gsm8k", "gsm8k/test.jsonl", "\n", r"holds no records"),
        (
            "commonsense_qa",
            "commonsenseqa/dev_rand_split.jsonl",
            '{"answerKey": "A", "question": {"stem": "s", "choices": []}}',
            "not five",
        ),
        (
            "bbh",
            "bbh/snarks.json",
            '{"examples": [{"input": 3, "target": ""}]}',
            "snarks.json: not a task.*'input' is int",
        ),
        ("humaneval", "humaneval/HumanEval.jsonl", "[1]", "HumanEval.jsonl, line 1"),
    ],
)
def test_malformed_files(tmp_path, name, path, content, match):
    write(tmp_path / path, content)
    read = getattr(local, name)
    with pytest.raises(DataError, match=match):
        read(str(tmp_path), "anatomy" if name == "mmlu" else "snarks") if name in ("mmlu", "bbh") else read(
            str(tmp_path)
        )


def test_code_runs_only_when_allowed(folder, monkeypatch):
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    with pytest.raises(HparamsError, match="runs Python code.*ability_run_code=true"):
        tasks.load(["humaneval"], folder)
    assert tasks.code_allowed(True) and not tasks.code_allowed(False)
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    assert tasks.code_allowed(False)


@pytest.mark.parametrize(
    "completion, passed",
    [
        ("    return a + b\n", 1.0),
        ("    return a - b\n", 0.0),
        ("    import sys; sys.exit(0)\n", 0.0),
        ("    return (\n", 0.0),
    ],
)
def test_pass_at_1(completion, passed):
    assert code.process_results(PROBLEM, [completion]) == {"pass@1": passed}


def test_a_program_that_does_not_end():
    assert not code.passes("while True: pass", seconds=0.5)


def test_questions_have_one_true_choice():
    world = build_world(0)
    asked = questions(world, build_corpus(world, 0), 600)
    assert {kind: sum(q["kind"] == kind for q in asked) for kind in ("fact", "hop")} == {
        "fact": 600,
        "hop": 220,
    }
    for question in asked:
        subject, name = question["subject"], question["relation"]
        assert subject in world.protected and len(set(question["choices"])) == 4
        first = world.facts[subject, name]
        true = first if question["kind"] == "fact" else (world.hop(name, first[0]),)
        assert [choice in true for choice in question["choices"]].index(True) == question["answer"]
        assert sum(choice in true for choice in question["choices"]) == 1
        assert question["kind"] == "fact" or first[0] in world.cities or first[0] in world.protected


def test_cloze_questions_are_answered_in_words(folder, monkeypatch, tmp_path):
    task = loaded(folder, monkeypatch, tmp_path, "commonsense_qa_cloze")["commonsense_qa_cloze"]
    (document,) = task.eval_docs
    assert task.doc_to_text(document) == "Question: Where?\nAnswer:"
    assert task.doc_to_choice(document) == [f"word {letter}" for letter in "ABCDE"]
    assert task.doc_to_target(document) == 2 and task.config.target_delimiter == " "
    assert [metric["metric"] for metric in task.config.metric_list] == ["acc_norm", "acc"]


def test_cloze_mmlu_lets_the_subjects_take_turns(monkeypatch, tmp_path):
    for subject, count in (("anatomy", 3), ("virology", 1), ("astronomy", 2)):
        lines = [f"{subject} {i}?,w,x,y,z,{i}\n" for i in range(count)]
        write(tmp_path / f"data/mmlu/test/{subject}_test.csv", "".join(lines))
    task = loaded(tmp_path / "data", monkeypatch, tmp_path, "mmlu_cloze")["mmlu_cloze"]
    asked = [document["question"] for document in task.eval_docs]
    assert asked == ["anatomy 0?", "astronomy 0?", "virology 0?", "anatomy 1?", "astronomy 1?", "anatomy 2?"]
    assert task.doc_to_text(task.eval_docs[3]) == "Question: anatomy 1?\nAnswer:"
    assert task.doc_to_choice(task.eval_docs[3]) == ["w", "x", "y", "z"]
    assert task.doc_to_target(task.eval_docs[3]) == 1


def test_cloze_mmlu_without_a_file_names_the_folder(monkeypatch, tmp_path):
    (tmp_path / "data/mmlu/test").mkdir(parents=True)
    with pytest.raises(DataError, match=r"mmlu.test: no SUBJECT_test.csv"):
        loaded(tmp_path / "data", monkeypatch, tmp_path, "mmlu_cloze")


@pytest.mark.skipif(not REAL.is_dir(), reason="EASYEDIT_NEURON_DATA names no folder with general/")
def test_real_files(monkeypatch, tmp_path):
    loaded_tasks = loaded(REAL, monkeypatch, tmp_path, *tasks.LOCAL)
    sizes = dict.fromkeys(tasks.LOCAL, 0)
    for name, task in loaded_tasks.items():
        sizes[tasks.benchmark_of(name)] += len(task.eval_docs)
    assert sizes == {
        "mmlu": 14042,
        "gsm8k": 1319,
        "commonsense_qa": 1221,
        "bbh_zeroshot": 6511,
        "humaneval": 164,
        "mmlu_cloze": 14042,
        "commonsense_qa_cloze": 1221,
    }
