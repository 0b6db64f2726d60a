"""FiNE through EasyEdit's editor and the built-in one: the same weights and metrics, and weights that come back."""

from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, same, weights_of
from helpers.fine_edits import fine
from helpers.host_checks import batches_agree

ARGUMENTS = dict(prompts=PROMPTS, target_new=TARGETS, verbose=False, **EXTRAS)


def hosts(editors, llama_folder, **changes):
    return editors(fine(alg_name="FINE", model_name=str(llama_folder), epochs=5, **changes))


def test_single_and_sequential_edits(editors, llama_folder):
    pair = hosts(editors, llama_folder)
    before = weights_of(pair[1].model)
    single = [e.edit(**ARGUMENTS) for e in pair]
    assert single[0][0] == single[1][0] and all(same(weights_of(edited), before) for _, edited, _ in single)
    assert all(len(weights) and all((value == before[name]).all() for name, value in weights.items()) for _, _, weights in single)
    found = [e.edit(sequential_edit=True, **ARGUMENTS) for e in pair]
    weights = [weights_of(edited) for _, edited, _ in found]
    assert found[0][0] == found[1][0] and same(*weights) and not same(weights[0], before)


def test_batches(editors, llama_folder):
    batches_agree(hosts(editors, llama_folder, batch_size=2), ARGUMENTS)
