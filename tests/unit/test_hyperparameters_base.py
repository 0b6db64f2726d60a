import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from easyedit_neuron import resources
from easyedit_neuron.errors import HparamsError, NeuronEditError
from easyedit_neuron.hyperparameters.base import HyperParams, distinguishing


@dataclass
class Sample(HyperParams):
    ALG_NAME: ClassVar[str] = "Sample"
    ALG_ALIASES: ClassVar[tuple] = ("SAMPLE",)

    alg_name: str
    layers: list[int]
    v_lr: float
    model_name: str = "somewhere"
    batch_size: int = 1
    flag: bool = False
    device: int | str = "cpu"
    threshold: float | None = None
    stage: Literal["post", "solve"] = "post"
    bounds: tuple[float, float] = (0.3, 0.4)
    norm: float | bool = False

    def validate(self):
        if self.batch_size < 1:
            raise HparamsError(f"field 'batch_size': must be at least 1, not {self.batch_size}")


GOOD = {"alg_name": "Sample", "layers": [1, 2], "v_lr": 0.5}


def write(tmp_path, text, name="own.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_yaml_scientific_string_becomes_float(tmp_path):
    # YAML 1.1 wants a dot before the exponent: 1e-1 is a string for it.
    path = write(tmp_path, "alg_name: Sample\nlayers: [1]\nv_lr: 1e-1\nthreshold: 2e-2\nbatch_size: 1e1\n")
    hparams = Sample.from_hparams(path)
    assert hparams.v_lr == 0.1 and type(hparams.v_lr) is float
    assert hparams.threshold == 0.02
    assert hparams.batch_size == 10 and type(hparams.batch_size) is int


def test_path_without_suffix_and_str_or_path(tmp_path):
    path = write(tmp_path, "alg_name: Sample\nlayers: [1]\nv_lr: 1\n")
    assert Sample.from_hparams(str(path)[:-5]) == Sample.from_hparams(path)
    assert Sample.from_hparams(path).v_lr == 1.0


def test_json_both_ways(tmp_path):
    path = write(tmp_path, json.dumps(GOOD), "own.json")
    assert Sample.from_json(path) == Sample.from_hparams(path) == Sample.from_dict(GOOD)


def test_unknown_field_names_field_file_and_nearest(tmp_path):
    path = write(tmp_path, "alg_name: Sample\nlayers: [1]\nv_lr: 1\nbatchsize: 3\n")
    with pytest.raises(HparamsError) as error:
        Sample.from_hparams(path)
    for part in ("'batchsize'", "'batch_size'", "own.yaml"):
        assert part in str(error.value)


def test_missing_fields_are_all_named():
    with pytest.raises(HparamsError, match="'layers', 'v_lr'"):
        Sample.from_dict({"alg_name": "Sample"})


@pytest.mark.parametrize(
    "field, value, part",
    [
        ("v_lr", "fast", "number"),
        ("v_lr", True, "number"),
        ("v_lr", None, "number"),
        ("v_lr", float("nan"), "number"),
        ("v_lr", "nan", "number"),
        ("batch_size", True, "integer"),
        ("batch_size", 1.5, "integer"),
        ("batch_size", "inf", "at most"),
        ("batch_size", 0, "at least 1"),
        ("flag", 1, "true or false"),
        ("flag", "yes", "true or false"),
        ("layers", 3, "a list"),
        ("layers", [1, "x"], "item 1"),
        ("layers", "12", "a list"),
        ("device", None, "string"),
        ("device", True, "integer"),
        ("threshold", "high", "or null"),
        ("stage", "sovle", "'solve'"),
        ("stage", None, "post, solve"),
        ("bounds", [0.1], "2 values"),
        ("bounds", [0.1, "b"], "item 1"),
        ("model_name", 7, "string"),
        ("alg_name", "NMKE", "'Sample'"),
        ("alg_name", 5, "string"),
    ],
)
def test_ill_typed(field, value, part):
    with pytest.raises(HparamsError) as error:
        Sample.from_dict({**GOOD, field: value}, source="file.yaml")
    assert f"'{field}'" in str(error.value) and part in str(error.value) and "file.yaml" in str(error.value)


@pytest.mark.parametrize(
    "field, value, expected",
    [
        ("device", 0, 0),
        ("device", "cuda:1", "cuda:1"),
        ("threshold", None, None),
        ("threshold", 3, 3.0),
        ("norm", False, False),
        ("norm", "5e-4", 5e-4),
        ("norm", 1, 1.0),
        ("bounds", [0, "1e0"], (0.0, 1.0)),
        ("layers", (1, 2), [1, 2]),
        ("layers", [], []),
        ("alg_name", "SAMPLE", "Sample"),
    ],
)
def test_accepted(field, value, expected):
    result = getattr(Sample.from_dict({**GOOD, field: value}), field)
    assert result == expected and type(result) is type(expected)


def test_constructor_and_replace_are_checked_too():
    with pytest.raises(HparamsError, match="batch_size"):
        Sample(**GOOD, batch_size=0)
    with pytest.raises(HparamsError, match="batch_size"):
        dataclasses.replace(Sample(**GOOD), batch_size=0)
    # One family, and a ValueError for callers who know nothing of it.
    assert issubclass(HparamsError, NeuronEditError) and issubclass(HparamsError, ValueError)


def test_override_leaves_the_original():
    base = Sample(**GOOD)
    changed = base.override({"v_lr": "2e-1"})
    assert (base.v_lr, changed.v_lr) == (0.5, 0.2)
    with pytest.raises(HparamsError, match="did you mean 'v_lr'"):
        base.override({"vlr": 1})


def test_to_dict_is_plain_and_deep():
    base = Sample(**GOOD)
    values = base.to_dict()
    values["layers"].append(9)
    assert base.layers == [1, 2] and json.loads(json.dumps(values))["v_lr"] == 0.5


def test_use_chat_template_distinguishes_only_where_it_is_on():
    """Keys of what was saved before there was the field are those of today without it."""
    assert distinguishing({"seed": 0, "use_chat_template": False}) == {"seed": 0}
    assert distinguishing({"use_chat_template": True}) == {"use_chat_template": True}


def test_easyedit_helper_works_on_a_mapping():
    config = {"a": "1e-1", "b": "text", "c": 3}
    assert HyperParams.construct_float_from_scientific_notation(config) is config
    assert config == {"a": 0.1, "b": "text", "c": 3}


@pytest.mark.parametrize(
    "text, part",
    [
        ("- 1\n- 2\n", "mapping"),
        ("", "mapping"),
        ("a: [1", "cannot be read"),
        ("v_lr: 1\nv_lr: 2\n", "twice"),
        ("1: 2\n", "must be strings"),
    ],
)
def test_bad_files(tmp_path, text, part):
    with pytest.raises(HparamsError, match=part) as error:
        Sample.from_hparams(write(tmp_path, text))
    assert "own.yaml" in str(error.value)


def test_missing_file_suggests_shipped_name(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "HPARAMS_DIR", tmp_path / "shipped")
    (tmp_path / "shipped/NMKE").mkdir(parents=True)
    (tmp_path / "shipped/NMKE/tiny-llama.yaml").write_text("alg_name: Sample\nlayers: [1]\nv_lr: 1\n")
    with pytest.raises(HparamsError, match="did you mean 'NMKE/tiny-llama'"):
        Sample.from_hparams("NMKE/tinyllama")


def test_shipped_name_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "HPARAMS_DIR", tmp_path / "shipped")
    (tmp_path / "shipped/NMKE").mkdir(parents=True)
    (tmp_path / "shipped/NMKE/tiny-llama.yaml").write_text("alg_name: Sample\nlayers: [1]\nv_lr: 1\n")
    monkeypatch.chdir(tmp_path)
    spellings = (
        "NMKE/tiny-llama",
        "NMKE/tiny-llama.yaml",
        "hparams/NMKE/tiny-llama",
        "hparams/NMKE/tiny-llama.yaml",
    )
    assert {Sample.from_hparams(name).v_lr for name in spellings} == {1.0}
    # A file of the user's own wins over the shipped one.
    (tmp_path / "NMKE").mkdir()
    (tmp_path / "NMKE/tiny-llama.yaml").write_text("alg_name: Sample\nlayers: [1]\nv_lr: 2\n")
    assert Sample.from_hparams("NMKE/tiny-llama").v_lr == 2.0


def test_shipped_model_name_becomes_its_folder():
    assert Sample(**GOOD, model_name="tiny-llama").model_name == str(resources.ASSETS_DIR / "tiny-llama")
    assert Sample(**GOOD, model_name="./tiny-llama").model_name == "./tiny-llama"


def test_a_model_in_memory_is_not_copied_into_a_dictionary():
    """EasyEdit takes a pair (model, tokenizer) for model_name, and every edit's record holds the
    hyperparameters."""

    class Model:
        config = type("Config", (), {"_name_or_path": "models/own"})

        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    hparams = Sample.from_dict(GOOD)
    hparams.model_name = Model(), object()
    assert hparams.to_dict() == {**Sample.from_dict(GOOD).to_dict(), "model_name": "models/own"}
    assert isinstance(hparams.model_name, tuple)
    assert hparams.override({"v_lr": 1}).model_name == "models/own"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e300, "inf", ".inf", 10**400, "1" * 5000])
@pytest.mark.parametrize("field", ["kl_factor", "v_lr", "seed"])
def test_numbers_beyond_all_bounds(field, value):
    """Infinite, or float32 or 64 bits do not hold them: one short error with the field's name."""
    from easyedit_neuron import MEMITHyperParams

    values = MEMITHyperParams.from_hparams("MEMIT/tiny-llama").to_dict() | {field: value}
    with pytest.raises(HparamsError, match=f"field '{field}'") as problem:
        MEMITHyperParams.from_dict(values)
    assert len(str(problem.value)) < 200


def test_a_file_of_nested_anchors_gives_a_short_error(tmp_path):
    """Six lines of YAML that stand for half a million values."""
    from easyedit_neuron import FiNEHyperParams

    anchors = ["&a0 [x,x,x,x,x,x,x,x,x]"]
    anchors += [f"&a{n + 1} [{','.join([f'*a{n}'] * 9)}]" for n in range(5)]
    (tmp_path / "bomb.yaml").write_text(f"alg_name: FiNE\nmodel_name: x\nlr: [{', '.join(anchors)}]\n")
    with pytest.raises(HparamsError, match="cannot be read: holds more than 200,000 values") as problem:
        FiNEHyperParams.from_hparams(tmp_path / "bomb.yaml")
    assert len(str(problem.value)) < 500
