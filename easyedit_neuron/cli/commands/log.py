"""List the edits of a run: the request, what it changed and by how much, how well it was
learned, and whether it is still in the weights."""

import argparse
import json
import math
from typing import Any

from ...editlog import EditLog
from ..output import show
from .common import add_folder, aligned, describe_request, open_log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    parser.add_argument("--verify", action="store_true", help="check that no file was changed")
    parser.add_argument("--json", action="store_true", help="write the entries as JSON lines")


def run(args: argparse.Namespace) -> None:
    log = open_log(args.folder)
    if args.verify:
        log.verify()
    if args.json:
        show("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in log.entries))
    else:
        show(_table(log) + (f"\n{len(log.entries)} entries verified" if args.verify else "") + "\n")


def _table(log: EditLog) -> str:
    ids = set(log.ids)
    rows = [("id", "edit", "method", "change", "|change|", "Rel", "")]
    for entry in log.entries:
        if "file" not in entry:
            action = f"{entry['type']} {entry.get('of', entry.get('to'))}"
            rows.append((str(entry["id"]), action, "", "", "", "", ""))
            continue
        norm = math.hypot(*(change["norm"] for change in entry["changes"].values()))
        state = "" if entry["id"] in ids else "not in the weights"
        method = entry["method"] + (" in chat" if entry.get("use_chat_template") else "")
        texts = describe_request(entry), method, _changes(entry), f"{norm:.3g}", _rewrite(entry)
        rows.append((str(entry["id"]), *texts, state))
    size = sum(entry.get("bytes", 0) for entry in log.entries)
    return (
        f"{log.folder}: {len(ids)} edits in the weights, {len(log.entries)} entries, {size:,} bytes; "
        f"base model {log.base.name}\n\n{aligned(rows)}"
    )


def _changes(entry: dict[str, Any]) -> str:
    changes = list(entry["changes"].values())
    neurons = sum(change["neurons"] for change in changes)
    ranks = sorted({change["rank"] for change in changes if "rank" in change})
    rank = f"rank {'/'.join(map(str, ranks))}, " if ranks else ""
    return f"{len(changes)} weights, {rank}{neurons} neurons"


def _rewrite(entry: dict[str, Any]) -> str:
    metrics = [values for values in entry["metrics"].get("immediate", ()) if values]
    accuracies = [accuracy for values in metrics for accuracy in values.get("rewrite_acc", ())]
    return f"{sum(accuracies) / len(accuracies):.3f}" if accuracies else "-"
