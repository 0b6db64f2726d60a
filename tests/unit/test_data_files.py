"""Files that people have: JSON Lines, byte order marks, tables, gzip, Parquet; tables of pandas, datasets."""

import csv
import gzip
import json

import pytest

from easyedit_neuron import data
from easyedit_neuron.data import files
from easyedit_neuron.data.files import read_records
from easyedit_neuron.errors import DataError

RECORDS = [
    {
        "prompt": "Zoë Núñez was born in",
        "subject": "Zoë Núñez",
        "target_new": "Paris",
        "ground_truth": "Rome, Italy",
    },
    {
        "prompt": 'The "Old" Inn is in',
        "subject": 'The "Old" Inn',
        "target_new": "Oslo",
        "rephrase_prompt": "Where is\nit",
    },
]
REQUESTS = [
    record | {"locality": {}, "portability": {}, "ground_truth": record.get("ground_truth")}
    for record in RECORDS
]


WHOLE = [{key: record.get(key) for key in (*RECORDS[0], "rephrase_prompt")} for record in RECORDS]


def as_lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def as_table(records, divider):
    import io

    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(k for r in records for k in r)), delimiter=divider)
    table.writeheader()
    table.writerows(records)
    return text.getvalue()


FORMS = {
    "edits.json": json.dumps(RECORDS, ensure_ascii=False),
    "edits.jsonl": as_lines(RECORDS),
    "lines.json": as_lines(RECORDS),  # by another name
    "blank-lines.ndjson": "\n" + as_lines(RECORDS).replace("\n", "\n\n"),
    "windows.jsonl": as_lines(RECORDS).replace("\n", "\r\n"),
    "edits.csv": as_table(RECORDS, ","),
    "semicolons.csv": as_table(RECORDS, ";"),
    "edits.tsv": as_table(RECORDS, "\t"),
    "EDITS.CSV": as_table(RECORDS, ","),
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_the_same_requests(name, mark, tmp_path):
    content = mark + FORMS[name].encode()
    (tmp_path / name).write_bytes(content)
    assert data.load(tmp_path / name) == REQUESTS
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    assert data.load(tmp_path / f"{name}.gz") == REQUESTS


def test_a_single_line(tmp_path):
    (tmp_path / "one.jsonl").write_text(as_lines(RECORDS[:1]))
    assert data.load(tmp_path / "one.jsonl") == REQUESTS[:1]


def test_probes_in_a_table(tmp_path):
    record = RECORDS[0] | {
        "locality.near.prompt": "Oslo is in",
        "locality.near.ground_truth": "Norway",
        "portability": json.dumps({"hop": [{"prompt": "She speaks", "ground_truth": [["French"]]}]}),
    }
    (tmp_path / "edits.csv").write_text(as_table([record, RECORDS[0]], ","))
    first, second = data.load(tmp_path / "edits.csv")
    assert first["locality"] == {"near": {"prompt": ["Oslo is in"], "ground_truth": ["Norway"]}}
    assert first["portability"] == {"hop": {"prompt": ["She speaks"], "ground_truth": ["French"]}}
    assert second == REQUESTS[0]


WRONG = {
    "cut.json": ('[{"prompt": "a"', "is not valid JSON: .* at line 1, column"),
    "cut.jsonl": (as_lines(RECORDS) + '{"prompt": \n', "is not valid JSON Lines: .* at line 3, column 12"),
    "cut-lines.json": (
        as_lines(RECORDS) + '{"prompt": \n',
        "is not valid JSON Lines: .* at line 3, column 12",
    ),
    "object.json": ('{"a": 1}', "must hold a list of records, found dict"),
    "empty.json": ("[]", "holds no records"),
    "empty.jsonl": ("\n\n", "holds no records"),
    "header.csv": ("prompt,subject,target_new\n", "holds no records"),
    "empty.csv": ("", "holds no records"),
    "cells.csv": ("prompt,subject\na,b,c\n", "record 0: 3 cells for 2 columns; put texts that contain ','"),
    "quotes.csv": ('prompt,subject\n"a"b,c\n', "is not a valid table"),
    "number.jsonl": ("3\n4\n", "record 0 must be a mapping, found int"),
    "columns.csv": ("question,answer\na,b\n", "record 0: unknown shape, the fields are answer, question"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(name, tmp_path):
    content, message = WRONG[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        data.load(tmp_path / name)


@pytest.mark.parametrize(
    "content, message",
    [
        ("Zoë".encode("latin-1"), "is not UTF-8 text: .* at byte 2; save it as UTF-8"),
        (gzip.compress(b"[]", mtime=0)[:-9], "cannot be read"),
        (b"PAR1 and no more", "Parquet"),
    ],
)
def test_damaged_bytes(content, message, tmp_path):
    (tmp_path / "edits.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_records(tmp_path / "edits.json")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    path = tmp_path / "edits.json.gz"
    path.write_bytes(gzip.compress(b" " * 998 + b"[]"))
    with pytest.raises(DataError, match="holds no records"):
        read_records(path)
    path.write_bytes(gzip.compress(b" " * 10_000 + b"[]"))
    with pytest.raises(DataError, match="holds more than 1,000 bytes; unpack it"):
        read_records(path)


def test_parquet(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(WHOLE), tmp_path / "edits.parquet")
    assert data.load(tmp_path / "edits.parquet") == REQUESTS


def test_pandas_tables():
    pandas = pytest.importorskip("pandas")
    assert data.load(pandas.DataFrame(RECORDS)) == REQUESTS
    with pytest.raises(DataError, match="holds no records"):
        data.load(pandas.DataFrame(RECORDS[:0]))


def test_objects_of_datasets():
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(WHOLE)
    assert data.load(dataset) == REQUESTS
    with pytest.raises(DataError, match="one split of a DatasetDict, .*; it has 'train', 'test'"):
        data.load(datasets.DatasetDict({"train": dataset, "test": dataset}))


def test_a_subject_in_another_spelling(tmp_path):
    import unicodedata

    record = RECORDS[0] | {"subject": unicodedata.normalize("NFD", " Zoë Núñez ")}
    (tmp_path / "edits.jsonl").write_text(as_lines([record]))
    assert data.load(tmp_path / "edits.jsonl") == REQUESTS[:1]
