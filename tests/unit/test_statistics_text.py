"""The covariance's text: files, the shipped body, samples, data sets of the hub, and what is wrong with a
file."""

import json
import sys
from types import SimpleNamespace

import pytest

from easyedit_neuron import resources
from easyedit_neuron.errors import DataError
from easyedit_neuron.statistics.text import Texts


@pytest.fixture
def load(tmp_path):
    return lambda source, n_samples=10, seed=0: Texts(str(source), n_samples, seed, tmp_path / "stats")


def test_txt_is_one_text_a_line(tmp_path, load):
    path = tmp_path / "a.txt"
    path.write_text("first\n\n  \nsecond Ø\n", encoding="utf-8")
    texts = load(path)
    assert list(texts) == list(texts) == ["first", "second Ø"] and len(texts) == 2


def test_jsonl_fields(tmp_path, load):
    path = tmp_path / "a.jsonl"
    rows = [{"text": "one"}, {"id": 1, "content": "two"}, {"sentence": "three"}, "four", {"text": " "}]
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    assert list(load(path)) == ["one", "two", "three", "four"]


def test_jsonl_with_an_unescaped_line_separator(tmp_path, load):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(load(path)) == ["a\u2028b"]


def test_a_sample_depends_on_the_seed_alone_and_keeps_the_order(tmp_path, load):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(str(i) for i in range(100)))
    first, again, other = load(path, seed=1), load(path, seed=1), load(path, seed=2)
    assert list(first) == list(again) == sorted(first, key=int) != list(other)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert len(set(first)) == len(first) == 10


def test_the_fingerprint_is_that_of_the_texts(tmp_path, load):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('"one"\n\n"two"')
    (tmp_path / "c.txt").write_text("one\ntwo.\n")
    same, same_again, different = (
        load(tmp_path / name).fingerprint for name in ("a.txt", "b.jsonl", "c.txt")
    )
    assert same == same_again == load(tmp_path / "a.txt", n_samples=2, seed=3).fingerprint != different


def test_texts_are_read_as_they_are_asked_for(tmp_path, load):
    """A text far behind is not in memory: the file shrinks before it is reached, and nobody finds it."""
    path = tmp_path / "a.txt"
    path.write_text("\n".join(["x" * 1000] * 1000))
    texts = iter(load(path, 1000))
    assert next(texts) == "x" * 1000
    path.write_text("")
    with pytest.raises(DataError, match="was changed while it was in use"):
        assert sum(1 for _ in texts) < 999


def test_a_file_changed_or_gone_since_is_noticed(tmp_path, load):
    path = tmp_path / "a.txt"
    path.write_text("one")
    texts = load(path)
    path.write_text("other")
    with pytest.raises(DataError, match="a.txt.* was changed"):
        list(texts)
    path.unlink()
    with pytest.raises(DataError, match="a.txt.* was changed"):
        list(texts)


def test_the_shipped_body(load):
    lines = (resources.data_dir("tiny-world") / "text_train.txt").read_text(encoding="utf-8").splitlines()
    assert set(load("tiny-world", 50)) <= set(lines) and len(list(load("tiny-world", 50))) == 50


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", None, "no file"),
        ("a.txt", b"\n \n", "holds no text"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "line 2"),
        ("a.jsonl", b'{"title": "a"}', "line 1: needs"),
        ("a.jsonl", b"5", "line 1"),
        ("a.jsonl", b"[1]", "line 1"),
        ("a.jsonl", b'{"text": null}', "line 1"),
        ("a.jsonl", b'"\\ud800"', "line 1"),
    ],
)
def test_errors(tmp_path, load, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load(path)
    assert name in str(error.value)


def hub(rows, calls):
    """A stand-in for the datasets package; ``rows`` are streamed, an exception among them is raised in its
    turn."""

    class Rows:
        def take(self, count):
            for row in rows[:count]:
                if isinstance(row, Exception):
                    raise row
                yield row

    return SimpleNamespace(load_dataset=lambda *args, **kwargs: calls.append((args, kwargs)) or Rows())


def test_a_data_set_is_streamed_once_and_kept(tmp_path, load, monkeypatch):
    calls = []
    rows = [{"text": text} for text in ("one\ntwo", "", "three", "four")]
    monkeypatch.setitem(sys.modules, "datasets", hub(rows, calls))
    first = load("wikipedia", 3)
    assert calls == [(("wikimedia/wikipedia", "20231101.en"), {"split": "train", "streaming": True})]
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert list(first) == list(load("wikipedia", 3)) == ["one\ntwo", "three"]
    with pytest.raises(DataError, match="mom2_dataset: 'wikipedia' .*name a local text file"):
        load("wikipedia", 4)


@pytest.mark.parametrize("rows", [[{"text": "one"}, OSError("connection lost")], [{"title": "one"}]])
def test_an_interrupted_or_unusable_data_set_leaves_nothing(tmp_path, load, monkeypatch, rows):
    monkeypatch.setitem(sys.modules, "datasets", hub(rows, []))
    with pytest.raises(DataError, match="mom2_dataset: 'unknown-set' .*name a local text file"):
        load("unknown-set")
    assert list((tmp_path / "stats").iterdir()) == []


def test_files_never_import_datasets(tmp_path, load, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "a.txt").write_text("one")
    assert list(load(tmp_path / "a.txt")) == ["one"] and len(load("tiny-world", 3)) == 3
