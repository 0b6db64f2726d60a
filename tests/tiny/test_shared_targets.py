"""z* that is searched for once for several settings of the solver."""

import torch

from easyedit_neuron.edits.session import forget
from easyedit_neuron.edits.write import restore
from easyedit_neuron.locate_then_edit import edit as edit_module
from easyedit_neuron.locate_then_edit.shared_targets import shared_targets
from easyedit_neuron.registry import get_method
from helpers.editing import make_hparams
from helpers.tiny_models import tiny_model

REQUEST = {"prompt": "Anna Berg lives in", "subject": "Anna Berg", "target_new": "Oslo"}


def test_one_search_serves_several_ridges_and_the_result_is_that_of_a_search_each(tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    apply = get_method("MEMIT").load_apply()
    searches = []
    search = edit_module.compute_z
    monkeypatch.setattr(edit_module, "compute_z", lambda *a, **k: searches.append(1) or search(*a, **k))

    def weights(**settings):
        hparams = make_hparams("MEMIT", tmp_path, layers=[1, 2], **settings)
        _, originals = apply(model, tok, [REQUEST], hparams, return_orig_weights=True)
        edited = {name: model.get_parameter(name).clone() for name in originals}
        restore(model, originals)
        forget(model)
        return edited

    plain = [weights(mom2_update_weight=ridge) for ridge in (1.0, 10.0)]
    assert len(searches) == 2
    with shared_targets(model):
        shared = [weights(mom2_update_weight=ridge) for ridge in (1.0, 10.0)]
        assert len(searches) == 3
        weights(v_lr=0.11)
        assert len(searches) == 4, "another step size is another search"
    for one_search, each in zip(shared, plain):
        assert all(torch.equal(value, one_search[name]) for name, value in each.items())
    weights()
    assert len(searches) == 5, "outside of the block nothing is shared"
