"""Records of EasyEdit's dataset objects, in the shapes of the files that they were read from."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DataError

_KNOWEDIT_FIELDS = {
    "portability": {
        "Reasoning": "portability_r",
        "Subject_Aliasing": "portability_s",
        "Logical_Generalization": "portability_l",
    },
    "locality": {"Relation_Specificity": "locality_rs", "Forgetfulness": "locality_f"},
}
"""KnowEditDataset's names of the kinds of probes."""


def records_of(dataset: Sequence[Any]) -> list[Any]:
    """The records of a list, a map-style dataset or a pandas table, as a file would hold them.

    ``KnowEditDataset`` spreads the probes over fields of their own, and they are collected again; the other
    classes give flat records already. ``DataError`` for an object without length or records, or a
    ``ZsreDataset``, which leaves out the subject.
    """
    name = type(dataset).__name__
    if hasattr(dataset, "to_dict") and hasattr(dataset, "columns"):  # pandas
        rows = dataset.to_dict("records")
        dataset = [{key: value for key, value in row.items() if not _is_missing(value)} for row in rows]
    if isinstance(dataset, Mapping) and all(hasattr(part, "column_names") for part in dataset.values()):
        splits = ", ".join(map(repr, dataset))
        raise DataError(f"data must be one split of a {name}, as in dataset['train']; it has {splits}")
    if isinstance(dataset, Mapping) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(f"data must be a path, a shipped name, or records with a length, not {name}")
    records = [dataset[index] for index in range(len(dataset))]
    if not records:
        raise DataError(f"{name}: holds no records")
    if isinstance(records[0], dict) and "cond" in records[0] and not {"subject", "src"} & set(records[0]):
        reason = "EasyEdit's class leaves it out"
        raise DataError(f"{name}: its records have no subject ({reason}); give the JSON file")
    return [_with_collected_probes(record) for record in records]


def _is_missing(value: Any) -> bool:
    """None, or the NaN that pandas has for an empty cell."""
    return value is None or (isinstance(value, float) and value != value)


def _with_collected_probes(record: Any) -> Any:
    fields = {field for kinds in _KNOWEDIT_FIELDS.values() for field in kinds.values()}
    if not isinstance(record, dict) or not fields <= set(record):
        return record
    collected = {name: value for name, value in record.items() if name not in fields}
    for section, kinds in _KNOWEDIT_FIELDS.items():
        probes = {kind: record[field] for kind, field in kinds.items()}
        collected[section] = {kind: value for kind, value in probes.items() if value is not None}
    return collected
