"""``examples/serve_edited_model.py``: the edits are served, and one is taken back from a model that stays
loaded."""

import runpy

from easyedit_neuron import data, resources


def test_serving(tmp_path, capsys):
    example = runpy.run_path(str(resources.PACKAGE_DIR.parent / "examples" / "serve_edited_model.py"))
    answers = example["main"](tmp_path)
    targets = [request["target_new"] for request in data.load("tiny-world", size=3)]
    assert list(answers) == ["unedited", "v1", "v2"]
    assert not set(answers["unedited"]) & set(targets) and answers["v1"] == targets
    assert answers["v2"] == [
        targets[0],
        answers["unedited"][1],
        targets[2],
    ]  # what the model said before the second edit
    assert {path.name for path in tmp_path.iterdir()} == {"log", "v1", "v2"}
    assert targets[1] in capsys.readouterr().out
