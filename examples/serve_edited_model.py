"""Serve an edited model with plain peft, and take one edit back while it stays loaded.

    python examples/serve_edited_model.py [FOLDER]       files go into FOLDER (default: a temporary one)

The editing side makes edits, logs them and exports an adapter. The serving side has loaded the base model
once and needs nothing but transformers and peft. The two share nothing but a folder. A new version of the
edits is loaded beside the one in use; one call switches over, and the old one is dropped. The base weights
are never written and never loaded again.
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
    """A base model with the newest version of its edits; ``answer`` works with or without edits."""

    def __init__(self, base: str):
        self.tok = AutoTokenizer.from_pretrained(base)
        # float32 is the precision that the edits are made in.
        self.model = AutoModelForCausalLM.from_pretrained(base).float().eval()
        self.version = None

    def switch(self, version: str, adapter: Path) -> None:
        """Load an adapter, answer with it from now on, and drop the previous one."""
        old, self.version = self.version, version
        if old is None:
            self.model = PeftModel.from_pretrained(self.model, str(adapter), adapter_name=version)
            return
        self.model.load_adapter(str(adapter), adapter_name=version)
        self.model.set_adapter(version)
        self.model.delete_adapter(old)

    @torch.no_grad()
    def answer(self, prompt: str) -> str:
        """The text that the model writes after the prompt, up to the end of the sentence."""
        inputs = self.tok(prompt, return_tensors="pt")
        tokens = self.model.generate(
            **inputs, max_new_tokens=8, do_sample=False, pad_token_id=self.tok.eos_token_id
        )
        new_tokens = tokens[0, inputs["input_ids"].shape[1] :]
        return self.tok.decode(new_tokens, skip_special_tokens=True).split(".")[0].strip()


def main(folder: Path, edits: int = 3) -> dict[str, list[str]]:
    """Ask before and after the edits, undo the second one and ask again; return the answers by version."""
    requests = data.load("tiny-world", size=edits)
    server, answers = Server(BASE), {}

    def ask(version: str) -> None:
        answers[version] = [server.answer(request["prompt"]) for request in requests]

    ask("unedited")

    # The editing side: exports are made from the log and the unedited model.
    editor = resolve_base_editor("builtin").from_hparams(FiNEHyperParams.from_hparams("FiNE/tiny-llama"))
    base = AutoModelForCausalLM.from_pretrained(BASE).float()
    with recording(editor.model, folder / "log") as log:
        editor.edit_requests(requests, sequential_edit=True, verbose=False)
    export_peft(log, base, folder / "v1")

    # The serving side.
    server.switch("v1", folder / "v1")
    ask("v1")

    # One edit was a mistake: undo it in the log, export again and switch over.
    undo(editor.model, log, log.ids[1])
    export_peft(log, base, folder / "v2")
    server.switch("v2", folder / "v2")
    ask("v2")

    for number, request in enumerate(requests):
        print(f"{request['prompt']} ... (edit: {request['target_new']})")
        for version, version_answers in answers.items():
            print(f"    {version:8}  {version_answers[number]}")
    return answers


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
