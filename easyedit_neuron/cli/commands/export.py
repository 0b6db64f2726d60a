"""Write the edits that are in the weights of a run as a PEFT adapter, as a sparse file of the
rows that they touch, as a whole checkpoint, or as GGUF for llama.cpp."""

import argparse
from pathlib import Path
from typing import Any

from ...editlog import EditLog
from ...errors import NeuronEditError
from ...export import export_gguf, export_merged, export_peft, export_sparse, size_table, sizes
from ...export.adapter import check_truncation
from ...export.side_file import Exported, refuse_existing
from ...lifelong.run_folder import RunFolder
from ...utils.plain_trees import read_json
from ...utils.shown import count_edits
from ..output import show
from .common import add_folder, add_model, load_base_of, open_log, select_edits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder(parser)
    parser.add_argument("--to", choices=("peft", "sparse", "merged", "gguf"), help="form")
    parser.add_argument("--out", metavar="DIR", help="folder to create")
    parser.add_argument("--sizes", action="store_true", help="write nothing, only the bytes of every form")
    parser.add_argument("--edits", metavar="3,5-9", help="only these (default: all that are in the weights)")
    help_text = "peft: cut every change to rank N, and report what is lost"
    parser.add_argument("--max-rank", type=int, metavar="N", help=help_text)
    help_text = "peft: cut to the lowest rank with this share of the squared singular values"
    parser.add_argument("--energy", type=float, metavar="SHARE", help=help_text)
    help_text = "name of the base model in what is written (default: that of --model, or of the log)"
    parser.add_argument("--base-name", metavar="HUB_ID", help=help_text)
    add_model(parser)


def run(args: argparse.Namespace) -> None:
    if not args.sizes and (args.to is None or args.out is None):
        raise NeuronEditError("--to and --out are needed, or --sizes")
    if args.to != "peft" and not args.sizes and (args.max_rank is not None or args.energy is not None):
        raise NeuronEditError("--max-rank and --energy are for --to peft")
    check_truncation(args.max_rank, args.energy)
    log = open_log(args.folder)
    ids = select_edits(log.ids, args.edits)
    if not args.sizes:
        refuse_existing(Path(args.out))
    model, tok = load_base_of(log, args)
    records = [log[number] for number in ids]
    if args.sizes:
        show(size_table(sizes(records, model, args.max_rank, args.energy)))
        return
    names = {"base": args.base_name or args.model or log.base.name, "ids": ids}
    measured = _measured(log, ids)
    if args.to == "peft":
        cut = {"max_rank": args.max_rank, "energy": args.energy}
        exported = export_peft(records, model, args.out, tok=tok, measured=measured, **cut, **names)
    elif args.to == "sparse":
        exported = export_sparse(records, model, args.out, **names)
    else:
        write = export_merged if args.to == "merged" else export_gguf
        exported = write(records, model, tok, args.out, measured=measured, **names)
    show(_description(exported, len(ids)))


def _measured(log: EditLog, ids: list[int]) -> dict[str, Any] | None:
    """What the run of the log has measured at its end; None for another choice of edits, or no such run."""
    summary_file = RunFolder(log.folder.parent).summary
    if log.folder.name != "log" or not summary_file.is_file() or len(ids) != len(log.entries):
        return None
    summary = read_json(summary_file)
    requests = sum(len(entry["requests"]) for entry in log.entries)
    if requests != summary["edits"] - summary["failed"]:  # edited by hand since
        return None
    final, intervals = summary["results"]["final"], summary["intervals"]
    measures = ("rewrite_acc", "rephrase_acc", "loc", "port")
    measured = {name: [final[name], *intervals[name]] for name in measures if intervals.get(name)}
    return measured | {"retained": final.get("retained")}


def _description(exported: Exported, count: int) -> str:
    side_file = exported.side_file
    kind, parameters = side_file["kind"], side_file["parameters"]
    size = f"{exported.size:,} bytes, {len(parameters)} parameters"
    lines = [f"{count_edits(count)} as {kind}: {exported.folder} ({size})"]
    if kind == "peft":
        ranks = [parameter["rank"] for parameter in parameters.values()]
        worst = max(parameters, key=lambda name: parameters[name]["truncation"])
        truncation = parameters[worst]["truncation"]
        loss = f"at most {truncation:.2%} of a weight's change is lost, in {worst}"
        lines.append(f"ranks {min(ranks)} to {max(ranks)}; {loss if truncation else 'nothing is lost'}")
        deviation, dtype = max(each["deviation"] for each in parameters.values()), side_file["base"]["dtype"]
        within = f"are within {deviation:.1e} of their change from it"
        lines.append(f"the edited model's weights, rounded to {dtype}, {within}")
        if "rewrite_acc" in side_file:
            accuracy = side_file["rewrite_acc"]
            cut = f"{accuracy['cut']:.3f} with the cut adapter"
            lines.append(f"rewrite_acc {accuracy['edited']:.3f} with the whole edits, {cut}")
        lines.append(_vllm(side_file["vllm"]))
        lines.append(f"load it: peft.PeftModel.from_pretrained(model, {str(exported.folder)!r})")
    return "\n".join(lines) + "\n"


def _vllm(check: dict[str, Any]) -> str:
    if check["problems"]:
        return f"vLLM would refuse it: {check['problems'][0]}"
    return f"with vLLM: --enable-lora --max-lora-rank {check['max_lora_rank']} --lora-modules edits=DIR"
