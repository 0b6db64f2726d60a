"""Recording what the real EasyEdit's editor does with a method of ours."""

from easyedit_neuron.editlog import recording, replay
from helpers.contract import settings
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, weights_of


def edit(editor, **options):
    editor.edit(
        prompts=PROMPTS[:2],
        target_new=TARGETS[:2],
        ground_truth=EXTRAS["ground_truth"][:2],
        subject=EXTRAS["subject"][:2],
        verbose=False,
        **options,
    )


def test_recorded(easyeditor, llama_folder, tmp_path):
    hparams = settings("FiNE", tmp_path, model_name=str(llama_folder))
    single, sequential, base = (easyeditor.BaseEditor.from_hparams(hparams) for _ in range(3))
    with recording(single.model, tmp_path / "single") as log:
        edit(single, sequential_edit=False)
    assert [entry["type"] for entry in log.entries] == ["edit", "restore"] * 2 and log.ids == []
    with recording(sequential.model, tmp_path / "sequential") as log:
        edit(sequential, sequential_edit=True)
    assert log.ids == [1, 2] and replay(log, base.model).exact
    assert all(
        value.equal(weights_of(sequential.model)[name]) for name, value in weights_of(base.model).items()
    )
