"""Recording the edits that an editor makes, sequential or each on the unedited model."""

import pytest
import torch

from easyedit_neuron.editlog import EditLog, recording, replay
from easyedit_neuron.errors import StateError
from easyedit_neuron.host.base_editor import BaseEditor
from helpers.contract import apply, differing, fresh, parameters, settings
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS
from helpers.editing import REQUESTS
from helpers.editlogs import FIRST, SECOND


@pytest.fixture
def editor(tmp_path):
    hparams = settings("FiNE", tmp_path)
    hparams.model_name = fresh("llama")
    return BaseEditor.from_hparams(hparams)


def edit(editor, count=3, **options):
    editor.edit(PROMPTS[:count], TARGETS[:count], subject=EXTRAS["subject"][:count], verbose=False, **options)


def test_sequential_edits(editor, tmp_path):
    with recording(editor.model, tmp_path / "log") as log:
        edit(editor, sequential_edit=True)
    assert [entry["type"] for entry in log.entries] == ["edit"] * 3 and log.ids == [1, 2, 3]
    base, _ = fresh("llama")
    assert (
        replay(EditLog(tmp_path / "log"), base).exact
        and differing(parameters(base), parameters(editor.model)) == []
    )
    with recording(editor.model, log):
        edit(editor, 1, sequential_edit=True)
    assert EditLog(tmp_path / "log").ids == [1, 2, 3, 4]
    edit(editor, 1, sequential_edit=True)  # not in a block
    with pytest.raises(StateError, match="nor of an earlier one"), recording(editor.model, log):
        raise AssertionError("not reached")


def test_edits_that_the_host_puts_back(editor, tmp_path):
    """Every edit begins where the one before did; at the end the log knows that nothing is left."""
    with recording(editor.model, tmp_path / "log") as log:
        edit(editor)
    assert [entry["type"] for entry in log.entries] == ["edit", "restore"] * 3
    assert log.ids == [] and [log.ids_at(n) for n in range(7)] == [[], [1], [], [3], [], [5], []]
    for upto, number in ((3, 3), (5, 5)):
        base, _ = fresh("llama")
        assert replay(log, base, upto=upto).exact and replay(log, fresh("llama")[0], upto=upto).ids == [
            number
        ]
    assert replay(EditLog(tmp_path / "log"), base := fresh("llama")[0]).exact
    assert differing(parameters(base), parameters(fresh("llama")[0])) == []


def test_an_edit_whose_record_cannot_be_written_is_taken_back(tmp_path, monkeypatch):
    model, tok = fresh("llama")
    hparams, before = settings("NMKE", tmp_path), parameters(model)
    with recording(model, tmp_path / "log") as log:
        apply(model, tok, REQUESTS[:1], hparams)
        after = parameters(model)
        with monkeypatch.context() as patch:
            patch.setattr(
                "easyedit_neuron.editlog.log.append_text",
                lambda *_: (_ for _ in ()).throw(StateError("disk full")),
            )
            with pytest.raises(StateError, match="disk full"):
                apply(model, tok, [SECOND], hparams)
        assert differing(parameters(model), after) == [] and log.ids == [1]
        apply(model, tok, [SECOND], hparams)
    assert log.ids == [1, 2] and differing(before, after)


def test_weights_changed_from_outside_end_the_recording(tmp_path):
    model, tok = fresh("llama")
    hparams = settings("FiNE", tmp_path)
    refused = pytest.raises(StateError, match="not those of entry 1, nor of an earlier one")
    with refused, recording(model, tmp_path / "log") as log:
        *_, record = apply(model, tok, [FIRST], hparams)
        with torch.no_grad():
            model.get_parameter(next(iter(record.deltas)))[0, 0] += 1
    *_, third = apply(model, tok, [SECOND], hparams)
    assert log.ids == [1] and third is not record  # nobody listens any more
