"""Roles, tasks, kinds, random counterparts: sets by hand."""

import json

import pytest
import torch

from easyedit_neuron.errors import DataError, NeuronEditError
from easyedit_neuron.masks.pnke import CausalScores
from easyedit_neuron.studies.ablation import kinds_of, summarised
from easyedit_neuron.studies.roles import in_scope, shares
from easyedit_neuron.studies.silence import counterparts
from easyedit_neuron.studies.tasks import domains_of, facts_by_task


def flags(text):
    return torch.tensor([sign == "1" for sign in text])


def test_shares_of_two_roles_add_up():
    found = shares(flags("1110000000"), flags("0111100000"))
    assert found == {"first": 0.1, "overlap": 0.2, "second": 0.2, "neither": 0.5} and sum(found.values()) == 1


def above_mean(scores):
    """A role with a threshold: scores above their mean."""
    return scores[0] > scores.mean(), scores[1] > scores.mean()


def test_thresholds_of_a_layer_and_of_the_whole_model():
    scores = {0: torch.tensor([[1.0, 3.0], [3.0, 1.0]]), 4: torch.tensor([[10.0, 30.0], [30.0, 30.0]])}
    each = in_scope("layer", scores, above_mean)
    assert each[0][0].tolist() == [False, True] and each[4][0].tolist() == [False, True]
    whole = in_scope("model", scores, above_mean)  # their mean is 13.5
    assert whole[0][0].tolist() == [False, False] and whole[4][0].tolist() == [False, True]
    assert whole[0][1].tolist() == [False, False] and whole[4][1].tolist() == [True, True]


def test_causal_scores_of_all_layers_are_put_next_to_each_other():
    one = CausalScores(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0]))
    seen = {}

    def roles(scores):
        seen["specific"], seen["semantic"], seen["attribution"] = scores.specific, scores.semantic, scores.attribution
        return scores.specific > 1, scores.attribution > 5

    found = in_scope("model", {0: one, 1: one}, roles)
    assert seen["specific"].tolist() == [1, 2, 1, 2] and seen["semantic"].tolist() == [[1, 2, 1, 2], [3, 4, 3, 4]]
    assert seen["attribution"].tolist() == [5, 6, 5, 6] and found[1][1].tolist() == [False, True]


# 2 layers of 4 neurons; the four best of eight are active: neurons 0-3 in a and b, 0, 1, 4, 5 in c, 0, 6, 7, 4 in d
SCORES = {"a": [[8.0, 7, 6, 5], [1, 1, 1, 1]], "b": [[8.0, 7, 5, 6], [1, 1, 1, 1]], "c": [[8.0, 7, 1, 1], [6, 9, 1, 1]],
          "d": [[8.0, 1, 1, 1], [5, 1, 7, 6]]}


def test_kinds_of_neurons_by_the_tasks_they_are_active_in():
    scores = {task: torch.tensor(values) for task, values in SCORES.items()}
    kinds = kinds_of(scores, [3, 5], {"X": ["a", "b"], "Y": ["c", "d"]}, 0.5)
    found = {(kind.kind, kind.name): kind.neurons.tolist() for kind in kinds}
    assert found[("general", "all")] == [[3, 0]]
    assert found[("domain", "X")] == [[3, 2], [3, 3]]  # active in a and b alone; means 5.5 each, the lower number first
    assert found[("domain", "Y")] == [[5, 0]]  # in c and d; neuron 1 of layer 3 is active in a, b, c: of no kind
    assert found[("task", "c")] == [[5, 1]] and found[("task", "d")] == [[5, 2], [5, 3]]
    assert found[("task", "a")] == found[("task", "b")] == []
    d = next(kind for kind in kinds if kind.name == "d")
    assert (d.own, d.near, d.far) == (["d"], ["c"], ["a", "b"])
    assert {layer: units.tolist() for layer, units in d.best(1).items()} == {5: [2]}


def test_neurons_that_lower_the_answer_are_never_active():
    scores = {task: torch.tensor([[-1.0, -2.0, 3.0, -4.0]]) for task in ("a", "b")}
    assert kinds_of(scores, [0], {"X": ["a", "b"]}, 0.9)[0].neurons.tolist() == [[0, 2]]


@pytest.mark.parametrize("scores, active, words", [({"a": torch.ones(1, 4)}, 0.5, "at least two tasks"),
                                                  ({"a": torch.ones(1, 4), "b": torch.ones(1, 4)}, 1.0, "between 0 and 1")])
def test_kinds_that_cannot_be(scores, active, words):
    with pytest.raises(NeuronEditError, match=words):
        kinds_of(scores, [0], {"X": list(scores)}, active)


def test_means_over_the_names_of_a_kind_leave_out_what_is_not_there():
    rows = [{"kind": "task", "name": name, "top": 10, "silenced": 10, "drop_own": drop, "drop_near": near, "layers": "0:10"}
            for name, drop, near in (("a", 0.5, None), ("b", 0.25, 0.125))]
    assert summarised(rows) == [{"kind": "task", "top": 10, "of": 2, "silenced": 10.0, "drop_own": 0.375, "drop_near": 0.125}]


def test_random_neurons_are_others_of_the_same_layers():
    neurons = {0: torch.tensor([1, 2]), 2: torch.tensor([0, 3, 5])}
    drawn = counterparts(neurons, 8, seed=1)
    assert {layer: len(units.unique()) for layer, units in drawn.items()} == {0: 2, 2: 3}
    assert not any(set(units.tolist()) & set(drawn[layer].tolist()) for layer, units in neurons.items())
    again, other = counterparts(neurons, 8, seed=1), [counterparts(neurons, 8, seed=seed) for seed in range(2, 8)]
    assert all(torch.equal(drawn[layer], again[layer]) for layer in drawn)
    assert any(not torch.equal(drawn[2], one[2]) for one in other)


def test_facts_by_task_and_tasks_by_domain(tmp_path):
    records = [{"prompt": "A is", "subject": "A", "ground_truth": [["x", "y"]], "relation": "r"},
               {"prompt": "A is indeed", "subject": "A", "ground_truth": "z", "relation": "r"},
               {"prompt": "B is", "subject": "B", "ground_truth": "z", "relation": "s"}]
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(records))
    found = facts_by_task(str(path))
    assert {task: [(fact.prompt, fact.answer) for fact in facts] for task, facts in found.items()} == {
        "r": [("A is", "x")], "s": [("B is", "z")]}  # a subject once per task
    assert list(facts_by_task(str(path), "kind")) == ["all"]
    assert domains_of(["r", "s"]) == {"other": ["r", "s"]} and domains_of(["r", "s"], ["X=s", "Y=r"]) == {"X": ["s"], "Y": ["r"]}
    shipped = facts_by_task("tiny-world")
    of_firms = {"based_in", "founded_by", "makes"}
    assert {name: set(tasks) for name, tasks in domains_of(list(shipped)).items()} == {
        "person": set(shipped) - of_firms, "organisation": of_firms}
    for given, words in ((["X"], "must read NAME=TASK"), (["X=r,t"], "names task 't'"), (["X=r"], "'s' is in 0"),
                         (["X=r,s", "Y=r"], "'r' is in 2")):
        with pytest.raises(DataError, match=words):
            domains_of(["r", "s"], given)
    del records[2]["relation"]
    path.write_text(json.dumps(records))
    with pytest.raises(DataError, match="record 2: field 'relation' is missing"):
        facts_by_task(str(path))
