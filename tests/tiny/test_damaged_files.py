"""Kinds of damage that the fuzz test has brought up, a case of each; most with digests that fit again."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from easyedit_neuron.arch.load_model import load_model
from easyedit_neuron.cli import main
from easyedit_neuron.editlog import EditLog, replay, undo
from easyedit_neuron.editlog.files import ENTRIES_FILE, file_digest
from easyedit_neuron.editlog.summary import summarize_delta
from easyedit_neuron.edits.record import EditRecord
from easyedit_neuron.errors import HostError, StateError, StatisticsError
from easyedit_neuron.export import export_peft, export_sparse
from easyedit_neuron.export.checkpoint import import_edits
from easyedit_neuron.export.side_file import NAME as SIDE_FILE
from easyedit_neuron.export.sparse import apply_sparse
from easyedit_neuron.utils.fingerprint import tensors_fingerprint
from easyedit_neuron.utils.random_state import random_states, set_random_states
from helpers.contract import apply as apply_method
from helpers.contract import differing, fresh, parameters, settings
from helpers.editing import REQUESTS, apply, make_hparams
from helpers.editlogs import edited
from helpers.fuzz_folders import States
from helpers.fuzzing import files_below
from helpers.lifelong_runs import start


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_tensors(path, change):
    with safe_open(path, "pt") as handle:
        metadata = handle.metadata()
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    change(tensors, metadata)
    path.unlink()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)


# -- logs of edits ---------------------------------------------------------------------------------------


@pytest.fixture
def logged(tmp_path):
    """(base, edited model, log) of three edits."""
    model, _, _, log, _ = edited("llama", "MEMIT", tmp_path)
    return fresh("llama")[0], model, log


def with_entries(log, change):
    path = log.folder / ENTRIES_FILE
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    change(entries)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


EVENT = {"id": 4, "weights": {}}


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda e: e[1].update(type="edits"), "its type 'edits' is none of"),
        (lambda e: e[1].update(weights=[]), "'weights' must be a mapping"),
        (
            lambda e: e[1]["weights"].popitem()[1] and e[1]["weights"].update(w={}),
            "'weights.w.dtype' is missing",
        ),
        (lambda e: e[1].update(requests=[]), "it has no requests"),
        (
            lambda e: next(iter(e[1]["weights"].values())).update(dtype="23taolf"),
            "dtype' is '23taolf', which torch does not have",
        ),
        (lambda e: e[1]["requests"][0].update(prompt=7), r"'requests\[0\].prompt' must be a text"),
        (lambda e: e[1]["changes"].update(w={"neurons": 1}), "'changes.w.norm' is missing"),
        (lambda e: e.append({**EVENT, "type": "restore", "to": 9}), "'to' is 9, which is no entry before it"),
        (lambda e: e.append({**EVENT, "type": "undo", "of": 4}), "'of' is 4, which is no edit before it"),
        (lambda e: e.append({**EVENT, "type": "undo"}), "'of' is missing"),
    ],
)
def test_entries_of_another_form(logged, change, problem):
    with_entries(logged[2], change)
    with pytest.raises(StateError, match=f"entries.jsonl: line . is no entry of a log: .*{problem}"):
        EditLog(logged[2].folder)


def test_the_norm_of_huge_numbers(logged, tmp_path):
    """float32 holds them, but not their squares: sqrt(2 * 1e40) of a row of two numbers 1e20."""
    record = logged[2][1]
    for delta in record.layers.values():
        for factor in (delta.value_factor, delta.key_factor):
            factor.zero_()
        delta.value_factor[0, 0], delta.key_factor[:2, 0] = 1e20, 1.0
        assert summarize_delta(delta) == {
            "rank": delta.value_factor.shape[1],
            "neurons": 2,
            "norm": pytest.approx(2**0.5 * 1e20),
        }
        delta.value_factor[0, 0] = float("inf")
    with pytest.raises(StateError, match="is not finite; nothing was written"):
        EditLog(tmp_path / "other").append(record)
    assert not (tmp_path / "other").exists()


def test_the_table_of_a_log_with_huge_numbers(logged, capsys):
    with_entries(logged[2], lambda e: next(iter(e[1]["changes"].values())).update(norm=1e200))
    assert main(["log", str(logged[2].folder)]) == 0
    assert "1e+200" in capsys.readouterr().out


def test_a_long_argument_is_a_short_message(capsys):
    assert main(["undo", "run", "9" * 5000]) == 2
    error = capsys.readouterr().err
    assert "invalid int value" in error and len(error) < 2500


def test_an_edit_that_is_taken_out_twice(logged):
    events = [{**EVENT, "type": "undo", "of": 1}, {**EVENT, "id": 5, "type": "undo", "of": 1}]
    with_entries(logged[2], lambda entries: entries.extend(events))
    with pytest.raises(StateError, match="takes edit 1 out, which is not in the weights there"):
        EditLog(logged[2].folder).ids  # noqa: B018


def test_a_head_of_another_form(logged):
    change_json(logged[2].folder / "log.json", lambda head: head.update(model=3))
    with pytest.raises(StateError, match="'model' must be a text, not 3"):
        EditLog(logged[2].folder)


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda t, _: t.pop("1.left"), "KeyError: '1.left'"),
        (lambda t, _: t.update({"1.left": t["1.left"][:, :0]}), "have no product"),
        (lambda t, _: t["1.left"].fill_(float("nan")), "1.left has numbers that are not finite"),
        (lambda t, _: t.update({"1.left": t["1.left"].long()}), "1.left is torch.int64"),
        (lambda t, _: t.update({"1.left": t["1.left"].double()}), "torch.float64 .* have no product"),
        (lambda _, m: m.update(record="[]"), "another format"),
        (lambda _, m: m.update(record=m["record"].replace('"names"', '"nomes"')), "'names' is missing"),
        (lambda _, m: m.update(record="[" * 3000 + "]" * 3000), "levels deep"),
    ],
)
def test_records_of_another_form(logged, change, problem):
    path = logged[2].folder / "000002.safetensors"
    change_tensors(path, change)
    with pytest.raises(StateError, match=f"000002.safetensors: .*{problem}"):
        EditRecord.load(path)


@pytest.mark.parametrize(
    "use", [lambda base, model, log: replay(log, base), lambda _, m, log: undo(m, log, 2)]
)
def test_a_change_of_another_size(logged, use):
    """A record that says what it changes, and does not fit the model: nothing is changed."""
    base, model, log = logged
    path = log.folder / "000002.safetensors"
    change_tensors(path, lambda t, _: t.update({"1.right": t["1.right"][:16]}))
    digest = {"sha256": file_digest(path), "bytes": path.stat().st_size}
    with_entries(log, lambda entries: entries[1].update(digest))
    before = parameters(base), parameters(model)
    with pytest.raises(StateError, match=r"the delta is for a weight \[32, 16\], the model's is \[32, 48\]"):
        use(base, model, EditLog(log.folder))
    assert not differing(before[0], parameters(base)) and not differing(before[1], parameters(model))


# -- exports ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    base, tok = fresh("qwen2")
    model, hparams = copy.deepcopy(base), settings("KNE", folder)
    records = [apply_method(model, tok, [request], hparams)[2] for request in REQUESTS[:2]]
    return base, records


def sealed(folder):
    names = [path.name for path in folder.iterdir() if path.name != SIDE_FILE]
    digests = {name: file_digest(folder / name) for name in names}
    change_json(folder / SIDE_FILE, lambda content: content["files"].update(digests))


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda c: c.pop("files"), "'files' is missing"),
        (lambda c: c.update(base=[]), "'base' must be a mapping"),
        (lambda c: c.update(after=None), "'after' must be a text"),
        (lambda c: c["files"].update({"../other": "x"}), "'../other' is no name of a file in its folder"),
        (lambda c: next(iter(c["parameters"].values())).pop("dim"), "dim' is missing"),
        (lambda c: next(iter(c["parameters"].values())).update(of=2**40), "would get .* neurons"),
        (lambda c: next(iter(c["parameters"].values())).update(dim=5), "do not fit together"),
    ],
)
def test_side_files_of_another_form(exported, tmp_path, change, problem):
    base, records = exported
    export_sparse(records, base, tmp_path / "out")
    change_json(tmp_path / "out" / SIDE_FILE, change)
    before = parameters(base)
    with pytest.raises(StateError, match=problem):
        apply_sparse(base, tmp_path / "out")
    assert not differing(before, parameters(base))


@pytest.mark.parametrize(
    "change",
    [
        lambda name, t: t.pop(f"{name}.bits"),
        lambda name, t: t[f"{name}.units"].fill_(10**6),
        lambda name, t: t.update({f"{name}.bits": t[f"{name}.bits"].double()}),
        lambda name, t: t.update({f"{name}.bits": t[f"{name}.bits"][:, :3]}),
    ],
)
def test_sparse_files_that_do_not_fit(exported, tmp_path, change):
    base, records = exported
    export_sparse(records, base, tmp_path / "out")
    name = sorted(records[0].deltas)[0]
    change_tensors(tmp_path / "out" / "sparse.safetensors", lambda tensors, _: change(name, tensors))
    sealed(tmp_path / "out")
    before = parameters(base)
    with pytest.raises(StateError, match="do not fit together"):
        apply_sparse(base, tmp_path / "out")
    assert not differing(before, parameters(base))


def test_an_adapter_that_peft_cannot_load(exported, tmp_path):
    """The model is the unedited one again, without what peft had put into it."""
    base, records = exported
    export_peft(records, base, tmp_path / "out")

    def cut(tensors, _):
        name = sorted(name for name in tensors if "lora_B" in name)[0]
        tensors[name] = tensors[name][:3].contiguous()

    change_tensors(tmp_path / "out" / "adapter_model.safetensors", cut)
    sealed(tmp_path / "out")
    before = parameters(base)
    with pytest.raises(StateError, match="peft cannot load it"):
        import_edits(tmp_path / "out", base, None, tmp_path / "merged")
    assert not differing(before, parameters(base)) and not (tmp_path / "merged").exists()


def change_config(folder, **values):
    change_json(folder / "adapter_config.json", lambda config: config.update(values))


def change_adapter(folder, change):
    change_tensors(folder / "adapter_model.safetensors", lambda tensors, _: change(tensors))


@pytest.mark.parametrize(
    "damage, problem",
    [
        # peft loads a weight of the model from an adapter's file
        (
            lambda f: change_adapter(
                f, lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(64, 32)})
            ),
            "holds 'base_model.model.lm_head.weight', which is no part of an export",
        ),
        (lambda f: change_config(f, use_rslora=True), "sets 'use_rslora'"),
        (lambda f: change_config(f, lora_alpha=64), "sets 'lora_alpha' to 64"),
        (
            lambda f: change_config(f, alpha_pattern={"model.layers.1.mlp.down_proj": 9}),
            "sets 'alpha_pattern'",
        ),
        (lambda f: change_config(f, init_lora_weights="pissa"), "sets 'init_lora_weights'"),
        (lambda f: change_config(f, modules_to_save=["lm_head"]), "sets 'modules_to_save'"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "do not fit together"),
        (
            lambda f: change_adapter(f, lambda t: t[min(t)].fill_(float("inf"))),
            "numbers that are not finite; nothing is written",
        ),
    ],
)
def test_adapters_that_change_more_than_their_side_file_says(exported, tmp_path, damage, problem):
    base, records = exported
    export_peft(records, base, tmp_path / "out")
    damage(tmp_path / "out")
    sealed(tmp_path / "out")
    before = parameters(base)
    with pytest.raises(StateError, match=problem):
        import_edits(tmp_path / "out", base, None, tmp_path / "merged")
    assert not differing(before, parameters(base)) and not (tmp_path / "merged").exists()


# -- folders of models -----------------------------------------------------------------------------------


def loaded(folder):
    return load_model(SimpleNamespace(model_name=str(folder), device="cpu"))


@pytest.mark.parametrize(
    "file, damage, problem",
    [
        (
            "model.safetensors",
            lambda path: change_tensors(path, lambda t, _: t.pop("model.layers.1.mlp.down_proj.weight")),
            "lack 1 weights: model.layers.1.mlp.down_proj.weight",  # random numbers would take its place
        ),
        (
            "model.safetensors",
            lambda path: change_tensors(path, lambda t, _: t.update({"model.norm.weight": torch.ones(3)})),
            "cannot be loaded",
        ),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:1000]), "cannot be loaded"),
        (
            "config.json",
            lambda path: change_json(path, lambda c: c.update(hidden_size="wide")),
            "cannot be loaded: .*hidden_size",
        ),
        ("tokenizer.json", lambda path: path.write_text('{"model": 3}'), "cannot be loaded"),
    ],
)
def test_damaged_folders_of_models(tmp_path, file, damage, problem):
    model, tok = fresh("llama")
    model.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    assert not differing(parameters(model), parameters(loaded(tmp_path)[0]))
    damage(tmp_path / file)
    with pytest.raises(HostError, match=f"model_name .*{problem}"):
        loaded(tmp_path)


# -- statistics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, name", [("covariance", "covariance"), ("nullspace", "basis")])
@pytest.mark.parametrize("damage", [lambda m: m[:7, :7], lambda m: m.flatten(), lambda m: m * float("inf")])
def test_matrices_of_another_size(tmp_path, kind, name, damage):
    model, tok = fresh("llama")
    hparams = make_hparams("AlphaEdit", tmp_path, v_num_grad_steps=1)
    apply(copy.deepcopy(model), tok, REQUESTS[:1], hparams)

    def change(tensors, metadata):
        tensors[name] = damage(tensors[name]).contiguous()
        metadata["digest"] = tensors_fingerprint(sorted(tensors.items()))

    change_tensors(sorted((tmp_path / "stats").glob(f"{kind}-layer1*"))[0], change)
    before = parameters(model)
    with pytest.raises(StatisticsError, match=f"'{name}' is no matrix of finite numbers for 48 neurons"):
        apply(model, tok, REQUESTS[:1], hparams)
    assert not differing(before, parameters(model))


# -- states of runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return States(tmp_path_factory.mktemp("states") / "states")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["tree"].pop("position"),
        lambda content: content["tree"].update(checkpoints=3),
        lambda content: content["tree"]["checkpoints"][0]["seconds"].update(edit={}),
        lambda content: content["tree"]["random"].update(python=None),
        lambda content: content["tree"]["random"]["numpy"].__setitem__(2, 10**6),
        lambda content: content["tree"]["weights"].update(nowhere=[1]),
        lambda content: next(iter(content["tree"]["weights"].values())).update(stride="x"),
        lambda content: content["tree"]["weights"].update({"lm_head.weight": {"tensor": "tensor99"}}),
    ],
)
def test_states_of_another_form(states, tmp_path_factory, change):
    """Refused before any file of the run is changed; the log, too, has the entries after the state."""
    number = tmp_path_factory.mktemp("number").name
    run = states.copy("AlphaEdit", number)
    (state,) = run.glob("state/*/state.json")
    change_json(state, change)
    assert states._resealed(run) == "resealed"
    before = files_below(run)
    with pytest.raises(StateError, match="state"):
        start(states.world, run, **states.runs["AlphaEdit"])
    assert files_below(run) == before


def test_what_a_killed_process_left_in_a_run_is_collected(states):
    run = states.copy("Dummy", "left")
    (run / ".weights.safetensors-0123456789ab.part").write_text("half")
    (run / "state" / "0099.part").mkdir()
    (run / "final" / ".4.jsonl.part").write_text("half")
    start(states.world, run, **states.runs["Dummy"])
    assert not list(run.rglob("*.part")) and (run / "summary.json").is_file()


def test_a_position_beyond_numpys_numbers():
    saved = random_states()
    saved["numpy"][2] = 10**6
    with pytest.raises(ValueError, match="position 1000000 of 624 numbers"):
        set_random_states(saved)
    assert torch.equal(random_states()["torch"], saved["torch"])


def test_a_tokenizer_that_fails_at_its_first_text(tmp_path):
    """Its files load, and then it compares the number of tokens with a text."""
    for part in fresh("llama"):
        part.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": "many"}))
    with pytest.raises(HostError, match="cannot be loaded"):
        load_model(settings("FiNE", tmp_path, model_name=str(tmp_path)))
