"""The columns of the papers' tables, from the metrics of a run or of single edits."""

from collections.abc import Sequence
from typing import Any

from ..lifelong.measurer import mean_of_kinds
from ..utils.lists import mean

SHARES = {"rel": "rewrite_acc", "gen": "rephrase_acc"}
GROUPS = {"loc": "locality", "port": "portability"}
KINDS = {
    "saa": ("portability", "Subject_Aliasing"),
    "lga": ("portability", "Logical_Generalization"),
    "ra": ("portability", "reasoning", "one_hop"),
    "rsa": ("locality", "Relation_Specificity"),
    "fa": ("locality", "Forgetfulness"),
}
"""Column -> group and names of its kind in KnowEdit's files (zsRE's question is ``one_hop``)."""
ABILITIES = ("mmlu", "gsm8k", "commonsense_qa", "bbh", "humaneval")
OF_RECORDS = (*SHARES, *GROUPS, *KINDS)
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
    "fluency": "n-gram entropy of what the model writes, times 100",
    "seconds": "seconds of an edit",
    "memory_gb": "peak memory",
    "parameters": "parameters that an edit changes",
    **{name: f"{name}, by lm-eval" for name in ABILITIES},
    **OF_STUDIES,
}


def shares(metrics: dict[str, Any], columns: Sequence[str]) -> dict[str, float | None]:
    """The columns of one record from its plain metrics; None for what the record does not have."""
    values: dict[str, float | None] = {}
    for column in columns:
        if column in SHARES:
            values[column] = mean(metrics.get(SHARES[column]) or ())
        elif column in GROUPS:
            values[column] = mean_of_kinds(metrics.get(GROUPS[column], {}))
        elif column in KINDS:
            group, *names = KINDS[column]
            kinds = [metrics.get(group, {}).get(f"{name}_acc") for name in names]
            values[column] = mean(next((kind for kind in kinds if kind), ()))
    return values
