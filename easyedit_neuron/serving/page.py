"""What the page of ``easyedit-neuron demo`` shows, as HTML and files: everything but its widgets."""

import html
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import NeuronEditError
from ..export import export_merged, export_peft, export_sparse
from ..report.sentences import open_ended, spoken
from .edited_model import Asked, Change, EditedModel
from .pictures import changes_picture, firing_picture

FORMS = ("sparse", "peft", "merged")
STYLE = Path(__file__).with_name("page.css")
KINDS = {
    "edited": "the fact",
    "rephrased": "in other words",
    "neighbour": "another fact",
    "undone": "taken back",
    "asked": "asked",
}
NOTHING_YET = "<p class='note'>Nothing yet. An edit shows here what the model said before, and says now.</p>"
NO_EDITS = "<p class='note'>No edits yet.</p>"


class Page:
    """The functions behind the page of one model.

    Args:
        edited: the model with its log.
        load_base: loads model and tokenizer without edits, for an export.
    """

    def __init__(self, edited: EditedModel, load_base: Callable[[], tuple[Any, Any]]):
        self.edited, self._load_base = edited, load_base
        self._exports = tempfile.TemporaryDirectory(prefix="easyedit-neuron-demo-")

    def edit(self, prompt: str, subject: str, target: str, rephrasing: str, neighbour: str) -> Change:
        """Make an edit; empty rephrasing and neighbour: those that the package knows, if any."""
        beside = [[text] if text.strip() else [] for text in (rephrasing, neighbour)]
        return self.edited.edit(prompt, subject, target, *beside)

    def ask(self, prompt: str) -> str:
        """The answer to a prompt, and the neurons that respond to it."""
        if not prompt.strip():
            raise NeuronEditError("the prompt is empty; write one")
        with self.edited.whole():
            answer = self.edited.answers([prompt])[0]
            fired = self.edited.responses([prompt])
        said = f"<p class='said'>{html.escape(open_ended(prompt))} <b>{html.escape(spoken(answer))}</b></p>"
        return said + (firing_picture([prompt], fired) if fired[0] else "")

    def neurons(self, number: int, prompts: Sequence[str] = ()) -> str:
        """What an edit did to neurons: where its own neuron responds (Lasting), or how much each changed."""
        with self.edited.whole():
            record = self.edited.log[number]
            if record.method != "Lasting":
                return changes_picture(record)
            if not self.edited.describe(number)["in_weights"]:
                return f"<p class='note'>The neuron of edit {number} was taken out.</p>"
            prompts = prompts or [request["prompt"] for request in record.requests]
            return firing_picture(prompts, self.edited.responses(prompts, number))

    def export(self, form: str) -> Path:
        """Write the edits in the weights in a form of ``FORMS``; a ZIP file."""
        if form not in FORMS:
            raise NeuronEditError(f"form {form!r}: choose one of {', '.join(FORMS)}")
        with self.edited.whole():
            ids = self.edited.log.ids
            records = [self.edited.log[number] for number in ids]
        if not records:
            raise NeuronEditError("there is nothing to export: no edit is in the weights")
        model, tok = self._load_base()
        folder = Path(tempfile.mkdtemp(dir=self._exports.name)) / f"{form}-edits"
        names = {"base": self.edited.log.base.name, "ids": ids}
        if form == "peft":
            export_peft(records, model, folder, tok=tok, **names)
        elif form == "sparse":
            export_sparse(records, model, folder, **names)
        else:
            export_merged(records, model, tok, folder, **names)
        packed = shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
        shutil.rmtree(folder)
        return Path(packed)

    def numbers(self) -> list[int]:
        """Edits that are in the weights, the newest first."""
        with self.edited.whole():
            return self.edited.log.ids[::-1]

    def log(self) -> str:
        """All edits of the log as a table, the newest first."""
        rows = []
        for edit in reversed(self.edited.edits()):
            first, *more = edit["requests"]
            fact = f"{html.escape(first['prompt'])} → <b>{html.escape(str(first['target_new']))}</b>"
            fact += f" and {len(more)} more" if more else ""
            state = "in the model" if edit["in_weights"] else "taken back"
            row = "" if edit["in_weights"] else " class='gone'"
            rows.append(
                f"<tr{row}><td>{edit['id']}</td><td>{fact}</td><td>{edit['method']}</td><td>{state}</td></tr>"
            )
        if not rows:
            return NO_EDITS
        head = "<tr><th>#</th><th>fact</th><th>method</th><th></th></tr>"
        return f"<table class='log'><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def before_and_after(change: Change) -> str:
    """A change as a table: what the model said to each prompt before, and says now."""
    done = f"Edit {change.number}" if change.of is None else f"Edit {change.of} taken back"
    rows = "".join(map(_row, change.asked))
    head = "<tr><th></th><th>prompt</th><th>before</th><th>now</th></tr>"
    return (
        f"<p class='done'>{done}, in {change.seconds:.1f} s</p>"
        f"<table class='asked'><thead>{head}</thead><tbody>{rows}</tbody></table>"
    )


def refusal(problem: Exception) -> str:
    """An error in the place where a result would stand."""
    return f"<p class='refused'>{html.escape(str(problem))}</p>"


def _row(asked: Asked) -> str:
    before, after = html.escape(spoken(asked.before)), html.escape(spoken(asked.after))
    changed = "changed" if asked.before != asked.after else "same"
    kind = KINDS.get(asked.kind, asked.kind)
    return (
        f"<tr class='{asked.kind}'><td class='kind'>{kind}</td>"
        f"<td>{html.escape(open_ended(asked.prompt))}</td>"
        f"<td class='before'>{before}</td><td class='now {changed}'>{after}</td></tr>"
    )
