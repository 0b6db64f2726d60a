"""What undo does to the sequential state, what replay can leave out, and what is refused with nothing
changed."""

import pytest
import torch

from easyedit_neuron.editlog import EditLog, diff, redo, replay, squash, undo
from easyedit_neuron.edits.session import ModelSession, last_record
from easyedit_neuron.errors import StateError
from helpers.contract import apply, differing, fresh, parameters
from helpers.editing import REQUESTS, put_back
from helpers.editlogs import FIRST, SECOND, THIRD, edited, hparams_for

SEQUENTIAL = ["NMKE post", "NMKE solve", "MEMIT"]


def state_of(model):
    (state,) = ModelSession.of(model).sequential_states.values()
    return state


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def dense_solution(hparams, state, layer, keys, earlier, rows=None):
    """X of the problem in float64: (lambda C + M M^T + K K^T + L2 I)^-1 K, or with P on both sides in the
    null space."""
    keys, earlier = keys.double(), earlier.double()
    covariance = state.statistics.covariance(layer).double()
    gram = keys @ keys.T + earlier @ earlier.T
    identity = torch.eye(len(keys), dtype=torch.float64)
    if hparams.preserves == "covariance":
        return torch.linalg.solve(
            hparams.mom2_update_weight * covariance + gram + hparams.L2 * identity, keys
        )
    values, vectors = torch.linalg.eigh(covariance)
    null = vectors[:, values < hparams.nullspace_threshold]
    return null @ torch.linalg.solve(
        null.T @ gram @ null + hparams.L2 * identity[: null.shape[1], : null.shape[1]], null.T @ keys
    )


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("variant", SEQUENTIAL)
def test_the_next_edit_is_solved_as_if_it_had_never_been(variant, replayed, tmp_path):
    """Edits a, b, c; b undone: the buffer holds the keys of a and c, and the solver's answer is that of the
    dense problem with these. The same for a model that was made again from the log."""
    model, tok, hparams, log, records = edited("llama", variant, tmp_path)
    undo(model, log, 2)
    if replayed:
        model, tok = fresh("llama")
        assert replay(log, model, tok).state
    state = state_of(model)
    for layer in hparams.layers:
        expected = torch.cat([records[0].layers[layer].keys, records[2].layers[layer].keys], 1)
        assert torch.equal(state.buffer(layer).columns(), expected)
    if variant == "NMKE solve":
        return  # its rows are those of the next mask
    *_, record = apply(model, tok, [SECOND], hparams)
    assert record.fingerprint_before == state.steps[-2]
    for layer in hparams.layers:
        earlier = torch.cat([records[0].layers[layer].keys, records[2].layers[layer].keys], 1)
        delta = record.layers[layer]
        solved = delta.key_factor.double()
        right = dense_solution(hparams, state, layer, delta.keys, earlier)
        if delta.mask is not None:
            right = right * delta.mask[:, None]
        torch.testing.assert_close(solved, right, rtol=1e-4, atol=1e-5 * float(right.abs().max()))


def test_weights_put_back_after_an_undo(tmp_path):
    """A host may go back to before the undone edit, and to the weights of the undo; between them nothing is
    known any more."""
    model, tok, hparams, log, records = edited("llama", "NMKE post", tmp_path, requests=[FIRST])
    after_first = parameters(model)
    for request in (SECOND, THIRD):
        log.append(apply(model, tok, [request], hparams)[2])
    with_second = parameters(model)
    undo(model, log, 2)
    state, undone = state_of(model), parameters(model)
    _, weights, _ = apply(model, tok, [SECOND], hparams, return_orig_weights=True)
    assert len(state.buffer(1)) == 3
    put_back(model, weights)
    assert differing(parameters(model), undone) == []
    apply(model, tok, [SECOND], hparams)
    assert len(state.buffer(1)) == 3 and state_of(model) is state
    put_back(model, after_first)
    apply(model, tok, [SECOND], hparams)
    assert len(state.buffer(1)) == 2 and state_of(model) is state
    put_back(model, with_second)
    apply(model, tok, [SECOND], hparams)
    assert state_of(model) is not state


def test_undo_everything_and_redo(tmp_path):
    model, tok, hparams, log, records = edited("gpt2", "MEMIT", tmp_path)
    whole = parameters(model)
    for number in (2, 1, 3):
        undo(model, log, number)
    base, _ = fresh("gpt2")
    for name, value in parameters(model).items():
        torch.testing.assert_close(value, base.get_parameter(name), rtol=0, atol=1e-6)
    state = state_of(model)
    assert len(state.buffer(1)) == 0 and log.ids == []
    for number in (1, 2, 3):
        redo(model, log, number)
    assert log.ids == [1, 2, 3] and [len(state.buffer(layer)) for layer in hparams.layers] == [3, 3]
    for layer in hparams.layers:
        assert torch.equal(
            state.buffer(layer).columns(), torch.cat([record.layers[layer].keys for record in records], 1)
        )
    for name, value in parameters(model).items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-6)
    undo(model, log, 2)
    assert [len(state.buffer(layer)) for layer in hparams.layers] == [2, 2]


def test_an_edit_without_accumulated_keys_is_undone(tmp_path):
    model, tok, hparams, log, records = edited("llama", "NMKE post", tmp_path, accumulate_keys=False)
    assert records[0].layers[1].keys is None
    undo(model, log, 1)
    *_, record = apply(model, tok, [FIRST], hparams)
    assert log.append(record) == 5


def test_a_selection_is_replayed(tmp_path):
    model, tok, hparams, log, records = edited("llama", "FiNE", tmp_path)
    first, second, into = fresh("llama")[0], fresh("llama")[0], EditLog(tmp_path / "into")
    assert (
        replay(log, first, only=[3, 1], into=into).ids == [1, 3]
        and replay(log, second, without=[2]).exact is None
    )
    assert differing(parameters(first), parameters(second)) == []
    again, _ = fresh("llama")
    assert into.ids == [1, 2] and replay(EditLog(into.folder), again).exact
    assert differing(parameters(again), parameters(first)) == []
    undo(first, into, 1)
    early, _ = fresh("llama")
    assert replay(log, early, upto=1).ids == [1]
    early_log = log.copy(tmp_path / "early", upto=1)
    early_log.check_weights(early)


def test_the_difference_of_two_states(tmp_path):
    model, tok, hparams, log, records = edited("gpt2", "MEMIT", tmp_path)
    difference = diff(log, log, 1, 3)
    assert (difference.both, difference.only_a, difference.only_b, difference.same_base) == (
        [(1, 1)],
        [],
        [2, 3],
        True,
    )
    for name, parameter in difference.parameters.items():
        parts = [
            record.deltas[name].value_factor.double() @ record.deltas[name].key_factor.double().T
            for record in records
        ]
        a, b = parts[0], sum(parts)
        expected = {
            "norm_a": a.norm(),
            "norm_b": b.norm(),
            "norm": (a - b).norm(),
            "cosine": (a * b).sum() / a.norm() / b.norm(),
        }
        for key, value in expected.items():
            assert parameter[key] == pytest.approx(float(value), rel=1e-6), key
        assert parameter["neurons_a"] == parameter["neurons_both"] <= parameter["neurons_b"] == 48
    other = edited("gpt2", "MEMIT", tmp_path, requests=REQUESTS[:2], name="other")[3]
    assert diff(log, other).both == [(1, 1), (2, 2)] and diff(log, other).only_a == [3]
    foreign = edited("llama", "MEMIT", tmp_path, requests=REQUESTS[:1], name="foreign")[3]
    assert diff(log, foreign).both == []


@pytest.mark.parametrize(
    "variant, kind",
    [("NMKE post", "llama"), ("MEMIT", "gpt2"), ("FiNE", "gpt2"), ("KNE", "qwen2"), ("PNKE adam", "llama")],
)
def test_squashed(variant, kind, tmp_path):
    """One entry with the sum of all; the weights differ by rounding, the keys are all there, and edits can
    follow."""
    model, tok, hparams, log, records = edited(kind, variant, tmp_path)
    base, _ = fresh(kind)
    squashed = squash(log, tmp_path / "one", base)
    assert differing(parameters(base), parameters(fresh(kind)[0])) == []
    done = replay(squashed, base, tok)
    assert done.exact is True and done.ids == [1]
    for name, value in parameters(model).items():
        torch.testing.assert_close(
            base.get_parameter(name), value, rtol=0, atol=1e-6 * (1 + float(value.abs().max()))
        )
    record = squashed[1]
    assert [edit["requests"] for edit in record.info["squashed"]] == [r.requests for r in records] and len(
        record.requests
    ) == 3
    if done.state and variant != "PNKE adam":
        assert len(state_of(base).buffer(1)) == 3
    assert squashed.append(apply(base, tok, [SECOND], hparams)[2]) == 2
    undo(base, squashed, 1)
    without = squash(log, tmp_path / "without")
    assert replay(without, fresh(kind)[0]).exact is False
    with pytest.raises(StateError, match="squashed without the model"):
        undo(base, without, 1)


# -- refusals
# ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return edited("llama", "NMKE post", tmp_path_factory.mktemp("run"))


@pytest.fixture
def case(run, tmp_path):
    """(edited model, its log, a base model), all of them the test's own."""
    model, *_, log, _ = run
    twin, _ = fresh("llama")
    put_back(twin, parameters(model))
    return twin, log.copy(tmp_path / "copy"), fresh("llama")[0]


def refused(call, reason, log, *models):
    before, weights = files(log.folder), [parameters(model) for model in models]
    with pytest.raises(StateError, match=reason):
        call()
    assert files(log.folder) == before
    assert all(differing(parameters(model), value) == [] for model, value in zip(models, weights))


def test_a_wrong_base_is_refused(case):
    model, log, base = case
    refused(lambda: replay(log, model), "not the log's base .*has other values.*unedited", log, model)
    other, _ = fresh("gpt2")
    refused(lambda: replay(log, other), "has no parameter 'model.layers.1.mlp.down_proj.weight'", log, other)
    half, _ = fresh("llama", dtype=torch.bfloat16)
    refused(lambda: replay(log, half), "is bfloat16 .*not float32", log, half)
    refused(lambda: squash(log, log.folder.parent / "one", model), "not the log's base", log, model)
    assert not (log.folder.parent / "one").exists()


def test_a_base_that_differs_elsewhere_is_refused(tmp_path):
    from easyedit_neuron.utils.fingerprint import model_fingerprint

    model, tok = fresh("llama")
    log = EditLog(tmp_path / "log", fingerprint=model_fingerprint(model))
    log.append(apply(model, tok, [FIRST], hparams_for("FiNE", tmp_path))[2])
    other, _ = fresh("llama")
    with torch.no_grad():
        other.get_parameter("model.norm.weight")[0] += 1
    refused(lambda: replay(log, other), "weights that the log edits are the same, others differ", log, other)


def test_another_model_is_not_undone(case):
    model, log, base = case
    refused(lambda: undo(base, log, 1), "not the one that .* describes after its newest entry", log, base)


def test_unknown_ids_are_refused(case):
    model, log, base = case
    refused(lambda: undo(model, log, 7), "there is no edit 7; the edits are 1, 2, 3", log, model)
    refused(lambda: undo(model, log, 0), "there is no edit 0", log, model)
    refused(lambda: replay(log, base, only=[7]), "there is no edit 7", log, base)
    refused(lambda: replay(log, base, upto=7), "there is no entry 7; the log has entries 1 to 3", log, base)
    refused(lambda: redo(model, log, 2), "edit 2 is in the weights", log, model)
    undo(model, log, 2)
    refused(
        lambda: undo(model, log, 2), "edit 2 is not in the weights any more: entry 4 took it back", log, model
    )
    refused(lambda: undo(model, log, 4), "entry 4 is no edit but of type undo", log, model)
    refused(lambda: replay(log, base, without=[2]), "edit 2 is not in the weights there", log, base)


def test_a_tampered_file_is_refused(case):
    """In the middle of a replay: the edits before it are taken back."""
    model, log, base = case
    path = log.folder / "000002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    refused(lambda: undo(model, log, 2), "was changed after entry 2", log, model)
    refused(lambda: replay(log, base), "was changed after entry 2", log, base)
    path.unlink()
    refused(lambda: replay(log, base), "missing, and entry 2 needs it", log, base)


def test_a_full_disk_takes_the_undo_back(case, monkeypatch):
    model, log, _ = case

    def full(*args):
        raise StateError("cannot be written")

    monkeypatch.setattr("easyedit_neuron.editlog.log.append_text", full)
    refused(lambda: undo(model, log, 2), "cannot be written", log, model)
    assert log.ids == [1, 2, 3]


def test_a_single_record_knows_its_base(run, tmp_path):
    """base, before and after of every weight, also when an earlier edit was put back in between."""
    records = run[4]
    for name in records[0].weights:
        assert (
            records[0].weights[name]["base"]
            == records[0].weights[name]["before"]
            == records[2].weights[name]["base"]
        )
        assert [r.weights[name]["after"] for r in records[:2]] == [
            r.weights[name]["before"] for r in records[1:]
        ]
    model, tok = fresh("llama")
    hparams = hparams_for("FiNE", tmp_path)
    _, weights, first = apply(model, tok, [FIRST], hparams, return_orig_weights=True)
    put_back(model, weights)
    *_, second = apply(model, tok, [FIRST], hparams)
    assert second.weights == first.weights and last_record(model) is second
