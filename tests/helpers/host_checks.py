"""What every method owes under EasyEdit's editor and the built-in one; ``editors(hparams)`` gives the two."""

from helpers.edit_cases import same, weights_of, without_time


def undone_and_repeated(editors, hparams, arguments, times):
    """Edits that are not sequential leave the weights to the bit, and give the same metrics every time."""
    for e in editors(hparams):
        before, first = weights_of(e.model), None
        for _ in range(times):
            metrics, edited, _ = e.edit(**{**arguments, "verbose": False})
            assert same(weights_of(edited), before)
            assert first is None or metrics == first
            first = metrics


def batches_agree(pair, arguments):
    """Sequential batches end with the same weights and metrics under both; gives those weights."""
    found = [e.batch_edit(sequential_edit=True, **{**arguments, "verbose": False}) for e in pair]
    weights = [weights_of(edited) for _, edited, _ in found]
    assert same(*weights)
    assert without_time(found[0][0]) == without_time(found[1][0])
    return weights[0]
