"""Turns documents into pieces: assigns splits, and cuts slices that are encoded in parallel."""

from __future__ import annotations

import codecs
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from tools.common.errors import ToolError
from tools.corpus.errors import InputError
from tools.corpus.inputs import InputFile, Plan, check_unchanged
from tools.corpus.records import BadRecord, Record, read_records

TRAIN, HELDOUT = 0, 1
SPLITS = ("train", "heldout")

SLICE_BYTES = 64 << 10
_LONGEST_SLICE = 4 * SLICE_BYTES
_WINDOW = _LONGEST_SLICE + 4  # a slice's end depends on these bytes and nothing else
# Encodings take about 40 times the memory of their text. This bounds a document that can't be cut.
_LONGEST_WHOLE = 16 << 20
_BETWEEN_WORDS = re.compile(rb"[A-Za-z](?= [A-Za-z])")


class Position(NamedTuple):
    """A place in the plan: everything before it has been read.

    `file` and `record` count from 0; `cursor` is a byte offset into a plain .jsonl file;
    `within` is the number of bytes of the record's document already read.
    """

    file: int = 0
    record: int = 0
    cursor: int = 0
    within: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A slice of a document, the whole document if `first` and `last`; `size` in bytes of UTF-8.

    `source` is the number of the input argument; `after` is the position after this piece;
    `consumed` counts the bytes of its file read so far.
    """

    split: int
    source: int
    text: str
    size: int
    first: bool
    last: bool
    after: Position
    consumed: int = 0


@dataclass(frozen=True, slots=True)
class Skip:
    """A record left out, and the position after it."""

    reason: str
    after: Position
    consumed: int = 0


def split_of(sha256: bytes, heldout_fraction: float) -> int:
    """The split of the document with this digest: HELDOUT for that fraction of all documents.

    It depends on the document's bytes alone, so that adding documents moves none.
    """
    return HELDOUT if int.from_bytes(sha256[:8], "big") < heldout_fraction * 2.0**64 else TRAIN


def slices(stream: BinaryIO) -> Iterator[bytes]:
    """Cuts UTF-8 text into slices of 64 to 256 KiB; the last one may be shorter.

    A slice ends at the first space between two ASCII letters after 64 KiB, where byte-level
    tokenizers never merge. Without one before 256 KiB, it ends there, between two characters. So
    the slices' tokens are those of the whole document, and a slice's end depends only on the text
    after its start: reading may resume at any slice.
    """
    buffer = b""
    while True:
        while len(buffer) < _WINDOW and (block := stream.read(_WINDOW)):
            buffer += block
        if not buffer:
            return
        end = _slice_end(buffer)
        yield buffer[:end]
        buffer = buffer[end:]


def _slice_end(buffer: bytes) -> int:
    if len(buffer) <= SLICE_BYTES:
        return len(buffer)
    match = _BETWEEN_WORDS.search(buffer, SLICE_BYTES, _WINDOW)
    if match:
        return match.end()
    end = min(len(buffer), _LONGEST_SLICE)
    while end < len(buffer) and 0x80 <= buffer[end] < 0xC0:
        end -= 1
    return end


def read_pieces(
    plan: Plan,
    *,
    text_field: str,
    heldout_fraction: float,
    skip_bad: bool,
    sliced: bool = True,
    start: Position | None = None,
    on_skip: Callable[[str], None] = lambda message: None,
) -> Iterator[Piece | Skip]:
    """All pieces of the plan from `start` on, in order.

    Without `sliced`, a document is one piece, whatever its size. `on_skip` gets the message of each
    record that `skip_bad` leaves out.

    Raises:
        InputError: a record is bad, and `skip_bad` is false.
        ToolError: a file has changed since it was planned.
    """
    start = start or Position()
    for index in range(start.file, len(plan.files)):
        file = plan.files[index]
        position = start if index == start.file else Position(index)
        for record in read_records(file, text_field, position.record, position.cursor):
            next_record = Position(index, record.number + 1, record.cursor)
            if isinstance(record, BadRecord) and record.last:
                next_record = Position(index + 1)
            within = position.within if record.number == position.record else 0
            try:
                if isinstance(record, BadRecord):
                    raise record.error
                yield from _pieces(file, record, next_record, within, heldout_fraction, sliced)
            except InputError as error:
                if error.reason == "changed":
                    raise _changed(file, plan.verified) from None
                if not skip_bad:
                    raise
                on_skip(str(error))
                yield Skip(error.reason, next_record, record.consumed)
        if not plan.verified:
            check_unchanged(file)


def _pieces(
    file: InputFile,
    record: Record,
    next_record: Position,
    within: int,
    heldout_fraction: float,
    sliced: bool,
) -> Iterator[Piece | Skip]:
    if record.data is None:
        yield from _streamed(file, next_record, within, heldout_fraction, sliced)
        return
    size = len(record.data)
    if size == 0:
        yield Skip("empty", next_record, record.consumed)
        return
    if not sliced:
        _check_whole(file, record.number, size)
    split = split_of(hashlib.sha256(record.data).digest(), heldout_fraction)
    if size <= SLICE_BYTES or not sliced:
        text = record.data.decode()
        yield Piece(split, file.source, text, size, True, True, next_record, record.consumed)
        return
    stream = io.BytesIO(record.data)
    stream.seek(within)
    position = Position(next_record.file, record.number, 0, within)
    yield from _sliced(stream, file, split, size, position, next_record)


def _sliced(
    stream: BinaryIO, file: InputFile, split: int, size: int, begin: Position, after: Position
) -> Iterator[Piece]:
    within = begin.within
    for data in slices(stream):
        first, within = within == 0, within + len(data)
        last = within == size
        position = after if last else begin._replace(within=within)
        consumed = within if file.kind == "text" else 0
        yield Piece(split, file.source, data.decode(), len(data), first, last, position, consumed)


def _streamed(
    file: InputFile, after: Position, within: int, heldout_fraction: float, sliced: bool
) -> Iterator[Piece]:
    """The pieces of a long text file: one pass for its digest and validity, one for its slices."""
    if not sliced:
        _check_whole(file, 0, file.size)
    digest, start = _checked_digest(file)
    split = split_of(digest, heldout_fraction)
    with file.path.open("rb") as stream:
        stream.seek(start + within)
        position = Position(after.file, 0, 0, within)
        yield from _sliced(stream, file, split, file.size - start, position, after)


def _check_whole(file: InputFile, number: int, size: int) -> None:
    if size > _LONGEST_WHOLE:
        raise InputError(
            f"{file.name}: record {number + 1}: longer than {_LONGEST_WHOLE >> 20} MiB, and only "
            "byte-level tokenizers can encode a document in slices; split it or pass --skip-bad",
            "too_long",
        )


def _changed(file: InputFile, verified: bool) -> ToolError:
    if verified:
        return ToolError(
            f"{file.path}: not as its package shipped it; reinstall the package, since the "
            "default corpus is made of unmodified wheels"
        )
    return ToolError(f"{file.name}: changed while it was read; build again with --restart")


def _checked_digest(file: InputFile) -> tuple[bytes, int]:
    """(sha256 of a text file's text, bytes before it: of a byte order mark, or none).

    Raises:
        InputError: the file is not UTF-8, or is not what was planned.
    """
    digest, decoder, size = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")(), 0
    start, text = 0, digest
    try:
        with file.path.open("rb", buffering=0) as stream:
            while block := stream.read(1 << 20):
                if size == 0 and block.startswith(codecs.BOM_UTF8):
                    start, text = len(codecs.BOM_UTF8), hashlib.sha256()
                digest.update(block)
                if text is not digest:
                    text.update(block if size else block[start:])
                decoder.decode(block)
                size += len(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        place = f"near byte {size + error.start}"
        message = f"{file.name}: not UTF-8 {place}; correct it or pass --skip-bad"
        raise InputError(message, "invalid_utf8") from None
    except OSError as error:
        raise InputError(f"{file.name}: {error.strerror}", "unreadable") from None
    if file.sha256 and digest.hexdigest() != file.sha256:
        raise InputError(f"{file.name}: its bytes changed", "changed")
    return text.digest(), start
