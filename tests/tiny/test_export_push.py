"""``easyedit-neuron push`` against a server of our own, as a process of its own: the address and the token
are read when huggingface_hub is imported."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.export import export_peft
from easyedit_neuron.export.push import push as upload
from helpers.exports import run_of
from helpers.fake_hub import TOKEN, Hub, Repository, hub


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    base, _, _, records = run_of("FiNE", "llama", folder)
    export_peft(records, base, folder / "adapter", base="somebody/tiny")
    return folder / "adapter"


def push(server, home, *arguments, token=TOKEN):
    """The command with this server for the Hub, and a home without a login."""
    variables = {"HF_ENDPOINT": server.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    variables |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_TOKEN": token}
    command = [sys.executable, "-m", "easyedit_neuron", "push", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=300)


def test_a_private_repository_with_every_file(adapter, tmp_path):
    with hub() as server:
        result = push(server, tmp_path, adapter, "somebody/edits")
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"{server.address}/somebody/edits\n"
        repository = server.repositories["somebody/edits"]
        assert repository.private and repository.commits == ["3 edits as peft, by easyedit-neuron"]
        assert repository.files == {path.name: path.read_bytes() for path in adapter.iterdir()}
        card = server.cards[0]  # what the Hub is asked to check
        header = yaml.safe_load(card.split("---\n")[1])
        assert header["base_model"] == "somebody/tiny" and header["library_name"] == "peft"
        # Once more, the same files: a second commit at most, and no second repository.
        assert push(server, tmp_path, adapter, "somebody/edits").returncode == 0
        assert list(server.repositories) == ["somebody/edits"]
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and TOKEN in path.read_text(errors="ignore")
    ]


def test_public_ones(adapter, tmp_path):
    with hub() as server:
        server.repositories["somebody/open"] = Repository(private=False)
        result = push(server, tmp_path, adapter, "somebody/open")
        assert result.returncode == 2 and result.stderr.count("\n") == 1
        assert "is there already, and public: nothing was uploaded. --public" in result.stderr
        assert not server.repositories["somebody/open"].files
        assert push(server, tmp_path, adapter, "somebody/open", "--public").returncode == 0
        assert set(server.repositories["somebody/open"].files) == {path.name for path in adapter.iterdir()}


def test_refused_by_the_hub(adapter, tmp_path):
    """One line each, and nothing is created."""
    with hub() as server:
        result = push(server, tmp_path, adapter, "somebody/edits", token="hf_other")
        assert result.returncode == 2 and result.stderr.count("\n") == 1
        assert (
            "Invalid credentials" in result.stderr
            and "log in with 'hf auth login', or set HF_TOKEN" in result.stderr
        )
        assert not server.repositories
    result = push(Hub(address=server.address), tmp_path, adapter, "somebody/edits")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert f"the Hub at {server.address} cannot be reached" in result.stderr


@pytest.mark.parametrize(
    "repo, change, match",
    [
        ("no good/name at all", None, "'no good/name at all' is no name of a repository"),
        ("somebody/edits", lambda folder: (folder / "adapter_config.json").write_text("{}"), "other SHA-256"),
        (
            "somebody/edits",
            lambda folder: (folder / "easyedit_neuron.json").unlink(),
            "not written by easyedit-",
        ),
        ("somebody/edits", lambda folder: None, "cannot be reached.*offline mode"),
    ],
)
def test_refused_here(adapter, tmp_path, repo, change, match):
    """In the tests' own process, which is offline."""
    shutil.copytree(adapter, tmp_path / "adapter")
    if change is not None:
        change(tmp_path / "adapter")
    with pytest.raises(NeuronEditError, match=match):
        upload(tmp_path / "adapter", repo)
