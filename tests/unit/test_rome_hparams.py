"""Hyperparameters of ROME and R-ROME."""

import pytest

from easyedit_neuron import AlphaEditHyperParams, NMKEHyperParams, ROMEHyperParams
from easyedit_neuron.errors import HparamsError


def rome(**changes):
    return ROMEHyperParams(**{"alg_name": "ROME", "model_name": "m", "layers": [1], **changes})


def test_r_rome_is_rome_with_averaged_keys():
    assert not rome().averaged_keys and rome(averaged_keys=True).alg_name == "ROME"
    hparams = rome(alg_name="R-ROME")
    assert (
        hparams.averaged_keys and hparams.alg_name == "ROME" and hparams.path == "rome" and hparams.L2 == 0.0
    )
    assert ROMEHyperParams.from_dict(hparams.to_dict()) == hparams


def test_context_lengths():
    assert rome(context_template_length_params=[[5, 10], [10, 10]]).context_template_length_params == [
        [5, 10],
        [10, 10],
    ]
    assert (
        rome(enable_random_prefix_keys=True, enable_prompt_keys=False, original_implementation=False).path
        == "rome"
    )


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"accumulate_keys": True}, "'accumulate_keys'.*False"),
        ({"path": "memit"}, "'path'.*Known: rome"),
        ({"original_implementation": True}, "'original_implementation'.*False"),
        (
            {"context_template_length_params": [[5, 0]]},
            "'context_template_length_params': item 0 item 1 must be at least 1",
        ),
        ({"context_template_length_params": [[5]]}, "'context_template_length_params'.*\\[5\\]"),
        (
            {"context_template_length_params": [[5, 5]], "easyedit_quirks": ["generated_contexts"]},
            "'easyedit_quirks'.*context_length",
        ),
        ({"alg_name": "rome"}, "'alg_name'"),
    ],
)
def test_mistakes(changes, words):
    with pytest.raises(HparamsError, match=words):
        rome(**changes)


def test_averaged_keys_belong_to_the_rome_path():
    shared = {"model_name": "m", "layers": [1], "averaged_keys": True}
    with pytest.raises(HparamsError, match="'averaged_keys'.*R-ROME"):
        AlphaEditHyperParams(alg_name="AlphaEdit", **shared)
    assert NMKEHyperParams(alg_name="NMKE", path="rome", **shared).averaged_keys
