"""The tables and figures of the four papers: "list" names them, "show NAME" says what one holds and needs,
"run NAME model=... data.<set>=FILE" makes its runs and prints what was measured beside what is printed."""

import argparse
import textwrap
from pathlib import Path

from ... import data, resources
from ...errors import NeuronEditError
from ...papers.comparing import comparison
from ...papers.entry import PAPERS, Entry, entries, entry
from ...papers.measures import MEASURES
from ...papers.running import Request
from ...papers.running import run as run_all
from ...utils.io import write_text
from ...utils.suggest import did_you_mean
from ..output import show
from .common import aligned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "show", "run"))
    parser.add_argument("name", nargs="?", help="of a table or figure; for list: of a paper")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="NAME=VALUE",
        help="of run: model, model.path, data.<set> (a file, real-world or tiny-world), edits (at most so "
        "many), methods (labels of the table, divided by commas), seed, output_dir; others are settings of "
        "every run",
    )


def run(args: argparse.Namespace) -> None:
    if args.action == "list":
        if args.name is not None and args.name not in PAPERS:
            raise NeuronEditError(f"no paper {args.name!r}: {', '.join(PAPERS)}")
        show(_listed(entries(args.name)))
    elif args.name is None:
        raise NeuronEditError(f"paper {args.action} needs a name: 'easyedit-neuron paper list' has them")
    elif args.action == "show":
        show(_described(entry(args.name)))
    else:
        _run(entry(args.name), args.settings)


def _listed(items: dict[str, Entry]) -> str:
    rows = [("name", "protocol", "edits", "data", "title")]
    for name, item in items.items():
        size = "-" if item.size is None else str(item.size)
        rows.append((name, item.protocol, size, ", ".join(item.data) or "-", item.title))
    return aligned(rows) + "\n"


def _described(item: Entry) -> str:
    facts = [
        ("protocol", item.protocol),
        ("data", ", ".join(item.data)),
        ("models", ", ".join(item.models)),
        ("edits", ", ".join(map(str, item.steps)) or ("" if item.records is None else str(item.records))),
        ("batch", str(item.batch_size) if item.protocol in ("sequential", "single") else ""),
        ("study", " ".join([item.study, *item.arguments]) if item.study else ""),
        ("needs", "; ".join(item.needs)),
    ]
    parts = [f"{item.name}: {item.title}", aligned([fact for fact in facts if fact[1]])]
    parts += [textwrap.fill(" ".join(item.notes.split()), 100)]
    if item.methods:
        rows = [(label, text or "no code here or in EasyEdit") for label, text in item.methods.items()]
        parts.append("methods\n" + aligned([(f"  {label}", text) for label, text in rows]))
    if item.columns:
        rows = [(f"  {column}", MEASURES[column]) for column in item.measured]
        parts.append("columns\n" + aligned(rows))
    parts += [_published(item, number) for number, group in enumerate(item.groups) if group.published]
    return "\n\n".join(part for part in parts if part) + "\n"


def _published(item: Entry, place: int) -> str:
    group = item.groups[place]
    steps = [str(step) for step in item.steps] or [""]
    rows = [("  method", "edits", *item.columns)]
    for label, published in group.published.items():
        for number, step in enumerate(steps[: len(published)]):
            rows.append((f"  {label}", step, *group.shown(label, number, len(item.columns))))
    return f"published, {group.data}, {group.model}\n{aligned(rows)}"


def _run(item: Entry, settings: list[str]) -> None:
    request = _request(item, settings)
    failed = run_all(request)
    if item.protocol != "study":  # a study has printed the paths of its tables and pictures
        text = comparison(request)
        path = request.out / f"{item.name}.md"
        write_text(path, text)
        show(f"{text}\n{path}\n")
    if failed:
        raise NeuronEditError(f"these runs failed, see above: {'; '.join(failed)}")


def _request(item: Entry, settings: list[str]) -> Request:
    if item.protocol == "none":
        raise NeuronEditError(f"{item.name} cannot be made here; it needs {'; '.join(item.needs)}")
    values = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise NeuronEditError(f"{setting!r} is no setting: write NAME=VALUE")
        values[name] = value
    model, path = values.pop("model", None), values.pop("model.path", None)
    if model is None:
        raise NeuronEditError(
            "model=NAME is missing: a model with shipped settings, such as llama3-8b-instruct"
        )
    resources.require_model(path or model)
    request = Request(
        entry=item,
        model=model,
        path=path,
        data=_data(item, values),
        out=Path(values.pop("output_dir", f"paper/{item.name}")),
        methods=_methods(item, values.pop("methods", "")),
        edits=_whole(values, "edits", 1),
        seed=_whole(values, "seed", 0) or 0,
        settings=[f"{name}={value}" for name, value in values.items()],
    )
    if request.settings and item.protocol != "sequential":
        raise NeuronEditError(f"{request.settings[0]!r}: a {item.protocol} table has no such setting")
    request.out.mkdir(parents=True, exist_ok=True)
    return request


def _data(item: Entry, values: dict[str, str]) -> dict[str, str]:
    """Data set -> file; ``data.path`` stands for the one set of a table."""
    given = {name: values.pop(f"data.{name}", None) for name in item.data}
    if len(item.data) == 1 and "data.path" in values:
        given[item.data[0]] = values.pop("data.path")
    for name in [name for name in values if name.startswith("data.")]:
        raise NeuronEditError(f"{item.name} has no {name}: its data are {', '.join(item.data)}")
    missing = [f"data.{name}=FILE" for name, place in given.items() if not place]
    if missing:
        raise NeuronEditError(f"{item.name} needs its data: {' '.join(missing)}")
    files = {name: place for name, place in given.items() if place}
    for name, place in files.items():
        if place not in resources.SHIPPED_DATA:
            if not Path(place).expanduser().is_dir():  # of MMLU
                data.load(place, size=1)  # a wrong path is said before a run
            files[name] = str(Path(place).expanduser().resolve())
    return files


def _methods(item: Entry, text: str) -> list[str]:
    labels = [label.strip() for label in text.split(",") if label.strip()]
    for label in labels:
        if label not in item.methods:
            suggestion = did_you_mean(label, item.methods)
            raise NeuronEditError(f"methods: no method {label!r} in {item.name}: {suggestion}")
        if item.methods[label] is None:
            raise NeuronEditError(f"methods: {label!r} has no code here or in EasyEdit")
    return labels


def _whole(values: dict[str, str], name: str, least: int) -> int | None:
    text = values.pop(name, None)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < least:
        raise NeuronEditError(f"{name}={text}: must be a whole number of at least {least}")
    return int(text)
