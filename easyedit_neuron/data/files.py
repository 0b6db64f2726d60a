"""Records of a file: JSON, JSON Lines, tables (CSV, TSV), Parquet; also gzipped, whatever the name says."""

import csv
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..utils.plain_trees import parse_json

TABLES = {".csv": None, ".tsv": "\t", ".tab": "\t"}
"""Suffix -> what divides the cells; None: told from the header."""
DIVIDERS = ",;\t"
MOST_BYTES = 2**30
"""Of a gzipped file when it is unpacked; a few kilobytes could fill the memory."""
SECTIONS = ("locality", "portability")


def read_records(path: Path) -> list[Any]:
    """The records of a file, at least one.

    JSON is a list of records; JSON Lines has one a line. The first line of a table has the names of the
    fields; empty cells are absent, cells that are JSON lists or objects are read as such, and a probe has
    columns such as ``locality.KIND.prompt`` and ``locality.KIND.ground_truth``.

    Raises:
        DataError: the file cannot be read, is none of these, or holds no records; it names the line.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
                content = unpacked.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise DataError(f"{path}: holds more than {MOST_BYTES:,} bytes; unpack it, if it is yours")
    except (OSError, EOFError, zlib.error) as problem:
        raise DataError(f"{path}: cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    if content[:4] == b"PAR1":
        records: Any = _parquet(path)
    else:
        text = _decoded(path, content)
        suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
        if suffix.lower() in TABLES:
            records = _table(path, text, TABLES[suffix.lower()])
        else:
            records = _json(path, text, lines=suffix.lower() in (".jsonl", ".ndjson"))
    if not isinstance(records, list):
        raise DataError(f"{path}: must hold a list of records, found {type(records).__name__}")
    if not records:
        raise DataError(f"{path}: holds no records")
    return records


def _decoded(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        remedy = "save it as UTF-8"
        raise DataError(
            f"{path}: is not UTF-8 text: {problem.reason} at byte {problem.start}; {remedy}"
        ) from None


def _json(path: Path, text: str, lines: bool) -> Any:
    """A JSON value, or the list of those in the lines if there are several."""
    if not lines:
        try:
            return parse_json(text)
        except ValueError as problem:
            first = text.lstrip().split("\n", 1)[0]
            if getattr(problem, "msg", "") != "Extra data" or not _is_object(first):
                raise DataError(f"{path}: is not valid JSON: {_where(problem)}") from None
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                records.append(parse_json(line))
            except ValueError as problem:
                place = _where(problem, number)
                raise DataError(f"{path}: is not valid JSON Lines: {place}") from None
    return records


def _where(problem: ValueError, line: int | None = None) -> str:
    """What is wrong with a JSON text, and in which line of the file."""
    if isinstance(problem, json.JSONDecodeError):
        return f"{problem.msg} at line {line or problem.lineno}, column {problem.colno}"
    return str(problem) if line is None else f"line {line} {problem}"


def _is_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _table(path: Path, text: str, divider: str | None) -> list[dict[str, Any]]:
    header = text.split("\n", 1)[0]
    divider = divider or max(DIVIDERS, key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=divider, strict=True))
    except csv.Error as problem:
        raise DataError(f"{path}: is not a valid table: {problem}") from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return []
    names = [name.strip() for name in rows[0]]
    records = []
    for number, row in enumerate(rows[1:]):
        if len(row) > len(names):
            raise DataError(
                f"{path}: record {number}: {len(row)} cells for {len(names)} columns; put texts that contain "
                f"{divider!r} in quotes"
            )
        records.append(_nested({name: _cell(cell) for name, cell in zip(names, row) if cell.strip()}))
    return records


def _cell(text: str) -> Any:
    if text.strip()[:1] in "[{":
        try:
            return parse_json(text)
        except ValueError:
            pass  # a text that begins with a bracket
    return text


def _nested(record: dict[str, Any]) -> dict[str, Any]:
    """Columns ``locality.KIND.prompt`` as ``{"locality": {KIND: [{"prompt": ...}]}}``."""
    result: dict[str, Any] = {}
    for name, value in record.items():
        parts = name.split(".")
        if len(parts) == 3 and parts[0] in SECTIONS:
            probes = result.setdefault(parts[0], {}).setdefault(parts[1], [{}])
            probes[0][parts[2]] = value
        else:
            result[name] = value
    return result


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError:
        raise DataError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        records = read_table(path).to_pylist()
    except (ArrowException, OSError) as problem:
        raise DataError(f"{path}: is not valid Parquet: {problem}") from None
    return [{name: value for name, value in record.items() if value is not None} for record in records]
