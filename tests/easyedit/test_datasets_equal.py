"""Our readers give the requests that EasyEdit's example scripts make, from files and from EasyEdit's dataset
objects; and the two evaluations give the same numbers for them on the shipped model."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from easyedit_neuron import data, resources
from easyedit_neuron.errors import DataError
from easyedit_neuron.evaluation import compute_edit_quality, evaluate_all

WORLD = resources.data_dir("tiny-world")
REAL = Path(os.environ.get("EASYEDIT_NEURON_DATA") or "nowhere")
KINDS = {
    "portability_r": "reasoning",
    "portability_s": "Subject_Aliasing",
    "portability_l": "Logical_Generalization",
    "locality_rs": "Relation_Specificity",
    "locality_f": "Forgetfulness",
}
HOP = {"prompt": "New Question", "ground_truth": "New Answer"}


def name_of(path):
    return path.name


def files(shipped, *real):
    """The shipped file, and the real ones where they are."""
    return [WORLD / shipped, *real_files(*real)]


def real_files(*names):
    return [REAL / name for name in names if (REAL / name).is_file()]


@pytest.fixture
def requests_of(easyeditor):
    """EasyEdit's own function from an editor's arguments to requests, without kinds that are empty: it cannot
    measure them."""
    prepare = sys.modules["easyeditor.editors.utils"]._prepare_requests

    def make(prompts, targets, rephrasings=None, locality=None, portability=None, **more):
        requests = prepare(
            prompts, targets, [None] * len(prompts), None, rephrasings, locality, portability, **more
        )
        for request in requests:
            for section in ("locality", "portability"):
                request[section] = {
                    kind: probe for kind, probe in request[section].items() if probe["prompt"]
                }
        return requests

    return make


def without(requests, *names):
    """The scripts give no old object; KnowEdit's gives no rephrasing either."""
    return [
        {
            name: (None if name == "ground_truth" else value)
            for name, value in request.items()
            if name not in names
        }
        for request in requests
    ]


def column(records, *trail):
    values = list(records)
    for name in trail:
        values = [record[name] for record in values]
    return values


@pytest.mark.parametrize(
    "path", files("edits_zsre.json", "zsre/zsre_mend_eval_portability_gpt4.json"), ids=name_of
)
def test_zsre(requests_of, path):
    raw = json.loads(path.read_text())
    hops = [record.get("portability") or {} for record in raw]  # the script wants one in every record
    expected = requests_of(
        column(raw, "src"),
        column(raw, "alt"),
        column(raw, "rephrase"),
        {"neighborhood": {"prompt": column(raw, "loc"), "ground_truth": column(raw, "loc_ans")}},
        {"one_hop": {name: [hop.get(field) for hop in hops] for name, field in HOP.items()}},
        subject=column(raw, "subject"),
    )
    requests_from_file = data.load(path)
    assert without(requests_from_file) == expected
    assert column(requests_from_file, "ground_truth") == [record["answers"][0] for record in raw]


@pytest.mark.parametrize(
    "path", files("edits_counterfact.json", "counterfact/counterfact-edit.json"), ids=name_of
)
def test_flat_counterfact(requests_of, easyeditor, path):
    dataset = easyeditor.CounterFactDataset(str(path))
    expected = requests_of(
        column(dataset, "prompt"),
        column(dataset, "target_new"),
        column(dataset, "rephrase_prompt"),
        {"neighborhood": {name: column(dataset, f"locality_{name}") for name in ("prompt", "ground_truth")}},
        subject=column(dataset, "subject"),
    )
    requests_from_file = data.load(path)
    for request in requests_from_file:  # of EasyEdit's file, generation prompts are no rephrasings
        if "generation" in request["portability"]:
            request["rephrase_prompt"] = request["portability"].pop("generation")["prompt"]
    assert without(requests_from_file) == expected
    assert data.load(dataset) == data.load(path)
    assert data.load(easyeditor.CounterFactDataset(str(path), size=3)) == data.load(path, size=3)


@pytest.mark.parametrize("path", [None, *real_files("counterfact/counterfact_portability_gpt4.json")])
def test_nested_counterfact(requests_of, tmp_path, path):
    if path is None:
        path = tmp_path / "nested.json"
        path.write_text(
            json.dumps(
                [nested(flat) for flat in json.loads((WORLD / "edits_counterfact.json").read_text())[:50]]
            )
        )
    raw = json.loads(path.read_text())
    rewrites, near = column(raw, "requested_rewrite"), column(raw, "neighborhood_prompts")
    truths = column(rewrites, "target_true", "str")
    expected = requests_of(
        [rewrite["prompt"].format(rewrite["subject"]) for rewrite in rewrites],
        column(rewrites, "target_new", "str"),
        [paraphrases[0] for paraphrases in column(raw, "paraphrase_prompts")],
        {
            "neighborhood": {
                "prompt": near,
                "ground_truth": [[truth] * len(prompts) for truth, prompts in zip(truths, near)],
            }
        },
        subject=column(rewrites, "subject"),
    )
    requests_from_file = data.load(path)
    assert [
        {**request, "portability": {}} for request in without(requests_from_file)
    ] == expected  # the script measures no portability
    assert column(requests_from_file, "ground_truth") == truths


def nested(flat):
    """A record of tiny-world as ROME and MEMIT keep it."""
    rewrite = {
        "prompt": flat["prompt"].replace(flat["subject"], "{}"),
        "subject": flat["subject"],
        "target_new": {"str": flat["target_new"]},
        "target_true": {"str": flat["ground_truth"]},
    }
    return {
        "requested_rewrite": rewrite,
        "paraphrase_prompts": [flat["rephrase_prompt"], "another"],
        "neighborhood_prompts": [flat["locality_prompt"], "It is"],
    }


def first_answer(answer):
    """The script's loop, which an empty list ends with an error."""
    while isinstance(answer, list):
        answer = answer[0]
    return answer


def knowedit_inputs(items):
    """Locality and portability as the script builds them."""
    inputs = {"locality": {}, "portability": {}}
    for field, kind in KINDS.items():
        prompts, answers = [], []
        for item in items:
            pairs = [(probe["prompt"], first_answer(probe["ground_truth"])) for probe in item[field] or []]
            pairs = [pair for pair in pairs if pair[1].strip()]
            prompts.append(None if item[field] is None else [prompt for prompt, _ in pairs])
            answers.append(None if item[field] is None else [answer for _, answer in pairs])
        inputs[field.partition("_")[0]][kind] = {"prompt": prompts, "ground_truth": answers}
    return inputs


@pytest.mark.parametrize(
    "path",
    files(
        "edits_knowedit.json",
        "knowedit/ZsRE-test-all.json",
        "knowedit/wiki_counterfact_train_cf.json",
        "knowedit/wiki_recent_recent_train.json",
    ),
    ids=name_of,
)
def test_knowedit(requests_of, easyeditor, path):
    dataset = easyeditor.KnowEditDataset(str(path))
    requests_from_file, from_object = data.load(path, invalid="skip"), data.load(dataset, invalid="skip")
    # three subjects of KnowEdit's zsRE are not in their prompts, letter by letter: EasyEdit's editor stops
    # there
    items = [item for item in dataset if item["subject"] in item["prompt"]]
    assert len(requests_from_file) == len(from_object) == len(items)
    compared = 0
    for item, request_from_object, request in zip(items, from_object, requests_from_file):
        try:
            (expected,) = requests_of(
                [item["prompt"]],
                [first_answer(item["target_new"])],
                subject=[item["subject"]],
                **knowedit_inputs([item]),
            )
        except IndexError:  # an answer without aliases, on which the script fails
            continue
        compared += 1
        assert without([request_from_object]) == [expected]
        # of the file we read more than the class does: the rephrasing, and kinds of probes that it does not
        # know
        request.pop("rephrase_prompt", None)
        for section in ("locality", "portability"):
            request[section] = {
                kind: probe for kind, probe in request[section].items() if kind in KINDS.values()
            }
        assert request == request_from_object
    assert compared > 0.98 * len(items)


@pytest.mark.parametrize(
    "path", files("edits_knowedit.json", "knowedit/wiki_recent_recent_train.json"), ids=name_of
)
def test_wiki_recent(easyeditor, tmp_path, path):
    raw = [
        record for record in json.loads(path.read_text()) if record["locality"].get("Relation_Specificity")
    ][:50]
    for record in raw:  # the class takes answers for lists of lists only
        for probe in record["locality"]["Relation_Specificity"]:
            if isinstance(probe["ground_truth"], str):
                probe["ground_truth"] = [[probe["ground_truth"]]]
    (tmp_path / "recent.json").write_text(json.dumps(raw))
    dataset = easyeditor.WikiRecentDataset(str(tmp_path / "recent.json"))
    for item, request, record in zip(dataset, data.load(dataset), raw):
        probe = request["locality"]["neighborhood"]
        assert all(request[name] == item[name] for name in ("prompt", "subject", "target_new"))
        assert (probe["prompt"], probe["ground_truth"]) == (
            item["locality_prompt"],
            item["locality_ground_truth"],
        )
        assert probe["prompt"] in column(record["locality"]["Relation_Specificity"], "prompt")


def test_zsre_objects_have_no_subject(easyeditor):
    with pytest.raises(DataError, match="ZsreDataset: its records have no subject .* give the JSON file"):
        data.load(easyeditor.ZsreDataset(str(WORLD / "edits_zsre.json")))


@pytest.mark.parametrize("shape", ["knowedit", "counterfact", "zsre"])
def test_the_numbers_are_the_same(easyeditor, shipped_model, shape):
    model, tok = shipped_model
    hparams = SimpleNamespace(alg_name="NMKE", max_length=40, device="cpu")
    requests = data.load("tiny-world", shape, 5)
    expected = [
        easyeditor.compute_edit_quality(model, "tiny-llama", hparams, tok, request, "cpu")
        for request in requests
    ]
    assert evaluate_all(model, tok, requests, hparams=hparams) == expected
    assert [
        compute_edit_quality(model, "tiny-llama", hparams, tok, request) for request in requests
    ] == expected
    # the model knows the old objects: the new ones are not there, locality and portability have something to
    # measure
    old_metrics = evaluate_all(
        model, tok, [{**request, "target_new": request["ground_truth"]} for request in requests]
    )
    assert (
        min(value for metrics in old_metrics for value in metrics["rewrite_acc"])
        == 1.0
        > min(m["rewrite_acc"][0] for m in expected)
    )
