"""Roles, tasks, kinds, random counterparts: sets by hand."""

import json

import pytest
import torch

from easyedit_neuron.errors import DataError, NeuronEditError
from easyedit_neuron.models.pnke.pnke_mask import CausalScores
from easyedit_neuron.studies.ablation import LOST, compared
from easyedit_neuron.studies.averages import average_rows, deviation
from easyedit_neuron.studies.kinds import kinds_of
from easyedit_neuron.studies.roles import average_shares, in_scope, shares
from easyedit_neuron.studies.silence import counterparts
from easyedit_neuron.studies.tasks import Fact, domains_of, facts_by_task, sampled


def flags(text):
    return torch.tensor([sign == "1" for sign in text])


def test_shares_of_two_roles_add_up():
    measured = shares(flags("1110000000"), flags("0111100000"))
    parts = {name: measured[name] for name in ("first_only", "overlap", "second_only", "neither")}
    assert parts == {"first_only": 0.1, "overlap": 0.2, "second_only": 0.2, "neither": 0.5}
    assert sum(parts.values()) == 1 and measured["first"] == pytest.approx(0.3)
    assert measured["chance"] == pytest.approx(0.12) and measured["ratio"] == pytest.approx(0.2 / 0.12)


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
    layer_scores = CausalScores(
        torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0])
    )
    seen = {}

    def roles(scores):
        seen["specific"], seen["semantic"], seen["attribution"] = (
            scores.specific,
            scores.semantic,
            scores.attribution,
        )
        return scores.specific > 1, scores.attribution > 5

    masks = in_scope("model", {0: layer_scores, 1: layer_scores}, roles)
    assert seen["specific"].tolist() == [1, 2, 1, 2] and seen["semantic"].tolist() == [
        [1, 2, 1, 2],
        [3, 4, 3, 4],
    ]
    assert seen["attribution"].tolist() == [5, 6, 5, 6] and masks[1][1].tolist() == [False, True]


# 2 layers of 4 neurons; the four best of eight are active: neurons 0-3 in a and b, 0, 1, 4, 5 in c, 0, 6, 7,
# 4 in d
SCORES = {
    "a": [[8.0, 7, 6, 5], [1, 1, 1, 1]],
    "b": [[8.0, 7, 5, 6], [1, 1, 1, 1]],
    "c": [[8.0, 7, 1, 1], [6, 9, 1, 1]],
    "d": [[8.0, 1, 1, 1], [5, 1, 7, 6]],
}


def test_kinds_of_neurons_by_the_tasks_they_are_active_in():
    scores = {task: torch.tensor(values) for task, values in SCORES.items()}
    kinds = kinds_of(scores, [3, 5], {"X": ["a", "b"], "Y": ["c", "d"]}, 0.5)
    neurons = {(kind.kind, kind.name): kind.neurons.tolist() for kind in kinds}
    assert neurons[("general", "all")] == [[3, 0]]
    assert neurons[("domain", "X")] == [
        [3, 2],
        [3, 3],
    ]  # active in a and b alone; means 5.5 each, the lower number first
    assert neurons[("domain", "Y")] == [
        [5, 0]
    ]  # in c and d; neuron 1 of layer 3 is active in a, b, c: of no kind
    assert neurons[("task", "c")] == [[5, 1]] and neurons[("task", "d")] == [[5, 2], [5, 3]]
    assert neurons[("task", "a")] == neurons[("task", "b")] == []
    d = next(kind for kind in kinds if kind.name == "d")
    assert (d.own, d.near, d.far) == (["d"], ["c"], ["a", "b"])
    assert {layer: units.tolist() for layer, units in d.best(1).items()} == {5: [2]}


def test_neurons_that_lower_the_answer_are_never_active():
    scores = {task: torch.tensor([[-1.0, -2.0, 3.0, -4.0]]) for task in ("a", "b")}
    assert kinds_of(scores, [0], {"X": ["a", "b"]}, 0.9)[0].neurons.tolist() == [[0, 2]]


@pytest.mark.parametrize(
    "scores, active, words",
    [
        ({"a": torch.ones(1, 4)}, 0.5, "at least two tasks"),
        ({"a": torch.ones(1, 4), "b": torch.ones(1, 4)}, 1.0, "between 0 and 1"),
    ],
)
def test_kinds_that_cannot_be(scores, active, words):
    with pytest.raises(NeuronEditError, match=words):
        kinds_of(scores, [0], {"X": list(scores)}, active)


def test_the_spread_over_requests():
    row = {"definition": "NMKE", "scope": "layer", "layer": 3, "roles": "general, specific"}
    # Roles of 0.5 and 0.4 of the neurons, then of 0.5 and 0.8.
    several = [
        shares(flags("1111100000"), flags("0001111000")),
        shares(flags("1111100000"), flags("0111111110")),
    ]
    (average,) = average_shares([row | measured for measured in several])
    names = ("first", "first_std", "second", "second_std", "overlap", "overlap_std")
    assert [average[name] for name in names] == pytest.approx([0.5, 0, 0.6, 0.4 / 2**0.5, 0.3, 0.2 / 2**0.5])
    assert average["lift"] == pytest.approx(0.3 / 0.3)
    assert average["lift_std"] == pytest.approx(0)  # 0.2 / 0.2 and 0.4 / 0.4
    assert list(average)[-2:] == ["lift", "lift_std"] and not {"chance", "ratio", "ratio_std"} & set(average)
    (nothing,) = average_shares([row | shares(flags("1110000000"), flags("0000000000"))])
    assert (nothing["lift"], nothing["lift_std"], nothing["first_std"]) == (None, None, None)


def test_rows_that_agree_become_one():
    rows = [
        {"layer": 0, "name": "a", "x": 1.0, "y": 2.0},
        {"layer": 1, "name": "a", "x": 5.0, "y": None},
        {"layer": 0, "name": "a", "x": 4.0, "y": 4.0},
    ]
    assert average_rows(
        rows, ("name", "layer"), ("x",)
    ) == [  # 1 and 4: 1.5 to both sides, squares 4.5 / (2 - 1)
        {"name": "a", "layer": 0, "x": 2.5, "x_std": 4.5**0.5, "y": 3.0},
        {"name": "a", "layer": 1, "x": 5.0, "x_std": None, "y": None},
    ]
    assert deviation([2.0, None, 4.0, 6.0]) == 2 and deviation([3.0, None]) is None


def trial(sample, name, draw, lost):
    return {
        "sample": sample,
        "kind": "task",
        "name": name,
        "top": 10,
        "silenced": 10,
        "accuracy_before": 1.0,
        "draw": draw,
        **dict.fromkeys(LOST),
        "drop_own": lost,
    }


def test_a_kind_against_random_neurons():
    lost = {(0, "a"): (0.5, 0.125, 0.375), (0, "b"): (0.25, 0.125, 0.125), (1, "a"): (0.125, 0.25, 0.0)}
    trials = [
        trial(*place, draw, value)
        for place, values in lost.items()
        for draw, value in zip((None, 0, 1), values)
    ]
    (row,) = compared(trials, ("kind", "top"))
    # samples: the mean of a and b, 0.375; a alone, 0.125. Draws: 0.125 and 0.25; 0.25 and 0
    assert (row["kind"], row["top"], row["of"], row["silenced"]) == ("task", 10, 2, 10)
    assert row["drop_own"] == 0.25 and row["drop_own_std"] == pytest.approx(0.25 / 2**0.5)
    assert row["random_drop_own"] == 0.15625
    assert row["random_drop_own_std"] == pytest.approx(
        ((0.03125**2 + 2 * 0.09375**2 + 0.15625**2) / 3) ** 0.5
    )
    assert row["drop_near"] is row["random_drop_near_std"] is None
    named = {row["name"]: row for row in compared(trials, ("kind", "name", "top"))}
    assert (
        named["a"]["drop_own"] == 0.3125
        and named["b"]["drop_own_std"] is None
        and named["b"]["random_drop_own"] == 0.125
    )


def test_samples_are_the_same_facts_in_other_orders():
    facts = {
        task: [Fact(f"{task}{number} is", "x", f"{task}{number}", task) for number in range(12)]
        for task in "ab"
    }
    assert sampled(facts, 0) == facts
    first, again, other = (sampled(facts, sample) for sample in (1, 1, 2))
    assert first == again and len({str(order["a"]) for order in (facts, first, other)}) == 3
    assert all(set(first[task]) == set(facts[task]) for task in facts)


def test_random_neurons_are_others_of_the_same_layers():
    neurons = {0: torch.tensor([1, 2]), 2: torch.tensor([0, 3, 5])}
    drawn = counterparts(neurons, 8, seed=1)
    assert {layer: len(units.unique()) for layer, units in drawn.items()} == {0: 2, 2: 3}
    assert not any(set(units.tolist()) & set(drawn[layer].tolist()) for layer, units in neurons.items())
    again, other = (
        counterparts(neurons, 8, seed=1),
        [counterparts(neurons, 8, seed=seed) for seed in range(2, 8)],
    )
    assert all(torch.equal(drawn[layer], again[layer]) for layer in drawn)
    assert any(not torch.equal(drawn[2], redrawn[2]) for redrawn in other)


def test_subjects_of_mmlu_are_tasks(tmp_path):
    for subject, text in (
        ("anatomy", '"Where, here?",w,x,y,z,2\n Why? ,a,b,c,d,A\n'),
        ("virology", "Q,1,2,3,4,3\n"),
    ):
        file = tmp_path / "mmlu" / "test" / f"{subject}_test.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    facts = facts_by_task(str(tmp_path))
    assert {subject: len(questions) for subject, questions in facts.items()} == {"anatomy": 2, "virology": 1}
    second = facts["anatomy"][1]
    assert (second.prompt, second.answer) == ("Why?\nA. a\nB. b\nC. c\nD. d\nAnswer:", "A")
    assert facts["virology"][0].answer == "D" and second.task == "anatomy"
    for folder in (tmp_path / "mmlu", tmp_path / "mmlu" / "test"):
        assert facts_by_task(str(folder)) == facts
    assert list(facts_by_task(str(tmp_path), only=["virology"])) == ["virology"]
    with pytest.raises(DataError, match="no file of 'virolgy'.*'virology'"):
        facts_by_task(str(tmp_path), only=["virolgy"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no SUBJECT_test.csv"):
        facts_by_task(str(tmp_path / "empty"))


def test_facts_by_task_and_tasks_by_domain(tmp_path):
    records = [
        {"prompt": "A is", "subject": "A", "ground_truth": [["x", "y"]], "relation": "r"},
        {"prompt": "A is indeed", "subject": "A", "ground_truth": "z", "relation": "r"},
        {"prompt": "B is", "subject": "B", "ground_truth": "z", "relation": "s"},
    ]
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(records))
    by_task = facts_by_task(str(path))
    assert {task: [(fact.prompt, fact.answer) for fact in facts] for task, facts in by_task.items()} == {
        "r": [("A is", "x")],
        "s": [("B is", "z")],
    }  # a subject once per task
    assert list(facts_by_task(str(path), "kind")) == ["all"]
    assert domains_of(["r", "s"]) == {"other": ["r", "s"]} and domains_of(["r", "s"], ["X=s", "Y=r"]) == {
        "X": ["s"],
        "Y": ["r"],
    }
    shipped = facts_by_task("tiny-world")
    of_firms = {"based_in", "founded_by", "makes"}
    assert {name: set(tasks) for name, tasks in domains_of(list(shipped)).items()} == {
        "person": set(shipped) - of_firms,
        "organisation": of_firms,
    }
    for content, words in (
        (["X"], "must read NAME=TASK"),
        (["X=r,t"], "names task 't'"),
        (["X=r"], "'s' is in 0"),
        (["X=r,s", "Y=r"], "'r' is in 2"),
    ):
        with pytest.raises(DataError, match=words):
            domains_of(["r", "s"], content)
    del records[2]["relation"]
    path.write_text(json.dumps(records))
    with pytest.raises(DataError, match="record 2: field 'relation' is missing"):
        facts_by_task(str(path))
