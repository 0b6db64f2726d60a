"""Records of further benchmarks, as their authors' or EasyEdit's scripts read them.

- ``mquake``: MQuAKE, also AKEW's form of it. A record holds up to four edits; its multi-hop questions follow
  from all of them, and are probes of the last.
- ``ultraedit``: UltraEditBench, WikiBigEdit, and the zsRE of UltraEdit, with ``ans`` for the new object.
- ``halluedit``: HalluEditBench, whose columns ask for one fact in many ways.
- ``qaedit``: QAEdit, questions with a list of unrelated ones; the authors' script asks the first of these,
  here all are asked.
- ``cknowedit``: CKnowEdit, without subjects. EasyEdit takes what follows a fixed instruction, else all of the
  prompt.
"""

from collections.abc import Set
from typing import Any

from .parts import neighborhood_of, probe_of, request_of, templated
from .record import Record

HOPS = range(2, 7)
INSTRUCTIONS = (
    ("请填写下列古诗文的后一句：", ""),
    ("请解释", "中的意思。仅需给出该字意思即可，无需解释全文。"),
    ("请解释如下成语：", ""),
    ("请给下面的字注音：", ""),
    ("请解释如下俗语或谚语：", ""),
)
"""What stands before and behind a subject of CKnowEdit."""


def refused(keys: Set[str]) -> str | None:
    """Why records with these fields are no edits, or None."""
    if {"ent", "pos", "neg"} <= keys:
        return (
            "looks like ConvSent: a record holds opinions on an entity and no fact with a new object; it is "
            "no edit for the methods here"
        )
    if {"edit", "Logical_Generalization"} <= keys:
        return (
            "looks like RippleEdits' own file, in which a subject is a Wikidata number and an edit a whole "
            "sentence; KnowEdit's WikiData_recent and WikiData_counterfact hold its edits with all its "
            "categories, name one of these"
        )
    if {"question", "answer"} <= keys and {"para_question", "sub_question"} & keys:
        return (
            "looks like UnKE: a record is a question with a long answer and without a subject, at whose last "
            "token the methods here edit; add a field 'subject', and call the others 'prompt' and "
            "'target_new'"
        )
    return None


def from_mquake(record: Record) -> list[dict[str, Any]]:
    """The edits of a record, one request each."""
    requests = []
    for rewrite in record.children("requested_rewrite"):
        request = templated(rewrite)
        request["target_new"] = rewrite.child("target_new").string("str")
        request["ground_truth"] = rewrite.child("target_true").string("str")
        if question := rewrite.first("question"):
            request["rephrase_prompt"] = question
        requests.append(request | {"locality": {}, "portability": {}})
    if not requests:
        raise record.error("requested_rewrite", "is empty")
    requests[-1]["locality"] |= neighborhood_of(record)
    questions = record.strings("questions") if record.has("questions") else []
    if questions:
        answers = [record.string("new_answer")] * len(questions)
        requests[-1]["portability"]["multi_hop"] = {"prompt": questions, "ground_truth": answers}
    return requests


def from_ultraedit(record: Record) -> dict[str, Any]:
    """UltraEditBench (``prompt``), WikiBigEdit (``update``), zsRE (``src``)."""
    prompt = record.first_name("update", "prompt", "src")
    rephrase = record.first_name("rephrase", "rephrase_prompt")
    request = request_of(record, prompt, "ans", "ground_truth", rephrase)
    probes = {
        "locality": {"neighborhood": ("loc", "loc_ans")},
        "portability": {"personas": ("personas", "ans"), "mhop": ("mhop", "mhop_ans")},
    }
    for section, kinds in probes.items():
        for kind, (question, answer) in kinds.items():
            # Where there is no probe, WikiBigEdit has NaN.
            if all(isinstance(record.raw.get(name), str) for name in (question, answer)):
                request[section][kind] = probe_of(record, question, answer)
    return request


def from_halluedit(record: Record) -> dict[str, Any]:
    """A row of HalluEditBench: ``object`` is the right answer, which the model did not give.

    Its locality question has no answer, and is left out.
    """
    subject = record.string("subject")
    prompt = record.first("question") or f"What is the {record.string('relation')} of {subject}?"
    whole = record.with_fields(prompt=prompt, paraphrased=record.first("paraphrased_question"))
    request = request_of(whole, "prompt", "object", "ground_truth", "paraphrased")
    answers = {
        "yes": ("yes_question", "Yes"),
        "no": ("no_question", "No"),
        "multiple_choice": ("multiple_choice_with_letters", record.first("multiple_choice_labels")),
        "reversed": ("reversed_relation_question", subject),
        **{f"{hop}hop": (f"question_{hop}hop", record.first(f"answer_{hop}hop")) for hop in HOPS},
    }
    for kind, (name, answer) in answers.items():
        question = record.first(name)
        if question and answer:
            text = f"{prompt} {question}" if kind == "multiple_choice" else question
            request["portability"][kind] = {"prompt": text, "ground_truth": answer}
    return request


def from_qaedit(record: Record) -> dict[str, Any]:
    """A question of QAEdit, which does not say what the model answered before."""
    request = request_of(record, "prompt", "target", "ground_truth", "rephrase")
    probes = [probe_of(probe, "loc", "loc_ans") for probe in record.children("locality")]
    if probes:
        names = ("prompt", "ground_truth")
        request["locality"]["neighborhood"] = {name: [probe[name] for probe in probes] for name in names}
    return request


def from_cknowedit(record: Record) -> dict[str, Any]:
    """A record of CKnowEdit; the kinds of probes are called as in EasyEdit's example."""
    prompt = record.string("prompt")
    subject = record.first("subject") or _without_instruction(prompt)
    whole = record.with_fields(subject=subject)
    request = request_of(whole, "prompt", "target_new", "target_old", "rephrase")
    if isinstance(record.raw.get("rephrase"), list) and (texts := record.strings("rephrase")):
        request["paraphrase_prompts"] = texts
    for section, kind in (("locality", "loc_hop"), ("portability", "por_hop")):
        probes = record.children(section) if section in record.raw else []
        pairs = [(probe.first("prompt"), probe.first("answer")) for probe in probes]
        pairs = [(question, answer) for question, answer in pairs if question and answer]
        if pairs:
            questions, answers = map(list, zip(*pairs))
            request[section][kind] = {"prompt": questions, "ground_truth": answers}
    return request


def _without_instruction(prompt: str) -> str:
    for before, behind in INSTRUCTIONS:
        subject = prompt.replace(before, "")
        if before in prompt and behind in prompt and subject:
            return subject.replace(behind, "") if behind else subject
    return prompt
