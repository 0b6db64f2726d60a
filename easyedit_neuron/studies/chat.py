"""Whether edits should be made inside the chat template of an instruct model, and whether they hold there.

``python -m easyedit_neuron.studies.chat --model smollm2-135m-instruct --methods Lasting MEMIT --edits 20``

The same sequential edits are made with ``use_chat_template`` and without. After the last one all are asked in
both forms. Locality compares with the untouched model's answers in the form that is asked.
"""

import argparse
from typing import Any

from .. import data
from ..arch.chat import chat_tokenizer
from ..errors import EditError
from ..evaluation import evaluate_all, locality_reference, summarize
from ..utils.lists import mean
from .command import Study, add_data, add_model, hparams_of, load, positive
from .output import Result, Table
from .untouched import Untouched

FORMS = {False: "plain", True: "in chat"}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_data(parser, 20)
    parser.set_defaults(data="real-world")
    parser.add_argument("--part", default="choose", choices=("choose", "report", "all"), help="of the data")
    parser.add_argument(
        "--methods", nargs="+", default=["Lasting", "AlphaEdit"], help="with their shipped settings"
    )
    parser.add_argument("--batch-size", type=positive, default=1, help="edits that are made together (1)")


def measure(args: argparse.Namespace) -> Result:
    device = {"device": args.device} if args.device else {}
    requests = data.load(args.data, size=args.edits, part=args.part)
    studied = load(args)
    subject = Untouched(studied.model, studied.tok)
    askers = {False: studied.tok, True: chat_tokenizer(studied.tok)}
    references = {form: locality_reference(studied.model, tok, requests) for form, tok in askers.items()}
    before = {form: _measures(subject, askers[form], requests, references[form]) for form in FORMS}
    rows = [{"method": "none", "edited": "", "asked": FORMS[form], **before[form]} for form in FORMS]
    for method in args.methods:
        for edited_form in FORMS:
            fields = {"use_chat_template": edited_form, "batch_size": args.batch_size, **device}
            hparams = hparams_of(method, args.model, None, **fields)
            failed = 0
            try:
                for start in range(0, len(requests), args.batch_size):
                    batch = requests[start : start + args.batch_size]
                    try:
                        subject.edit(batch, hparams)
                    except EditError:
                        failed += len(batch)
                for form, tok in askers.items():
                    values = _measures(subject, tok, requests, references[form])
                    row = {"method": method, "edited": FORMS[edited_form], "asked": FORMS[form]}
                    rows.append(row | values | {"failed": failed})
            finally:
                subject.restore()
    note = f"{len(requests)} sequential edits of {args.data}, on {args.model}; all asked after the last one"
    return Result("chat", "Edits inside and outside the chat template", note, [], [Table("chat", note, rows)])


def _measures(subject: Untouched, tok, requests: list[dict], reference: list) -> dict[str, Any]:
    """Rel, Gen, Port, Loc, and the shares of whole greedy answers that say the new object (0 to 1).

    The tokenizer decides the form of every prompt, that of locality too.
    """
    model, size = subject.edited, subject.batch_size
    metrics = evaluate_all(model, tok, requests, reference, size, whole_answers=True)
    summary = summarize(metrics)
    return {
        "rel": summary["rewrite_acc"],
        "gen": summary.get("rephrase_acc"),
        "port": mean(summary.get("portability", {}).values()),
        "loc": mean(summary.get("locality", {}).values()),
        "rel_says": summary["rewrite_answer_says"],
        "gen_says": summary.get("rephrase_answer_says"),
    }


main = Study("chat", __doc__ or "", _add_arguments, measure).main

if __name__ == "__main__":
    raise SystemExit(main())
