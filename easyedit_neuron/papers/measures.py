"""The columns of the papers' tables, from the metrics of a run or of single edits."""

from typing import Any

KINDS = {
    "saa": ("portability.Subject_Aliasing",),
    "lga": ("portability.Logical_Generalization",),
    "ra": ("portability.reasoning", "portability.one_hop"),
    "rsa": ("locality.Relation_Specificity",),
    "fa": ("locality.Forgetfulness",),
}
"""Column -> its kinds in KnowEdit's files (zsRE's question is ``one_hop``)."""
ABILITIES = ("mmlu", "gsm8k", "commonsense_qa", "bbh", "humaneval")
EXACT = ("rel_exact", "gen_exact", "loc_exact")
OF_RECORDS = ("rel", "gen", "loc", "port", *KINDS, *EXACT, "over_edited", "unchanging")
"""Columns with a value for every record, so that there are intervals over records."""
OF_MODEL = ("fluency", "seconds", "memory_gb", "parameters", *ABILITIES)
OF_STUDIES = {
    "contribution": "contribution of a neuron to a token of the object (meanings)",
    "accuracy_before": "accuracy on the tasks whose neurons are silenced, before (ablation)",
    "drop_own": "how far that accuracy falls (ablation)",
    "wasserstein": "1-Wasserstein distance of the entries of a row, mean over rows (drift)",
    "cosine": "cosine of a row before and after, mean over rows (drift)",
    "cosine_std": "its standard deviation over rows (drift)",
    "l2": "L2 distance of a row before and after, mean over rows (drift)",
    "l2_std": "its standard deviation over rows (drift)",
}
"""Columns of the papers that a study writes."""
MEASURES = {
    "rel": "share of the new object's tokens that are predicted, teacher-forced",
    "gen": "the same after a rephrasing",
    "loc": "share of tokens of unrelated answers that are as before",
    "port": "portability: mean over its kinds",
    "saa": "portability to another name of the subject",
    "lga": "portability by logic: inverse relations, several answers",
    "ra": "portability by a second hop",
    "rsa": "locality of other relations of the subject",
    "fa": "locality of other objects of a relation with several",
    "rel_exact": "share of edited prompts whose every token is predicted (PNKE, Eq. 11)",
    "gen_exact": "the same after a rephrasing",
    "loc_exact": "share of unrelated prompts whose every token is as before",
    "over_edited": "over-editing rate: answers to other facts of the subject that begin with the new object",
    "unchanging": "unchanging rate: answers to them that are what they were before the edit",
    "fluency": "n-gram entropy of what the model writes, times 100",
    "seconds": "seconds of an edit",
    "memory_gb": "peak memory",
    "parameters": "parameters that an edit changes",
    **{name: f"{name}, by lm-eval" for name in ABILITIES},
    **OF_STUDIES,
}


def of_record(row: dict[str, Any], column: str) -> float | None:
    """A column of one record from its ``studies.single_edits.record_row``; None if the record has none."""
    if column in KINDS:
        values = (row["kinds"].get(name) for name in KINDS[column])
        return next((value for value in values if value is not None), None)
    value = row.get(column)
    return 100 * value if column == "fluency" and value is not None else value
