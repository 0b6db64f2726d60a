"""Rights of written files, names of unfinished ones, and folders that a process holds."""

import os
import subprocess
import sys

import pytest
import torch

from easyedit_neuron.utils.io import (
    held,
    remove_parts_below,
    remove_stale_parts,
    save_tensors,
    write_folder,
    write_text,
    write_text_once,
)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_have_the_rights_that_the_umask_gives(umask, mode, tmp_path):
    """What is shared in a group can be read there, and what is private cannot."""
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "tensors.safetensors", {"a": torch.zeros(3)}, {})
        write_text(tmp_path / "text", "a")
        write_text_once(tmp_path / "once", "a")

        def fill(folder):
            save_tensors(folder / "adapter.safetensors", {"a": torch.zeros(3)}, {})
            (folder / "closed").write_text("a")
            os.chmod(folder / "closed", 0o600)

        write_folder(tmp_path / "folder", fill)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(mode)}


def test_what_killed_writers_leave_is_removed(tmp_path):
    path = tmp_path / "tensors.safetensors"
    save_tensors(path, {"a": torch.zeros(3)}, {})
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    old, new = (tmp_path / f".{path.name}-{number:012x}.part" for number in (1, 2))
    for part in (old, new):
        part.write_text("")
    os.utime(old, (0, 0))
    remove_stale_parts(tmp_path)  # others may be writing
    assert sorted(file.name for file in tmp_path.iterdir()) == [new.name, path.name]
    (tmp_path / "state" / "0002.part").mkdir(parents=True)
    (tmp_path / "state" / "0002.part" / "state.json").write_text("{")
    remove_parts_below(tmp_path)  # nobody else is
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["state", path.name]
    remove_stale_parts(tmp_path / "absent")


def test_a_held_folder_is_one_process_s(tmp_path):
    """Another process is refused while it is held, and what a killed one left unfinished is removed."""
    folder = tmp_path / "log"
    hold = "import sys, pathlib; from easyedit_neuron.utils.io import held\n"
    hold += "with held(pathlib.Path(sys.argv[1]), 'it'): pass"
    command = [sys.executable, "-c", hold, str(folder)]
    with held(folder, "it"):
        other = subprocess.run(command, capture_output=True, text=True)
        assert other.returncode and "another process works on it; wait for it" in other.stderr
    assert not folder.exists(), "nothing was written"
    folder.mkdir()
    (folder / ".a-1.part").touch()
    (folder / "a").touch()
    subprocess.run(command, check=True)
    assert [path.name for path in folder.iterdir()] == ["a"]
