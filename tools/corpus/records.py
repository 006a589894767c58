"""Reads the documents of one input file with bounded memory.

A text file is one document; so is a JSON value (a line, or an element of an array) or a row of
Parquet.
"""

from __future__ import annotations

import hashlib
import io
import json
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from tools.corpus.errors import InputError
from tools.corpus.inputs import InputFile
from tools.corpus.streams import CUT_SHORT, JsonValues, opened

MAX_RECORD_BYTES = 64 << 20
"""Largest JSON value, Parquet value or compressed text, which are held in memory."""
_PARQUET_BATCH_BYTES = 2 << 20
_PARQUET_BUFFER_BYTES = 1 << 20
# By the first bytes of a file, none of which can begin UTF-8 text.
_OTHER_FORMATS = {
    b"\x1f\x8b": "compressed with gzip; name it {name}.gz, or decompress it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; name it {name}.zst, or decompress it",
    b"\xfd7zXZ\0": "compressed with xz; decompress it",
    b"\xff\xfe": "UTF-16; convert it with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16; convert it with iconv -f UTF-16 -t UTF-8",
}
# By first bytes that might begin a text too, of files that are no UTF-8.
_BINARY_FORMATS = {
    b"BZh": "compressed with bzip2; decompress it",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"PAR1": "Parquet; name it {name}.parquet",
    b"ARROW1": "Arrow; write it as Parquet",
    b"%PDF-": "PDF; extract its text",
}


@dataclass(frozen=True, slots=True)
class Record:
    """Document `number` (from 0) of a file.

    `data` holds its UTF-8 bytes, or None for a long text file, which must be streamed from the file
    itself. `cursor` is the byte offset after it in a plain .jsonl file, else 0. `consumed` counts
    the bytes of the file read so far, for progress.
    """

    number: int
    data: bytes | None
    cursor: int = 0
    consumed: int = 0


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that can't be used, and why. `last` if nothing of the file can be read after it."""

    number: int
    error: InputError
    cursor: int = 0
    last: bool = False
    consumed: int = 0


def read_records(
    file: InputFile, text_field: str, start: int = 0, cursor: int = 0
) -> Iterator[Record | BadRecord]:
    """Records of `file` from number `start` on, which begins at byte `cursor`, if that is known."""
    if file.size == 0:
        if file.compression or file.kind == "parquet":
            yield _bad(file, 0, "truncated", "is empty, so its copy was cut short", last=True)
        else:
            yield Record(0, b"")
    elif file.kind == "parquet":
        yield from _parquet(file, text_field, start)
    elif not cursor and (problem := _other_format(file)):
        yield _bad(file, 0, "other_format", problem, last=True)
    elif file.kind == "text":
        if start == 0:
            yield _text(file)
    else:
        yield from _json_file(file, text_field, start, cursor)


def _other_format(file: InputFile) -> str | None:
    """What a file is that its name does not say, and the remedy; None if there is no such sign."""
    try:
        with opened(file) as (_, stream):
            head = stream.read(1 << 10)
    except CUT_SHORT:
        return None  # reading it tells
    formats = _OTHER_FORMATS if _is_utf8(head) else _OTHER_FORMATS | _BINARY_FORMATS
    name = file.name.rpartition("/")[2]
    told = next((told for magic, told in formats.items() if head.startswith(magic)), None)
    return told and f"is {told.format(name=name)}"


def _is_utf8(head: bytes) -> bool:
    """Whether the beginning of a file may be UTF-8 text, cut anywhere."""
    try:
        getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _bad(
    file: InputFile, number: int, reason: str, problem: str, cursor: int = 0, last: bool = False
) -> BadRecord:
    remedy = "correct it or pass --skip-bad"
    place = file.name if file.kind == "text" else f"{file.name}: record {number + 1}"
    return BadRecord(number, InputError(f"{place}: {problem}; {remedy}", reason), cursor, last)


def _text(file: InputFile) -> Record | BadRecord:
    if not file.compression and file.size > MAX_RECORD_BYTES // 4:
        return Record(0, None)
    try:
        with opened(file) as (_, stream):
            data = stream.read(MAX_RECORD_BYTES + 1)
    except CUT_SHORT as error:
        return _unreadable(file, 0, error)
    if len(data) > MAX_RECORD_BYTES:
        problem = f"holds more than {MAX_RECORD_BYTES >> 20} MiB; decompress it"
        return _bad(file, 0, "too_long", problem)
    if file.sha256 and not file.compression and hashlib.sha256(data).hexdigest() != file.sha256:
        return _bad(file, 0, "changed", "its bytes changed")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return _bad(file, 0, "invalid_utf8", f"not UTF-8 at byte {error.start}")
    return Record(0, data.removeprefix(BOM_UTF8))


def _unreadable(file: InputFile, number: int, error: Exception) -> BadRecord:
    if isinstance(error, OSError) and error.errno:
        return _bad(file, number, "unreadable", str(error.strerror), last=True)
    return _bad(file, number, "truncated", f"unreadable or cut short ({error})", last=True)


def _json_file(
    file: InputFile, text_field: str, start: int, cursor: int
) -> Iterator[Record | BadRecord]:
    number, lines = 0, True
    try:
        with opened(file) as (_, stream):
            lines = bool(cursor) or _is_lines(file, stream)
    except CUT_SHORT:
        pass  # reading it gives what comes before the fault
    if lines:
        yield from _jsonl(file, text_field, start, cursor)
        return
    try:
        with opened(file) as (raw, stream):
            for value in JsonValues(stream, MAX_RECORD_BYTES):
                if number >= start:
                    record = _object_record(file, text_field, number, value)
                    yield replace(record, consumed=raw.tell())
                number += 1
    except UnicodeDecodeError as error:
        yield _bad(file, number, "invalid_utf8", f"not UTF-8 ({error.reason})", last=True)
    except (ValueError, RecursionError) as error:
        problem = f"not JSON ({getattr(error, 'msg', error)})"
        yield _bad(file, number, "invalid_json", problem, last=True)
    except CUT_SHORT as error:
        yield _unreadable(file, number, error)


def _is_lines(file: InputFile, stream: io.BufferedReader) -> bool:
    """Whether a file is JSON Lines, which its first line shows, and not one or more longer values.

    A .jsonl file may hold an array all the same; a .json file may hold anything.
    """
    first = stream.readline(MAX_RECORD_BYTES).removeprefix(BOM_UTF8)
    while first.isspace():
        first = stream.readline(MAX_RECORD_BYTES)
    if first.lstrip().startswith(b"["):
        return False
    if file.kind == "jsonl":
        return True
    try:
        return not first or isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _jsonl(
    file: InputFile, text_field: str, start: int, cursor: int
) -> Iterator[Record | BadRecord]:
    number = start if cursor else 0
    try:
        with opened(file) as (raw, stream):
            if cursor:
                stream.seek(cursor)
            while line := stream.readline(MAX_RECORD_BYTES + 1):
                line = line if number else line.removeprefix(BOM_UTF8)
                too_long = len(line) > MAX_RECORD_BYTES
                if too_long:
                    _skip_line(stream, line)
                place = 0 if file.compression else stream.tell()
                if number >= start and (too_long or line.strip()):
                    if too_long:
                        problem = f"longer than {MAX_RECORD_BYTES >> 20} MiB"
                        record = _bad(file, number, "too_long", problem, place)
                    else:
                        record = _json_record(file, text_field, number, line, place)
                    yield replace(record, consumed=place or raw.tell())
                number += 1
    except CUT_SHORT as error:
        yield _unreadable(file, number, error)


def _skip_line(stream: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(1 << 20)


def _json_record(
    file: InputFile, text_field: str, number: int, line: bytes, cursor: int
) -> Record | BadRecord:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return _bad(file, number, "invalid_utf8", f"not UTF-8 at byte {error.start}", cursor)
    except (ValueError, RecursionError) as error:
        return _bad(file, number, "invalid_json", f"not JSON ({error})", cursor)
    return _object_record(file, text_field, number, value, cursor)


def _object_record(
    file: InputFile, text_field: str, number: int, value: object, cursor: int = 0
) -> Record | BadRecord:
    if not isinstance(value, dict):
        problem = f"has no field {text_field!r}: it is no JSON object"
        return _bad(file, number, "missing_field", problem, cursor)
    if text_field not in value:
        strings = [repr(name) for name, inner in value.items() if isinstance(inner, str)]
        others = ", ".join(strings[:8]) or "none of its fields is a string"
        problem = f"has no field {text_field!r}; --text-field names another ({others})"
        return _bad(file, number, "missing_field", problem, cursor)
    return _value_record(file, text_field, number, value[text_field], cursor)


def _value_record(
    file: InputFile, text_field: str, number: int, value: object, cursor: int = 0
) -> Record | BadRecord:
    if not isinstance(value, str):
        problem = f"field {text_field!r} is {type(value).__name__}, not a string"
        return _bad(file, number, "not_a_string", problem, cursor)
    try:
        data = value.encode()
    except UnicodeEncodeError as error:
        problem = f"field {text_field!r} holds half a surrogate pair at character {error.start}"
        return _bad(file, number, "invalid_utf8", problem, cursor)
    if len(data) > MAX_RECORD_BYTES:
        problem = f"longer than {MAX_RECORD_BYTES >> 20} MiB"
        return _bad(file, number, "too_long", problem, cursor)
    return Record(number, data, cursor)


def _parquet(file: InputFile, text_field: str, start: int) -> Iterator[Record | BadRecord]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(
            file.path, buffer_size=_PARQUET_BUFFER_BYTES, pre_buffer=False
        ) as table:
            if text_field not in table.schema_arrow.names:
                names = ", ".join(table.schema_arrow.names)
                problem = f"has no column {text_field!r}; --text-field may be one of {names}"
                yield _bad(file, 0, "missing_field", problem, last=True)
                return
            row_count = max(table.metadata.num_rows, 1)
            for group in range(table.num_row_groups):
                group_metadata = table.metadata.row_group(group)
                rows, size = group_metadata.num_rows, group_metadata.total_byte_size
                if number + rows <= start:
                    number += rows
                    continue
                batches = table.iter_batches(
                    max(1, min(1024, _PARQUET_BATCH_BYTES * rows // max(size, 1))),
                    row_groups=[group],
                    columns=[text_field],
                    use_threads=False,
                )
                for batch in batches:
                    for scalar in batch.column(0):
                        if number >= start:
                            record = _parquet_record(file, text_field, number, scalar)
                            consumed = file.size * (number + 1) // row_count
                            yield replace(record, consumed=consumed)
                        number += 1
    except (pyarrow.ArrowException, OSError) as error:
        problem = f"not readable as Parquet ({str(error).splitlines()[0]})"
        yield _bad(file, number, "unreadable", problem, last=True)


def _parquet_record(
    file: InputFile, text_field: str, number: int, scalar: Any
) -> Record | BadRecord:
    try:
        value = scalar.as_py()
    except UnicodeDecodeError as error:
        return _bad(file, number, "invalid_utf8", f"not UTF-8 at byte {error.start}")
    return _value_record(file, text_field, number, value)
