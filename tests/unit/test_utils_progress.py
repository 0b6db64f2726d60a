"""Lines of progress outside of a terminal."""

from easyedit_neuron.utils import progress as module
from easyedit_neuron.utils.progress import progress, silenced


def test_lines_say_how_much_is_left(monkeypatch, capsys):
    clock = iter([0.0, 2.0, 10.0, 10.0, 10.0, 12.0, 40.0, 40.0, 40.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("keys", 100, "text", done=20) as shown:
        shown.add(5)  # after 2 seconds: too early for a line
        shown.add(15)  # after 10: 20 of 80 done, so 30 seconds for the other 60
        shown.add(1)  # 2 seconds after a line
        shown.add(19)  # after 40: 40 of 80 done
    assert (
        capsys.readouterr().err
        == "keys: 40/100 texts, about 00:30 left\nkeys: 60/100 texts, about 00:40 left\n"
    )


def test_nothing_is_shown_when_it_is_silenced(monkeypatch, capsys):
    monkeypatch.setattr(module, "SECONDS_BEFORE_FIRST", 0.0)
    with silenced(), progress("keys", 2, "text") as shown:
        shown.add(1)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with progress("keys", 2, "text") as shown:
        shown.add(1)
    assert capsys.readouterr().err == ""
