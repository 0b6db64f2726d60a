"""Serve an edited model with plain peft, and take one edit back while it stays loaded.

    python examples/serve_edited_model.py [FOLDER]       files go into FOLDER (default: a temporary one)

Two sides that know of each other only through a folder. The editing side makes edits, keeps their log and
exports an adapter. The serving side has the base model loaded once and needs nothing but transformers and
peft: a new version of the edits is loaded beside the one in use, one call switches over, and the old one is
    dropped. The base weights are never written, never loaded again.
"""

import sys
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from easyedit_neuron import FiNEHyperParams, data, resources
from easyedit_neuron.editlog import recording, undo
from easyedit_neuron.export import export_peft
from easyedit_neuron.host import resolve_base_editor

BASE = resources.model_path("tiny-llama")


class Server:
    """A base model and the newest version of its edits; ``answer`` may be called at any time in between."""

    def __init__(self, base: str):
        self.tok = AutoTokenizer.from_pretrained(base)
        self.model = (
            AutoModelForCausalLM.from_pretrained(base).float().eval()
        )  # the precision that the edits are made in
        self.version = None

    def switch(self, version: str, adapter: Path) -> None:
        """Loads an adapter, answers with it from now on, drops the one before."""
        old, self.version = self.version, version
        if old is None:
            self.model = PeftModel.from_pretrained(self.model, str(adapter), adapter_name=version)
            return
        self.model.load_adapter(str(adapter), adapter_name=version)
        self.model.set_adapter(version)
        self.model.delete_adapter(old)

    @torch.no_grad()
    def answer(self, prompt: str) -> str:
        """What the model writes behind the prompt, up to the end of the sentence."""
        inputs = self.tok(prompt, return_tensors="pt")
        written = self.model.generate(
            **inputs, max_new_tokens=8, do_sample=False, pad_token_id=self.tok.eos_token_id
        )
        return (
            self.tok.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            .split(".")[0]
            .strip()
        )


def main(folder: Path, edits: int = 3) -> dict[str, list[str]]:
    """Ask before and after, undo the second edit, ask again; returns the answers by version."""
    requests = data.load("tiny-world", size=edits)
    server, answers = Server(BASE), {}

    def ask(version: str) -> None:
        answers[version] = [server.answer(request["prompt"]) for request in requests]

    ask("unedited")

    # the editing side
    editor = resolve_base_editor("builtin").from_hparams(FiNEHyperParams.from_hparams("FiNE/tiny-llama"))
    base = AutoModelForCausalLM.from_pretrained(
        BASE
    ).float()  # exports are made from the log and the unedited model
    with recording(editor.model, folder / "log") as log:
        editor.edit_requests(requests, sequential_edit=True, verbose=False)
    export_peft(log, base, folder / "v1")

    # the serving side
    server.switch("v1", folder / "v1")
    ask("v1")

    # one edit was a mistake
    undo(editor.model, log, log.ids[1])
    export_peft(log, base, folder / "v2")
    server.switch("v2", folder / "v2")
    ask("v2")

    for number, request in enumerate(requests):
        print(f"{request['prompt']} ... (edit: {request['target_new']})")
        for version, given in answers.items():
            print(f"    {version:8}  {given[number]}")
    return answers


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
