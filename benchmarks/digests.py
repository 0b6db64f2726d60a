"""Digests of a fixed list of edits: what they do to the weights, the neurons and the metrics, for comparing
two versions.

    python -m benchmarks.digests before           # runs every case on tiny-llama, writes before/digests.json
    python -m benchmarks.digests after --against before

Every case runs in a process of its own, on one thread. The weights that a case has changed are kept beside
its digest, so that two versions whose digests differ can be told apart by how much.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MASKED = ("NMKE", "PNKE", "AlphaEdit", "MEMIT", "ROME")
TRAINED = ("FiNE", "KNE", "FT")
CASES = {
    **{
        f"{name} {stage} batch {size}": {"method": name, "size": size, "fields": {"mask_stage": stage}}
        for name in MASKED
        for stage in ("post", "solve")
        for size in (1, 10)
    },
    **{
        f"{name} batch {size}": {"method": name, "size": size, "fields": {}}
        for name in TRAINED
        for size in (1, 10)
    },
    "PNKE adam": {"method": "PNKE", "size": 1, "fields": {"solver": "adam", "adam_steps": 20}},
    "R-ROME": {"method": "ROME", "size": 1, "fields": {"averaged_keys": True}},
    "ROME without C": {"method": "ROME", "size": 1, "fields": {"mom2_adjustment": False}},
    "AlphaEdit contribution solve": {
        "method": "AlphaEdit",
        "size": 10,
        "fields": {"mask": "contribution", "mask_stage": "solve"},
    },
    "MEMIT ig post": {"method": "MEMIT", "size": 1, "fields": {"mask": "ig"}},
    "NMKE paper's forms": {
        "method": "NMKE",
        "size": 1,
        "fields": {
            "attribution": "psa",
            "score_form": "raw",
            "ratio": "linear",
            "neurons": "overlap",
            "attribution_target": "target_new",
        },
    },
    "MEMIT keep_edits": {"method": "MEMIT", "size": 10, "subjects": 4, "fields": {"keep_edits": True}},
    "NMKE keep_prompts": {
        "method": "NMKE",
        "size": 1,
        "subjects": 2,
        "fields": {"keep_prompts": 4, "mask_stage": "solve"},
    },
    "ROME keep_edits": {"method": "ROME", "size": 1, "subjects": 2, "fields": {"keep_edits": True}},
    "FiNE paper's forms": {
        "method": "FiNE",
        "size": 1,
        "fields": {
            "locate_on": "ground_truth",
            "repeated_neurons": "once",
            "edit_loss": "sum",
            "kl_direction": "after_before",
            "penalty_on": "first",
            "gamma": 0.0,
        },
    },
    "KNE input axis, KL": {
        "method": "KNE",
        "size": 1,
        "fields": {
            "neuron_axis": "input",
            "kl_factor": 1.0,
            "target_modules": ["down_proj", "q_proj"],
            "attribution_rule": "gauss",
        },
    },
    "KNE neutral KL": {
        "method": "KNE",
        "size": 10,
        "fields": {"kl_factor": 1.0, "kl_on": "neutral", "scaling": "joint"},
    },
}
RUNS = {"run resumed": "nmke", "run undo": "memit", "run export": "memit", "run fine": "fine"}
HOSTS = {"host builtin": "builtin", "host easyedit": "easyedit"}


def edits_of(case):
    """EasyEdit's request dictionaries: three edits one by one, or two batches of ten."""
    from easyedit_neuron import data

    records = data.load("tiny-world")
    count = 3 if case["size"] == 1 else 20
    if "subjects" in case:
        first = list(dict.fromkeys(record["subject"] for record in records))[: case["subjects"]]
        records = [record for record in records if record["subject"] in first]
    return records[:count]


def digest(tensors):
    """SHA-256 of named tensors, bit for bit."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.flatten().view(-1).numpy().tobytes())
    return total.hexdigest()[:20]


def changed(model, base):
    """The parameters that differ from those of the unedited model."""
    return {
        name: value.detach().clone()
        for name, value in model.named_parameters()
        if not (value == base[name]).all()
    }


def measured(editor, model, records):
    """Token accuracies of the edits and their rephrasings."""
    import torch

    def right(prompt, target):
        ids, answer = (
            editor.tok(prompt)["input_ids"],
            editor.tok(" " + target.strip(), add_special_tokens=False)["input_ids"],
        )
        with torch.no_grad():
            predicted = model(torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1].argmax(-1).tolist()
        return sum(a == b for a, b in zip(predicted, answer)) / len(answer)

    return {
        name: sum(right(record[name], record["target_new"]) for record in records) / len(records)
        for name in ("prompt", "rephrase_prompt")
    }


def edit(case):
    """One case of CASES: ({parameter: value}, metrics, neurons)."""
    import easyedit_neuron as e

    name = case["method"]
    hparams = (
        getattr(e, f"{name}HyperParams")
        .from_hparams(f"{name}/tiny-llama")
        .override({**case["fields"], "batch_size": case["size"]})
    )
    editor = e.host.resolve_base_editor("builtin").from_hparams(hparams)
    base = {key: value.detach().clone() for key, value in editor.model.named_parameters()}
    records, neurons = edits_of(case), hashlib.sha256()
    for start in range(0, len(records), case["size"]):
        edit_records = []
        options = {} if name == "FT" else {"records": edit_records}
        getattr(e, f"apply_{name.lower()}_to_model")(
            editor.model, editor.tok, records[start : start + case["size"]], hparams, **options
        )
        for record in edit_records:
            for parameter, delta in record.deltas.items():
                neurons.update(f"{parameter} {delta.neurons.tolist()}".encode())
    return changed(editor.model, base), measured(editor, editor.model, records), neurons.hexdigest()[:20]


def command(*words, kill_after=None):
    """The command line; with ``kill_after`` it is killed once the run has written that many edits, and given
    again."""
    line = [sys.executable, "-m", "easyedit_neuron", *words]
    if kill_after:
        edits = Path(
            next(word for word in words if word.startswith("output_dir=")).split("=")[1], "edits.jsonl"
        )
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (edits.exists() and edits.read_text().count("\n") >= kill_after):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def run(name, method, folder):
    """One case of RUNS, through the command line."""
    from safetensors.torch import load_file

    out = folder / "files" / name.replace(" ", "-")
    words = [
        f"method={method}",
        "edits=12",
        "evaluation=quick",
        "runner.report=false",
        "runner.quiet=true",
        "runner.save_every_edits=2",
    ]
    command(*words, f"output_dir={out}", kill_after=5 if name == "run resumed" else None)
    weights, summary = out / "weights.safetensors", json.loads((out / "summary.json").read_text())
    if name == "run undo":
        command("undo", str(out), "3", "7", "--out", str(out) + "-undone")
        weights = Path(str(out) + "-undone") / "weights.safetensors"
    if name == "run export":
        command("export", str(out), "--to", "peft", "--out", str(out) + "-adapter")
        weights = Path(str(out) + "-adapter") / "adapter_model.safetensors"
    final = {
        key: value for key, value in summary["results"]["final"].items() if isinstance(value, (int, float))
    }
    return load_file(weights), final, ""


def host(name, which):
    """One case of HOSTS: three sequential edits by ``BaseEditor``, with the editor's own metrics."""
    import easyedit_neuron as e

    hparams = e.NMKEHyperParams.from_hparams("NMKE/tiny-llama")
    editor = e.host.resolve_base_editor(which).from_hparams(hparams)
    base = {key: value.detach().clone() for key, value in editor.model.named_parameters()}
    records = edits_of({"size": 1})
    options = {
        key: [record[field] for record in records]
        for key, field in (
            ("prompts", "prompt"),
            ("subject", "subject"),
            ("target_new", "target_new"),
            ("ground_truth", "ground_truth"),
            ("rephrase_prompts", "rephrase_prompt"),
        )
    }
    metrics, model, _ = editor.edit(**options, sequential_edit=True)
    return changed(model, base), {"posts": [entry["post"]["rewrite_acc"] for entry in metrics]}, ""


def digest_case(name, folder):
    """Runs a case and writes its digest and its weights."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    if name in CASES:
        weights, metrics, neurons = edit(CASES[name])
    elif name in RUNS:
        weights, metrics, neurons = run(name, RUNS[name], folder)
    else:
        weights, metrics, neurons = host(name, HOSTS[name])
    file = folder / "weights" / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in weights.items()}, file)
    values = {
        "weights": digest(weights),
        "parameters": len(weights),
        "metrics": json.loads(json.dumps(metrics, default=float)),
        "neurons": neurons,
    }
    (folder / "weights" / f"{name}.json").write_text(json.dumps(values))


def compare(folder, other):
    """Prints every case beside the other version's; True where all are the same, bit for bit."""
    from safetensors.torch import load_file

    digests, other_digests = (json.loads((where / "digests.json").read_text()) for where in (folder, other))
    same = True
    for name in digests.keys() | other_digests.keys():
        a, b = digests.get(name), other_digests.get(name)
        if a == b:
            continue
        same = False
        if a is None or b is None:
            print(f"{name}: only in {'the second' if a is None else 'the first'}")
            continue
        first, second = (load_file(where / "weights" / f"{name}.safetensors") for where in (folder, other))
        away = max(
            (
                float((first[key] - second[key]).norm() / second[key].norm())
                for key in first.keys() & second.keys()
            ),
            default=0.0,
        )
        print(
            f"{name}: weights differ by {away:.2e} relative, "
            f"same parameters {first.keys() == second.keys()}, "
            f"same neurons {a['neurons'] == b['neurons']}, same metrics {a['metrics'] == b['metrics']}"
        )
    equal = sum(digests.get(name) == other_digests.get(name) for name in digests)
    print(f"{len(digests)} cases, {equal} bit for bit the same")
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", help="cases whose name holds this")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder.resolve()
    if given.case:
        return digest_case(given.case, folder)
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    table = folder / "digests.json"
    digests = json.loads(table.read_text()) if table.exists() else {}
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "EASYEDIT_NEURON_CACHE": os.environ.get("EASYEDIT_NEURON_CACHE", str(folder / "cache")),
    }
    for name in (*CASES, *RUNS, *HOSTS):
        if (
            given.only
            and given.only not in name
            or name in digests
            or name == "host easyedit"
            and not os.environ.get("EASYEDIT_HOME")
        ):
            continue
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.digests", str(folder), "--case", name],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(f"{name}: failed\n{done.stderr[-2000:]}")
            continue
        digests[name] = json.loads((folder / "weights" / f"{name}.json").read_text())
        table.write_text(json.dumps(digests, indent=1, sort_keys=True))
        print(
            f"{name}: {digests[name]['weights']} {digests[name]['metrics']} "
            f"({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
    if given.against:
        return 0 if compare(folder, given.against.resolve()) else 1


if __name__ == "__main__":
    sys.exit(main())
