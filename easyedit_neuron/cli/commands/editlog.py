"""``easyedit-neuron log|undo|replay|diff|squash``: the edits of a run, one by one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import StateError
from ..report import show as write_out
from .common import add_model, chosen, load_base, log_folder

FOLDER = "folder of a run, or of its log"
WEIGHTS = "weights.safetensors"


def show(argv: list[str]) -> int:
    """``log FOLDER [--verify] [--json]``."""
    parser = argparse.ArgumentParser(
        prog="easyedit-neuron log",
        description="Lists the edits of a run: what was asked, what "
        "changed by how much, how good it was, and whether it is still in the weights.",
    )
    parser.add_argument("folder", metavar="FOLDER", help=FOLDER)
    parser.add_argument(
        "--verify", action="store_true", help="read every file and compare it with what was written"
    )
    parser.add_argument("--json", action="store_true", help="write the entries as JSON lines")
    given = parser.parse_args(argv)
    log = _open(given.folder)
    if given.verify:
        log.verify()
    if given.json:
        write_out("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in log.entries))
    else:
        write_out(_listed(log) + (f"\n{len(log.entries)} entries verified" if given.verify else "") + "\n")
    return 0


def undo(argv: list[str]) -> int:
    """``undo FOLDER ID [ID ...] --out DIR``."""
    parser = argparse.ArgumentParser(
        prog="easyedit-neuron undo",
        description="Takes single edits out of the weights of a run. "
        "FOLDER stays as it is; DIR gets the weights without them, and the log with an entry of it.",
    )
    parser.add_argument("folder", metavar="FOLDER", help=FOLDER)
    parser.add_argument(
        "ids", metavar="ID", nargs="+", type=int, help="edit, as 'easyedit-neuron log FOLDER' numbers them"
    )
    _add_out(parser)
    given = parser.parse_args(argv)
    from ...editlog import undo as take_out

    log = _open(given.folder)
    for number in given.ids:
        log.edit_entry(number)  # before a model is loaded
    model, _ = _base(log, given)
    _put_in_weights(log, model)

    def fill(part: Path) -> None:
        copy = log.copy(part / "log")
        for number in given.ids:
            take_out(model, copy, number)
        _save_weights(copy, model, part)

    _write(given.out, fill)
    told = "".join(f"edit {number} taken out: {_asked(log.edit_entry(number))}\n" for number in given.ids)
    write_out(told + _written(given.out, _open(given.out)))
    return 0


def replay(argv: list[str]) -> int:
    """``replay FOLDER --out DIR [--upto N] [--only IDS] [--without IDS]``."""
    parser = argparse.ArgumentParser(
        prog="easyedit-neuron replay",
        description="Makes the edits of a run again on the base "
        "model, all of them (the weights are then those of the run, bit for bit on the same kind "
        "of machine) or some.",
    )
    parser.add_argument("folder", metavar="FOLDER", help=FOLDER)
    parser.add_argument("--upto", type=int, metavar="N", help="stop after entry N")
    parser.add_argument("--only", metavar="3,5-9", help="only these edits")
    parser.add_argument("--without", metavar="3,5-9", help="all edits but these")
    _add_out(parser)
    given = parser.parse_args(argv)
    from ...editlog import EditLog
    from ...editlog import replay as make_again

    log = _open(given.folder)
    ids = log.ids_at(given.upto)
    only = None if given.only is None else chosen(ids, given.only, "--only")
    without = () if given.without is None else chosen(ids, given.without, "--without")
    selected = only is not None or bool(without)
    model, _ = _base(log, given)
    done: list[Any] = []

    def fill(part: Path) -> None:
        into = EditLog(part / "log", log.base.name, log.base.fingerprint) if selected else None
        done.append(make_again(log, model, upto=given.upto, only=only, without=without, into=into))
        _save_weights(into if into is not None else log.copy(part / "log", given.upto), model, part)

    _write(given.out, fill)
    exact = {
        True: "the weights are the log's, bit for bit",
        False: "the weights differ from the log's by rounding",
        None: "a selection: the weights are of these edits alone",
    }[done[0].exact]
    write_out(
        f"{len(done[0].ids)} edits on {given.model or log.base.name}; {exact}\n"
        + _written(given.out, _open(given.out))
    )
    return 0


def diff(argv: list[str]) -> int:
    """``diff A[@N] B[@N]``."""
    parser = argparse.ArgumentParser(
        prog="easyedit-neuron diff",
        description="Compares two runs, or two moments of one "
        "(FOLDER@17 is the state after entry 17): which edits, which weights, how far apart.",
    )
    parser.add_argument("a", metavar="A[@N]", help=FOLDER)
    parser.add_argument("b", metavar="B[@N]", help="the same of the other")
    parser.add_argument("--json", action="store_true", help="write JSON")
    given = parser.parse_args(argv)
    from ...editlog import diff as compare

    (first, upto_a), (second, upto_b) = _at(given.a), _at(given.b)
    found = compare(first, second, upto_a, upto_b)
    if given.json:
        write_out(json.dumps(vars(found)) + "\n")
        return 0
    lines = [
        f"edits in both: {len(found.both)}; only in A: {_numbers(found.only_a)}; only in B: {_numbers(found.only_b)}"
    ]
    if not found.same_base:
        lines.append("the base models differ: the norms below are of the changes alone")
    rows = [("parameter", "|A|", "|B|", "|A - B|", "cosine", "neurons A", "B", "both")]
    for name, about in found.parameters.items():
        cosine = "-" if about["cosine"] is None else f"{about['cosine']:.4f}"
        norms = (f"{about[key]:.4g}" for key in ("norm_a", "norm_b", "norm"))
        neurons = (str(about[f"neurons_{key}"]) for key in ("a", "b", "both"))
        rows.append((name, *norms, cosine, *neurons))
    write_out("\n".join(lines) + "\n\n" + _aligned(rows) + "\n")
    return 0


def squash(argv: list[str]) -> int:
    """``squash FOLDER --out DIR [--upto N]``."""
    parser = argparse.ArgumentParser(
        prog="easyedit-neuron squash",
        description="Makes one edit of all: a log with the total "
        "change of every weight, and which edits it is made of.",
    )
    parser.add_argument("folder", metavar="FOLDER", help=FOLDER)
    parser.add_argument("--upto", type=int, metavar="N", help="as of entry N")
    _add_out(parser)
    given = parser.parse_args(argv)
    from ...editlog import replay as make_again
    from ...editlog import squash as join

    log = _open(given.folder)
    ids = log.ids_at(given.upto)
    model, _ = _base(log, given)

    def fill(part: Path) -> None:
        one = join(log, part / "log", model, given.upto)
        make_again(one, model)
        _save_weights(one, model, part)

    _write(given.out, fill)
    one = _open(given.out)
    write_out(
        f"{len(ids)} edits as one: {one.entries[0]['bytes']:,} bytes, before {sum(log.edit_entry(n)['bytes'] for n in ids):,}\n"
        + _written(given.out, one)
    )
    return 0


# -- parts
# ---------------------------------------------------------------------------------------------------------------


def _open(folder: str):
    from ...editlog import EditLog

    return EditLog(log_folder(folder))


def _at(text: str):
    folder, at, number = text.rpartition("@")
    if not at or not number.isdigit() or Path(text).exists():
        return _open(text), None
    return _open(folder), int(number)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", required=True, help=f"folder that does not exist yet; gets {WEIGHTS} and log/"
    )
    add_model(parser, "base model (default: the one that the log names)")


def _base(log, given: argparse.Namespace):
    """The base model and its tokenizer, checked; refuses an ``--out`` that is there before it loads them."""
    from ...export.side_file import refuse_existing

    refuse_existing(Path(given.out))
    base = log.base
    model, tok = load_base(
        given.model or base.name, given.device, {about["dtype"] for about in base.weights.values()}
    )
    base.check(model)
    return model, tok


def _put_in_weights(log, model) -> None:
    """The weights that the newest entry left: those beside the log, or made again."""
    from safetensors.torch import load_file

    from ...editlog import replay as make_again
    from ...edits.write import restore

    file = log.folder.parent / WEIGHTS
    if not file.is_file():
        if make_again(log, model).exact is False:
            raise StateError(
                f"{file} is not there, and here the edits cannot be made again to the same bits; replay the log "
                "first, into a folder of its own, or work where the run was made"
            )
        return
    restore(model, {name: value for name, value in load_file(file).items() if name in log.base.weights})
    log.check_weights(model)


def _save_weights(log, model, folder: Path) -> None:
    from ...utils.io import save_tensors

    save_tensors(
        folder / WEIGHTS,
        {name: model.get_parameter(name) for name in log.base.weights},
        {"base": log.base.name},
    )


def _write(out: str, fill: Callable[[Path], None]) -> None:
    from ...utils.io import write_folder

    folder = Path(out).expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_folder(folder, fill)


def _written(out: str, log) -> str:
    weights = f"{Path(out) / WEIGHTS}: {len(log.base.weights)} weights with {len(log)} edits"
    return f"{weights}; {log.folder}: {len(log.entries)} entries\n"


def _listed(log) -> str:
    alive, entries = set(log.ids), log.entries
    rows = [("id", "edit", "method", "change", "|change|", "Rel", "")]
    for line in entries:
        if "file" not in line:
            rows.append(
                (str(line["id"]), f"{line['type']} {line.get('of', line.get('to'))}", "", "", "", "", "")
            )
            continue
        norm = sum(about["norm"] ** 2 for about in line["changes"].values()) ** 0.5
        rows.append(
            (
                str(line["id"]),
                _asked(line),
                line["method"],
                _changed(line),
                f"{norm:.3g}",
                _rel(line),
                "" if line["id"] in alive else "not in the weights",
            )
        )
    base = log.base
    size = sum(line.get("bytes", 0) for line in entries)
    return (
        f"{log.folder}: {len(alive)} edits in the weights, {len(entries)} entries, {size:,} bytes; base model {base.name}\n\n"
        + _aligned(rows)
    )


def _asked(line: dict[str, Any]) -> str:
    first = line["requests"][0]
    more = f" (and {len(line['requests']) - 1} more)" if len(line["requests"]) > 1 else ""
    text = f"{first['prompt']} -> {first['target_new']}"
    return (text if len(text) <= 60 else text[:57] + "...") + more


def _changed(line: dict[str, Any]) -> str:
    changes = list(line["changes"].values())
    neurons = sum(about["neurons"] for about in changes)
    ranks = {about["rank"] for about in changes if "rank" in about}
    form = f"rank {'/'.join(map(str, sorted(ranks)))}, " if ranks else ""
    return f"{len(changes)} weights, {form}{neurons} neurons"


def _rel(line: dict[str, Any]) -> str:
    found = [
        value
        for metrics in line["metrics"].get("immediate", ())
        if metrics
        for value in metrics.get("rewrite_acc", ())
    ]
    return f"{sum(found) / len(found):.3f}" if found else "-"


def _numbers(ids: list[int]) -> str:
    return (
        "none"
        if not ids
        else f"{len(ids)} ({', '.join(map(str, ids[:10]))}{', ...' if len(ids) > 10 else ''})"
    )


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )
