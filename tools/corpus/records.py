"""Reads the documents of one input file with bounded memory.

A text file is one document; so is a line of JSON or a row of Parquet.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from tools.corpus.errors import InputError
from tools.corpus.inputs import InputFile

MAX_RECORD_BYTES = 64 << 20
"""Largest JSON line or Parquet value; a larger one could not be read with bounded memory."""
_PARQUET_BATCH_BYTES = 2 << 20
_PARQUET_BUFFER_BYTES = 1 << 20
# A block may decompress to 32,000 times its size, so small blocks limit a hostile file's harm.
_ZSTD_BLOCK_BYTES = 8 << 10


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
    if file.kind == "text":
        if start == 0:
            yield _text(file)
    elif file.kind == "parquet":
        yield from _parquet(file, text_field, start)
    else:
        yield from _jsonl(file, text_field, start, cursor)


def _bad(
    file: InputFile, number: int, reason: str, problem: str, cursor: int = 0, last: bool = False
) -> BadRecord:
    remedy = "correct it or pass --skip-bad"
    place = file.name if file.kind == "text" else f"{file.name}: record {number + 1}"
    return BadRecord(number, InputError(f"{place}: {problem}; {remedy}", reason), cursor, last)


def _text(file: InputFile) -> Record | BadRecord:
    if file.size > MAX_RECORD_BYTES // 4:
        return Record(0, None)
    try:
        data = file.path.read_bytes()
    except OSError as error:
        return _bad(file, 0, "unreadable", str(error.strerror))
    if file.sha256 and hashlib.sha256(data).hexdigest() != file.sha256:
        return _bad(file, 0, "changed", "its bytes changed")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return _bad(file, 0, "invalid_utf8", f"not UTF-8 at byte {error.start}")
    return Record(0, data)


def _jsonl(
    file: InputFile, text_field: str, start: int, cursor: int
) -> Iterator[Record | BadRecord]:
    number = start if cursor else 0
    try:
        with file.path.open("rb", buffering=0) as raw, _decompressed(file, raw) as stream:
            if cursor:
                stream.seek(cursor)
            while True:
                line = stream.readline(MAX_RECORD_BYTES + 1)
                if not line:
                    return
                too_long = len(line) > MAX_RECORD_BYTES
                if too_long:
                    _skip_line(stream, line)
                place = stream.tell() if file.kind == "jsonl" else 0
                if number >= start and (too_long or line.strip()):
                    if too_long:
                        problem = f"longer than {MAX_RECORD_BYTES >> 20} MiB"
                        record = _bad(file, number, "too_long", problem, place)
                    else:
                        record = _json_record(file, text_field, number, line, place)
                    yield replace(record, consumed=place or raw.tell())
                number += 1
    except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
        yield _bad(file, number, "truncated", f"unreadable or cut short ({error})", last=True)


def _decompressed(file: InputFile, raw: io.FileIO) -> io.BufferedReader:
    if file.kind == "jsonl.gz":
        # Without a buffer, which would drop what it has read when the file ends too early.
        return cast(io.BufferedReader, gzip.GzipFile(fileobj=raw, mode="rb"))
    return io.BufferedReader(_ZstdFrames(raw) if file.kind == "jsonl.zst" else raw, 1 << 20)


class _ZstdFrames(io.RawIOBase):
    """Reads all frames of a .zst file; unlike zstandard's own reader it notices a truncated one."""

    def __init__(self, stream: io.FileIO) -> None:
        super().__init__()
        import zstandard

        self._stream = stream
        self._zstandard = zstandard
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._fed = False
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._ready:
            block = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = self._zstandard.ZstdDecompressor().decompressobj()
                self._fed = False
            block = block or self._stream.read(_ZSTD_BLOCK_BYTES)
            if not block:
                if self._fed:
                    raise EOFError("the last frame is not complete")
                return 0
            self._fed = True
            try:
                self._ready = self._frame.decompress(block)
            except self._zstandard.ZstdError as error:
                raise EOFError(str(error)) from None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


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
    if not isinstance(value, dict) or text_field not in value:
        problem = f"has no field {text_field!r} (another field? --text-field NAME)"
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
