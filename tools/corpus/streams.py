"""Byte streams of input files: decompression, and JSON values one by one."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from tools.corpus.inputs import InputFile

CUT_SHORT = (EOFError, zlib.error, OSError)
"""What reading a stream raises where its file can't be read or ends too early."""
# A block may decompress to 32,000 times its size, so small blocks limit a hostile file's harm.
_ZSTD_BLOCK_BYTES = 8 << 10
_JSON_BLOCK_BYTES = 1 << 20


@contextmanager
def opened(file: InputFile) -> Generator[tuple[io.FileIO, io.BufferedReader]]:
    """(raw file, stream of its decompressed bytes); the raw file's place tells the progress."""
    with file.path.open("rb", buffering=0) as raw, _decompressed(file, raw) as stream:
        yield raw, stream


def _decompressed(file: InputFile, raw: io.FileIO) -> io.BufferedReader:
    if file.compression == "gzip":
        # Without a buffer, which would drop what it has read when the file ends too early.
        return cast(io.BufferedReader, gzip.GzipFile(fileobj=raw, mode="rb"))
    return io.BufferedReader(_ZstdFrames(raw) if file.compression == "zstd" else raw, 1 << 20)


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


class JsonValues:
    """The elements of a JSON array, or JSON values one after another, with memory for one of them.

    Raises:
        ValueError: the text is not JSON, or a value has more than `longest` characters.
    """

    def __init__(self, stream: BinaryIO, longest: int) -> None:
        self._stream = stream
        self._longest = longest
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._place, self._ended = "", 0, False

    def __iter__(self) -> Iterator[Any]:
        array = self._next() == "["
        self._place += array
        first = True
        while character := self._next():
            if array and character == "]":
                self._place += 1
                if self._next():
                    raise ValueError("text after the array")
                return
            if array and not first:
                if character != ",":
                    raise ValueError("no comma between two elements")
                self._place += 1
                self._next()
            yield self._value()
            first = False
        if array:
            raise ValueError("the array has no end")

    def _next(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in " \t\r\n":
                    return self._text[self._place]
                self._place += 1
            if self._ended:
                return ""
            self._read_on()

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._place)
                if end < len(self._text) or self._ended:  # else a number may go on
                    self._place = end
                    return value
            except json.JSONDecodeError:
                if self._ended:
                    raise
            if len(self._text) - self._place > self._longest:
                raise ValueError(f"a value of more than {self._longest:,} characters")
            self._read_on()

    def _read_on(self) -> None:
        rest = self._text[self._place :]
        block = self._stream.read(max(_JSON_BLOCK_BYTES, len(rest)))  # twice as much each time
        self._ended = not block
        self._text, self._place = rest + self._utf8.decode(block, final=self._ended), 0
