"""The page about the papers' tables: what each takes, and what was measured here.

``python -m easyedit_neuron.papers.page docs/results/data/papers > docs/results/papers.md``; the folder has
the tables that ``easyedit-neuron paper run`` has written, ``NAME.md``.
"""

import sys
from pathlib import Path

from ..report.table import markdown_line
from ..resources import CHECKPOINTS
from .entry import PAPERS, Entry, entries

TITLES = {"nmke": "NMKE", "pnke": "PNKE", "fine": "FiNE", "kne": "KNE"}
HEAD = """# The papers' tables

Every table and figure of the four papers by one command, with your model and your copy of the data:

```bash
easyedit-neuron paper list
easyedit-neuron paper show nmke-table-1  # protocol, methods with their settings, published numbers
easyedit-neuron paper run nmke-table-1 model=llama3-8b-instruct model.path=/models/llama3 \\
    data.zsre=zsre.json data.counterfact=counterfact-edit.json edits=100 methods=NMKE,AlphaEdit
```

`run` makes a run per data set and method, goes on where it was interrupted, and prints means with 95%
bootstrap intervals over records. Where the checkpoint is the paper's, the paper's numbers and the
difference stand below. Model names are those of the shipped settings, and `edits` is at most so many.

*sequential*: edits one after another, all measured after the last. *single*: each on the untouched model.
*study*: made by a [study](neurons.md). *none*: not made here. What the text of a paper cannot tell (numbers
of edits, records, settings) is filled in by us, and the notes of `paper show` say so; they also name what
contradicts itself in a paper.
"""


CHECKPOINT_HEAD = """## Which checkpoint a name means

One name, one checkpoint, for every method; base and instruct never share a name. EasyEdit's own methods (FT,
KN, LoRA, PMET, WISE) take the file of the same architecture from EasyEdit's folder, with this checkpoint,
where none ships with us.

| name | checkpoint | in tables and figures of |
|---|---|---|
"""


def page(folder: Path) -> str:
    """The Markdown page; ``folder``: of the tables that were made."""
    parts = [HEAD, _checkpoints()]
    for paper in PAPERS:
        items = entries(paper)
        rows = ["| name | shows | protocol | edits | data | models | not here |", "|" + "---|" * 7]
        rows += [_row(item) for item in items.values()]
        parts.append(f"## {TITLES[paper]}\n\n" + "\n".join(rows) + "\n")
        files = [folder / f"{name}.md" for name in items]
        parts += [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    return "\n".join(parts)


def _checkpoints() -> str:
    rows = []
    for name, checkpoint in CHECKPOINTS.items():
        used = [TITLES[p] for p in PAPERS if any(name in item.models for item in entries(p).values())]
        if used:
            rows.append(markdown_line([f"`{name}`", checkpoint, ", ".join(used)]))
    return CHECKPOINT_HEAD + "\n".join(rows) + "\n"


def _row(item: Entry) -> str:
    without_code = [label for label, text in item.methods.items() if text is None]
    absent = [*item.needs, *([f"no code for {', '.join(without_code)}"] if without_code else [])]
    size = "" if item.size is None else str(item.size)
    cells = [f"`{item.name}`", item.title, item.protocol, size, ", ".join(item.data), ", ".join(item.models)]
    return markdown_line([*cells, "; ".join(absent)])


if __name__ == "__main__":
    sys.stdout.write(page(Path(sys.argv[1])))
