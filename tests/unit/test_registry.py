import pytest

from easyedit_neuron import registry
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.registry import MethodSpec, get_method, methods, register_method


@pytest.fixture
def scratch(monkeypatch):
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


def spec(name="Mine", **options):
    return MethodSpec(name=name, apply="os.path:join", hparams="collections:OrderedDict", **options)


def test_builtin_methods():
    for_easyedit, baselines = ["NMKE", "PNKE", "FiNE", "KNE"], ["AlphaEdit", "MEMIT", "ROME", "FT"]
    in_order = [method.name for method in methods() if method.name in {*for_easyedit, *baselines}]
    assert in_order == [*for_easyedit, *baselines]
    assert set(for_easyedit) <= {method.name for method in methods(plugin=True)}
    assert set(baselines) <= {method.name for method in methods(plugin=False)}
    assert get_method("FINE") is get_method("FiNE")
    assert get_method("nmke") is get_method("NMKE")
    assert get_method("R-ROME") is get_method("ROME") and not get_method("ROME").batchable
    assert get_method("NMKE").plugin and get_method("NMKE").batchable


def test_near_name():
    with pytest.raises(NeuronEditError, match="did you mean 'AlphaEdit'"):
        get_method("alphaedt")
    with pytest.raises(NeuronEditError, match="NMKE"):
        get_method("")


def test_lazy_targets(scratch):
    import collections
    import os.path

    method = register_method(spec(aliases=("Own",)))
    assert get_method("OWN") is method
    assert method.load_apply() is os.path.join and method.load_hparams() is collections.OrderedDict


@pytest.mark.parametrize("other", [spec("NMKE"), spec("nmke"), spec("New", aliases=("Mine",)), spec("Own")])
def test_collisions(scratch, other):
    register_method(spec(aliases=("Own",)))
    with pytest.raises(NeuronEditError, match="already registered"):
        register_method(other)


def test_registering_the_same_twice_is_fine(scratch):
    register_method(spec())
    register_method(spec())
    assert [method.name for method in methods()].count("Mine") == 1


def test_malformed_target():
    with pytest.raises(NeuronEditError, match="package.module:attribute"):
        MethodSpec(name="Bad", apply="os.path.join", hparams="a:b")
