"""JSON and YAML of others: what could not be gone through, compared or written later is refused when read."""

import json

import pytest

from easyedit_neuron.errors import LONGEST, NeuronEditError
from easyedit_neuron.utils.plain_trees import DEEPEST, check_tree, parse_json, parse_yaml
from easyedit_neuron.utils.schema import damage_is, mismatch
from easyedit_neuron.utils.shown import shown
from easyedit_neuron.utils.suggest import did_you_mean


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [DEEPEST + 2, 3000, 200_000])
@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_deep_nesting(parse, depth):
    if parse is parse_yaml and depth > 3000:
        pytest.skip("PyYAML's scanner takes long for it")
    with pytest.raises(ValueError, match=f"nested more than {DEEPEST} levels deep"):
        parse("[" * depth + "]" * depth)


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
@pytest.mark.parametrize(
    "text, reason",
    [
        ('{"a": ' + "9" * 5000 + "}", "integer of thousands of digits"),
        ('{"a": ["\\ud800"]}', r"half of a surrogate pair \(U\+D800\)"),
        ('{"\\udc00": 1}', r"half of a surrogate pair \(U\+DC00\)"),
    ],
)
def test_what_cannot_be_written_again(parse, text, reason):
    with pytest.raises(ValueError, match=reason):
        parse(text)


@pytest.mark.parametrize("text", ["NaN", "[1, Infinity]", '{"a": 1e999}'])
def test_numbers_that_are_not_finite(text):
    parse_json(text)
    with pytest.raises(ValueError, match="no finite number"):
        parse_json(text, finite=True)


def test_valid_trees_are_as_json_reads_them():
    text = '{"a": [1, 2.5, null, true, "Ø🙂"], "b": {"c": ""}}'
    assert parse_json(text) == parse_yaml(text) == json.loads(text)
    parse_json(json.dumps(nested(DEEPEST - 1)))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a: &a [*a]\n", "levels deep"),
        (
            "a: &a [x,x,x]\nb: &b [" + "*a," * 300 + "]\nc: [" + "*b," * 300 + "]\n",
            "more than 200,000 values",
        ),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("{}: 1\n", "unhashable key"),
        ("a: *nowhere\n", "undefined alias"),
    ],
)
def test_yaml_that_is_more_than_it_seems(text, reason):
    with pytest.raises(ValueError, match=reason) as problem:
        parse_yaml(text)
    assert "\n" not in str(problem.value) and len(str(problem.value)) < 600


def test_check_tree_takes_tuples_and_other_objects():
    check_tree({"a": (1, object()), 2: {3}})


def test_values_in_messages_are_short_and_never_fail():
    class Broken:
        def __repr__(self):
            raise RuntimeError("no")

    values = [nested(3000), 10**5000, "x" * 10_000, Broken(), {"a": nested(3000)}, "a\nb"]
    assert all(len(shown(value)) < 120 and "\n" not in shown(value) for value in values)
    assert did_you_mean(10**5000, ["a"]) == did_you_mean(nested(3000), ["a"]) == "Known: a."
    assert did_you_mean("NMKE", ["nmke"]).startswith("did you mean 'nmke'?")


def test_messages_of_errors_are_one_short_line():
    message = str(NeuronEditError("first\n  second\n\n" + "x" * 50_000 + " remedy"))
    assert message.startswith("first second x") and message.endswith(" remedy") and len(message) < LONGEST


FORM = {"a": int, "b?": [str], "c": (None, {str: float}), "d": {"e": bool}}
VALID = {"a": 1, "c": None, "d": {"e": True}, "more": 1}


@pytest.mark.parametrize(
    "change, problem",
    [
        ({}, None),
        ({"b": [], "c": {"x": 1, "y": 0.5}}, None),
        ({"a": True}, "'a' must be a whole number, not True"),
        ({"a": -1}, "'a' must be a whole number, not -1"),
        ({"a": 2**63}, f"'a' must be a whole number, not {2**63}"),
        ({"b": ["x", 3]}, "'b[1]' must be a text, not 3"),
        ({"c": {"x": float("nan")}}, "'c.x' must be a finite number, not nan"),
        ({"c": {"x": 10**400}}, None),
        ({"d": {}}, "'d.e' is missing"),
        ({"d": 3}, "'d' must be a mapping, not 3"),
    ],
)
def test_forms(change, problem):
    text = mismatch({**VALID, **change}, FORM)
    if change == {"c": {"x": 10**400}}:
        assert "'c.x' must be a finite number" in text
    else:
        assert text == problem


def test_form_of_the_whole():
    assert mismatch([], FORM) == "the content must be a mapping, not []"
    assert mismatch({}, FORM) == "'a' is missing"


def test_damage_becomes_an_error_of_ours_and_ours_pass():
    expected = r"^x: damaged \(KeyError: 'a'\)$"
    with pytest.raises(NeuronEditError, match=expected), damage_is(NeuronEditError, "x: damaged"):
        {}["a"]
    with pytest.raises(NeuronEditError, match="^says more$"), damage_is(NeuronEditError, "x: damaged"):
        raise NeuronEditError("says more")
    with pytest.raises(ZeroDivisionError), damage_is(NeuronEditError, "x: damaged"):
        1 / 0  # noqa: B018
