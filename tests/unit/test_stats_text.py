"""The covariance's text: files, the shipped body, samples, and what is wrong with a file."""

import json
import sys

import pytest

from easyedit_neuron import resources
from easyedit_neuron.errors import DataError
from easyedit_neuron.stats.text import load_texts


def test_txt_is_one_text_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("first\n\n  \nsecond Ø\n", encoding="utf-8")
    assert load_texts(str(path), 10) == ["first", "second Ø"]


def test_jsonl_fields(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "one"}, {"id": 1, "content": "two"}, {"sentence": "three"}, "four"]
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    assert load_texts(str(path), 10) == ["one", "two", "three", "four"]


def test_jsonl_with_an_unescaped_line_separator(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_texts(str(path), 10) == ["a\u2028b"]


def test_a_sample_depends_on_the_seed_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(str(i) for i in range(100)))
    first = load_texts(str(path), 10, seed=1)
    assert first == load_texts(str(path), 10, seed=1) != load_texts(str(path), 10, seed=2)
    assert len(set(first)) == 10


def test_the_shipped_body():
    lines = (resources.data_dir("tiny-world") / "text_train.txt").read_text(encoding="utf-8").splitlines()
    assert set(load_texts("tiny-world", 50)) <= set(lines) and len(load_texts("tiny-world", 50)) == 50


@pytest.mark.parametrize("name, content, message", [
    ("a.txt", None, "no file"), ("a.txt", b"\n \n", "holds no text"), ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
    ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2"), ("a.jsonl", b'{"title": "a"}', "line 1: needs"), ("a.jsonl", b"5", "line 1"),
    ("a.jsonl", b"[1]", "line 1"), ("a.jsonl", b'{"text": null}', "line 1")])
def test_errors(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_texts(str(path), 10)
    assert name in str(error.value)


def test_a_name_that_cannot_be_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="mom2_dataset: 'wikipedia' .*name a local text file"):
        load_texts("wikipedia", 10)
