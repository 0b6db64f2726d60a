"""The model card of an export: README.md in the Hub's form, made from the side file alone."""

import html
import json
import re
from pathlib import Path
from typing import Any

from ..utils.shown import count_edits

NAME = "README.md"
LIBRARIES = {"peft": "peft", "merged": "transformers", "gguf": "gguf"}
"""Kinds of exports that a model loader reads -> its name on the Hub."""
MOST_EDITS = 100
"""Edits in the table of a card; the side file has all."""
_TITLES = {"peft": "a LoRA adapter", "merged": "an edited model", "gguf": "an edited model for llama.cpp"}
_MEASURES = {
    "rewrite_acc": ("Rel", "edited prompts"),
    "rephrase_acc": ("Gen", "rephrasings"),
    "loc": ("Loc", "other prompts, answered as by the base model"),
    "port": ("Portability", "what follows from the edits"),
}


def card(side_file: dict[str, Any]) -> str:
    """The text of the card for the content of a side file, whose kind is one of ``LIBRARIES``."""
    kind, edits, base = side_file["kind"], side_file["edits"], base_label(side_file)
    requests = [(edit["id"], request) for edit in edits for request in edit["requests"]]
    methods = ", ".join(dict.fromkeys(str(edit["method"]) for edit in edits)) or "no method"
    title = f"{count_edits(len(requests))} of {base.rpartition('/')[2]}"
    parts = [
        f"---\n{_header(side_file)}\n---\n",
        f"# {_text(title)}: {_TITLES[kind]}\n",
        f"Base model: `{base}` (weights in {side_file['base']['dtype']}). Single facts were changed in its "
        f"weights by {methods}, with easyedit-neuron {side_file['easyedit_neuron']}.\n",
        _load(side_file),
        _measured(side_file),
        _undo(kind, base),
        _edits(requests),
        _settings(side_file),
    ]
    return "\n".join(part for part in parts if part)


def base_label(side_file: dict[str, Any]) -> str:
    """Name of the base model; of a folder on a disk the last part alone."""
    name = str(side_file["base"]["name"])
    return name if is_hub_id(name) else Path(name).name or name


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository, ``organisation/name``, and is no folder here."""
    part = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?"
    return re.fullmatch(f"{part}/{part}", name) is not None and not Path(name).exists()


def _header(side_file: dict[str, Any]) -> str:
    from huggingface_hub import ModelCardData

    kind, name = side_file["kind"], str(side_file["base"]["name"])
    methods = sorted({str(edit["method"]).lower() for edit in side_file["edits"]})
    tags = ["knowledge-editing", "easyedit-neuron", *methods, *(["lora"] if kind == "peft" else [])]
    data = ModelCardData(
        base_model=name if is_hub_id(name) else None,
        library_name=LIBRARIES[kind],
        pipeline_tag="text-generation",
        tags=tags,
    )
    return data.to_yaml().strip()


def _load(side_file: dict[str, Any]) -> str:
    kind, base = side_file["kind"], base_label(side_file)
    if kind == "gguf":
        code = "llama-cli -m model.gguf -p PROMPT"
        return f"## Load\n\n```bash\n{code}\n```\n"
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if kind == "merged":
        lines += ['model = AutoModelForCausalLM.from_pretrained("THIS")']
        lines += ['tok = AutoTokenizer.from_pretrained("THIS")']
    else:
        lines = ["from peft import PeftModel", *lines]
        lines += [f'base = AutoModelForCausalLM.from_pretrained("{base}")']
        lines += ['model = PeftModel.from_pretrained(base, "THIS")']
        lines += [f'tok = AutoTokenizer.from_pretrained("{base}")']
    text = "`THIS` is this folder or repository."
    if kind == "peft" and not is_hub_id(base):
        text += f" `{base}` is a folder, or the name of a model in easyedit-neuron."
    return f"## Load\n\n{text}\n\n```python\n" + "\n".join(lines) + "\n```\n" + _vllm(side_file, base)


def _vllm(side_file: dict[str, Any], base: str) -> str:
    check = side_file.get("vllm")
    if check is None:
        return ""
    if check["problems"]:
        return f"\nNot for vLLM: {_text(check['problems'][0])}.\n"
    options = f"--enable-lora --max-lora-rank {check['max_lora_rank']} --lora-modules edits=THIS"
    return f"\nWith vLLM:\n\n```bash\nvllm serve {base} {options}\n```\n"


def _measured(side_file: dict[str, Any]) -> str:
    measured = side_file.get("measured")
    rows = [
        f"| {name} | {of} | {_interval(measured[key])} |"
        for key, (name, of) in _MEASURES.items()
        if measured and key in measured
    ]
    lines = []
    if rows:
        text = "Token accuracy after the last edit, with 95% bootstrap intervals over the edits."
        if measured.get("retained") is not None:
            text += f" Of the facts that the base model knew, {measured['retained']:.1%} are still right."
        lines = [text, "", "| | on | |", "|---|---|---|", *rows]
    if "rewrite_acc" in side_file:  # of a cut adapter
        scores = side_file["rewrite_acc"]
        cut = (
            f"{scores['edited']:.3f} of the edits as they were made, {scores['cut']:.3f} with the cut adapter"
        )
        lines += [*([""] if lines else []), f"This adapter is cut to a lower rank: Rel {cut}."]
    return "## Measured\n\n" + ("\n".join(lines) if lines else "Nothing was measured on this model.") + "\n"


def _interval(values: list[float]) -> str:
    value, low, high = values
    return f"{value:.3f} ({low:.3f}-{high:.3f})"


def _undo(kind: str, base: str) -> str:
    single = "Single edits are taken back in the run's log: `easyedit-neuron undo RUN ID --out DIR`, or "
    single += (
        f"`easyedit-neuron export RUN --to {kind} --edits IDS --out DIR` for a new export of the others."
    )
    whole = f"`{base}` itself has none of the edits."
    if kind == "peft":
        whole = (
            "`model.unload()` gives the base model back, and `model.disable_adapter()` does so for a while."
        )
    return f"## Undo\n\n{whole} {single}\n"


def _edits(requests: list[tuple[Any, dict[str, Any]]]) -> str:
    if not requests:
        return ""
    rows = [
        f"| {number} | {_text(request.get('prompt', ''))} | {_text(request.get('target_new', ''))} |"
        for number, request in requests[:MOST_EDITS]
    ]
    more = len(requests) - MOST_EDITS
    note = f"\nand {more:,} more, in `easyedit_neuron.json`\n" if more > 0 else ""
    head = ["## Edits\n", "| id | prompt | new answer |", "|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n" + note


def _settings(side_file: dict[str, Any]) -> str:
    settings = side_file.get("settings")
    if not settings:
        return ""
    settings = {
        method: {name: value for name, value in values.items() if value is not None}
        for method, values in settings.items()
    }
    text = json.dumps(settings, indent=1, ensure_ascii=False)
    return (
        f"## Settings\n\n<details><summary>Hyperparameters</summary>\n\n```json\n{text}\n```\n\n</details>\n"
    )


def _text(value: Any) -> str:
    """A text of others in a line of Markdown."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text)
