"""Every number among the hyperparameters, the options of masks and the settings states its range."""

import dataclasses
import typing

import pytest

import easyedit_neuron.cli.settings as settings
from easyedit_neuron.errors import HparamsError
from easyedit_neuron.hyperparameters.options import Options, doc
from easyedit_neuron.hyperparameters.typecheck import Range
from easyedit_neuron.masks.generic import FixedOptions, RandomOptions, TopOptions
from easyedit_neuron.registry import get_method, methods


def classes_of_the_package(parent=Options):
    for spec in methods():
        spec.load_hparams()
    for cls in parent.__subclasses__():
        if cls.__module__.startswith("easyedit_neuron."):
            yield cls
        yield from classes_of_the_package(cls)


def holds_numbers(annotation) -> bool:
    return annotation in (int, float) or any(map(holds_numbers, typing.get_args(annotation)))


def test_every_number_states_a_range_and_its_default_is_within():
    classes = set(classes_of_the_package())
    assert {settings.Settings, settings.RunnerSettings, TopOptions} <= classes and len(classes) > 25
    numbers, without = 0, []
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if not holds_numbers(hints[field.name]):
                continue
            numbers += 1
            limits = field.metadata.get("range")
            if not limits:
                without.append(f"{cls.__name__}.{field.name}")
            elif isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
                assert field.default in limits, f"{cls.__name__}.{field.name}"
    assert numbers > 200 and not without


@dataclasses.dataclass(kw_only=True)
class Sample(Options):
    share: float | None = doc("", None, above=0, most=1)
    layers: list[int] = doc("", factory=list, least=0)
    pairs: list[list[int]] | None = doc("", None, least=1)
    by_layer: dict[int, list[float]] = doc("", factory=dict, least=0, below=2)
    every: int | typing.Literal["auto"] = doc("", "auto", least=1)
    limit: bool | float = doc("", False, above=0)
    flag: bool = doc("", True, above=5)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("share", 0, "must be in (0, 1], not 0.0 (or null)"),
        ("share", "1.5", "must be in (0, 1], not 1.5 (or null)"),
        ("layers", [2, -1], "item 1 must be at least 0, not -1"),
        ("pairs", [[1, 1], [1, 0]], "item 1 item 1 must be at least 1, not 0 (or null)"),
        ("by_layer", {-1: []}, "entry -1 must be in [0, 2), not -1"),
        ("by_layer", {1: [2]}, "entry 1 item 0 must be in [0, 2), not 2.0"),
        ("limit", -0.5, "must be true or false, not -0.5 (float) / must be greater than 0, not -0.5"),
    ],
)
def test_numbers_out_of_range_are_one_line(field, value, message):
    with pytest.raises(HparamsError) as error:
        Sample(**{field: value})
    assert str(error.value) == f"field '{field}': {message}"


@pytest.mark.parametrize(
    "field, value",
    [
        ("share", None),
        ("share", 1),
        ("layers", [0]),
        ("pairs", [[1, 1]]),
        ("by_layer", {1: [0, 1.99]}),
        ("every", "auto"),
        ("every", 1),
        ("limit", False),
        ("flag", False),
    ],
)
def test_numbers_in_range(field, value):
    assert getattr(Sample(**{field: value}), field) == value


def test_a_bound_of_an_unknown_name_is_a_mistake():
    with pytest.raises(TypeError, match="atleast"):
        doc("", 1, atleast=0)


def test_ranges_in_words():
    assert str(Range(least=1)) == "at least 1" and str(Range(above=0)) == "greater than 0"
    assert str(Range(least=0, below=1)) == "in [0, 1)" and str(Range(above=-1, most=1)) == "in (-1, 1]"
    assert str(Range(most=3)) == "in (-inf, 3]" and not Range()


FILE = {"alg_name": "X", "model_name": "nowhere", "layers": [0]}


@pytest.mark.parametrize(
    "method, field, inside, outside",
    [
        ("MEMIT", "seed", 4294967295, 4294967296),
        ("MEMIT", "mom2_name_share", 0, 1),
        ("MEMIT", "v_loss_layer", 0, -1),
        ("FT", "kl_factor", 0, -1),
        ("Lasting", "capacity", 100_000, 100_001),
        ("Lasting", "threshold", -0.99, -1),
        ("PNKE", "ig_steps", 1000, 1001),
        ("KNE", "attribution_steps", 1000, 1001),
    ],
)
def test_bounds_of_quantities(method, field, inside, outside):
    hparams_class = get_method(method).load_hparams()
    needed = {"num_steps": 1, "lr": 0.1} if method == "FT" else {}
    values = FILE | needed | {"alg_name": method}
    assert getattr(hparams_class.from_dict(values | {field: inside}), field) == inside
    with pytest.raises(HparamsError, match=f"'{field}': must be .*, not {outside}"):
        hparams_class.from_dict(values | {field: outside})


def test_the_largest_seed_draws_a_random_mask():
    import torch

    from easyedit_neuron.masks.generic import random_mask

    mask = random_mask(torch.zeros(1, 8), RandomOptions(seed=2**32 - 1, density=0.25), layer=10_000)
    assert len(mask.indices) == 2
    with pytest.raises(HparamsError, match="item 0 must be at least 0, not -1"):
        FixedOptions(indices=[-1])


@pytest.mark.parametrize(
    "section, field, outside",
    [
        (settings.RunnerSettings, "guard_retained", 1.5),
        (settings.RunnerSettings, "guard_perplexity", 0),
        (settings.RunnerSettings, "guard_every", 0),
        (settings.RunnerSettings, "save_every_minutes", 0),
        (settings.RunnerSettings, "checkpoints", [3, 0]),
        (settings.EvaluationSettings, "fluency_tokens", 0),
        (settings.EvaluationSettings, "retained", -1),
    ],
)
def test_settings_out_of_range(section, field, outside):
    with pytest.raises(HparamsError, match=f"'{field}': .*must be (at least|greater than|in) "):
        section.from_dict({field: outside})
