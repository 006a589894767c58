"""Builds a token store: plan, tokenizer, then one resumable pass that encodes on all cores."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.common.errors import ToolError
from tools.corpus import store as stores
from tools.corpus.documents import SPLITS, Piece, Position, Skip, read_pieces
from tools.corpus.encode import Pace, Writer, ahead, batches, encode, open_appenders
from tools.corpus.errors import InputError
from tools.corpus.inputs import Plan, fingerprint, hash_files
from tools.corpus.journal import Journal, State
from tools.corpus.progress import Advance, Progress
from tools.corpus.reading import read_manifest
from tools.corpus.tokenizer import (
    SAMPLE_BYTES,
    Encoder,
    load_encoder,
    read_tokenizer,
    sample_pieces,
    train_tokenizer,
)

_CANT_WRITE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
}
_REMEMBERED_BYTES = 1 << 20  # hashing a smaller file again costs less than storing its digest


@dataclass(frozen=True)
class Settings:
    """The settings that, with the inputs, determine the bytes of a store.

    `tokenizer` is a tokenizer.json to use; without one a byte-level BPE of `vocab_size` entries
    is trained on at most `sample_bytes` of the training split. `shard_length` is in tokens.
    """

    tokenizer: Path | None = None
    bos_token: str | None = None
    vocab_size: int = 4096
    sample_bytes: int = SAMPLE_BYTES
    heldout_fraction: float = 0.01
    text_field: str = "text"
    shard_length: int = stores.SHARD_LENGTH

    def __post_init__(self) -> None:
        if not 0 <= self.heldout_fraction < 1:
            raise InputError(
                f"--heldout-fraction {self.heldout_fraction}: must be at least 0 and below 1"
            )
        chunk = min(self.shard_length, stores.CHUNK_LENGTH)
        if chunk < 1 or self.shard_length % chunk:
            raise InputError(
                f"shard_length {self.shard_length}: must be a multiple of {stores.CHUNK_LENGTH} "
                "tokens, or fewer"
            )


@dataclass(frozen=True)
class BuildResult[Place: (Path, str)]:
    """A complete store, at a path or URL.

    `already_there` if it was built before; `messages` on skipped records.
    """

    store: Place
    manifest: dict[str, Any]
    already_there: bool = False
    resumed: bool = False
    messages: tuple[str, ...] = field(default=(), repr=False)


def build(
    plan: Plan,
    out: Path,
    settings: Settings | None = None,
    *,
    skip_bad: bool = False,
    restart: bool = False,
    wait: bool = False,
    elsewhere: str = "choose another --out",
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> BuildResult[Path]:
    """Encodes the plan's documents into a token store at `out`.

    Unfinished work is in `<out>.partial`, which is renamed when complete. A killed build resumes
    from its last commit and gives the same bytes. `restart` discards such work. `wait` waits for
    another process that builds the same store, instead of refusing. `elsewhere` says how to choose
    another place, for messages.

    Raises:
        InputError: bad input or settings.
        ToolError: a store or partial work of other inputs is in the way, the disk is full, or a
            path cannot be written.
    """
    settings = settings or Settings()
    progress = progress or Progress()
    partial = out.with_name(out.name + ".partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        out.with_name(out.name + ".lock").touch()
    except OSError as error:
        raise ToolError(
            f"{error.filename}: {error.strerror}: cannot be written; {elsewhere}"
        ) from None
    with _disk_errors(out, elsewhere), _lock(out.with_name(out.name + ".lock"), out, wait):
        job = _Job(plan, out, partial, settings, skip_bad, pace or Pace(), progress)
        return job.run(restart)


def identity(plan: Plan, settings: Settings, tokenizer: str | None = None) -> dict[str, Any]:
    """All that determines a store's bytes, as its manifest records it; of a plan with digests.

    `tokenizer` is the text of the settings' tokenizer, if it was read already.
    """
    recorded: dict[str, Any] = {
        "text_field": settings.text_field,
        "bos_token": settings.bos_token,
        "shard_length": settings.shard_length,
    }
    if settings.tokenizer is not None:
        text = tokenizer or read_tokenizer(settings.tokenizer)
        recorded["tokenizer_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    else:
        recorded["vocab_size"] = settings.vocab_size
        recorded["sample_bytes"] = settings.sample_bytes
    return {
        "schema_version": stores.SCHEMA_VERSION,
        "heldout_fraction": settings.heldout_fraction,
        "settings": recorded,
        "sources": plan.source_digests(),
    }


def check_same(manifest: dict[str, Any], identity: dict[str, Any], place: Path | str) -> None:
    """Raises ToolError if the store at `place`, of that manifest, has another identity."""
    recorded = {key: manifest.get(key) for key in identity}
    recorded["sources"] = [
        {key: source[key] for key in ("name", "sha256", "bytes")} for source in manifest["sources"]
    ]
    for key, value in identity.items():
        if recorded[key] != value:
            raise ToolError(
                f"{place}: holds a token store of other {key.replace('_', ' ')}; "
                "choose another --out or remove it"
            )


class _Job:
    """One build, run while its lock is held."""

    def __init__(
        self,
        plan: Plan,
        out: Path,
        partial: Path,
        settings: Settings,
        skip_bad: bool,
        pace: Pace,
        progress: Progress,
    ) -> None:
        self.plan = plan
        self.out = out
        self.partial = partial
        self.settings = settings
        self.skip_bad = skip_bad
        self.pace = pace
        self.progress = progress
        self.tokenizer = read_tokenizer(settings.tokenizer) if settings.tokenizer else None
        self.messages: list[str] = []

    def run(self, restart: bool) -> BuildResult[Path]:
        if restart:
            shutil.rmtree(self.partial, ignore_errors=True)
        if self.out.exists() and not (self.out / stores.MANIFEST).exists():
            raise ToolError(f"{self.out}: exists and is no token store; choose another --out")
        self._hash()
        if (self.out / stores.MANIFEST).exists():
            manifest = self._same_store()
            shutil.rmtree(self.partial, ignore_errors=True)
            return BuildResult(self.out, manifest, already_there=True)
        journal, state = self._journal()
        resumed = state.started
        try:
            encoder, text = self._encoder()
            if not state.finished:
                self._encode(encoder, journal, state)
        except InputError:
            if not state.started:  # nothing to keep, and it would block a corrected run
                shutil.rmtree(self.partial)
            raise
        manifest = self._finish(encoder, text, state)
        return BuildResult(self.out, manifest, resumed=resumed, messages=tuple(self.messages))

    def _hash(self) -> None:
        if self.plan.verified:  # the packages' own digests are checked while reading
            return
        cache = self.partial / "files.json"
        digests = {}
        if cache.exists():
            with suppress(ValueError):  # damaged: the files are hashed again
                digests = json.loads(cache.read_bytes())
        with self.progress.phase("hashing", self.plan.total_bytes) as advance:
            self.plan = hash_files(self.plan, digests, advance)
        if (self.out / stores.MANIFEST).exists():
            return
        self.partial.mkdir(exist_ok=True)
        digests = {
            fingerprint(file): file.sha256
            for file in self.plan.files
            if file.size >= _REMEMBERED_BYTES
        }
        stores.write_durably(cache, json.dumps(digests))

    def _identity(self) -> dict[str, Any]:
        return identity(self.plan, self.settings, self.tokenizer)

    def _same_store(self) -> dict[str, Any]:
        manifest = read_manifest(self.out)
        check_same(manifest, self._identity(), self.out)
        return manifest

    def _journal(self) -> tuple[Journal, State]:
        self.partial.mkdir(exist_ok=True)
        journal = Journal(self.partial / "journal.jsonl")
        identity = self._identity()
        loaded = journal.load()
        if loaded is None:
            journal.begin(identity)
            return journal, State()
        recorded, state = loaded
        if recorded != identity and not state.started:  # nothing to lose: start over
            (self.partial / stores.TOKENIZER).unlink(missing_ok=True)
            journal.begin(identity)
            return journal, State()
        for key, value in identity.items():
            if recorded.get(key) != value:
                raise ToolError(
                    f"{self.partial}: holds unfinished work on other {key.replace('_', ' ')}; "
                    "give the same inputs and flags again, or pass --restart to discard it"
                )
        if state.bad and not self.skip_bad:
            raise ToolError(
                f"{self.partial}: holds unfinished work that skipped {state.bad} records; "
                "pass --skip-bad again, or --restart to discard it"
            )
        return journal, state

    def _pieces(
        self, sliced: bool, start: Position | None = None, report: bool = False
    ) -> Iterator[Piece | Skip]:
        return read_pieces(
            self.plan,
            text_field=self.settings.text_field,
            heldout_fraction=self.settings.heldout_fraction,
            skip_bad=self.skip_bad,
            sliced=sliced,
            start=start,
            on_skip=self._say if report else lambda message: None,
        )

    def _say(self, message: str) -> None:
        if len(self.messages) < 20:
            self.messages.append(message)

    def _encoder(self) -> tuple[Encoder, str]:
        """(encoder, text of tokenizer.json), given or trained; a trained one is kept."""
        settings = self.settings
        if self.tokenizer is not None:
            encoder = load_encoder(self.tokenizer, str(settings.tokenizer), settings.bos_token)
            return encoder, self.tokenizer
        kept = self.partial / stores.TOKENIZER
        if not kept.exists():
            with self.progress.phase("sampling", self.plan.total_bytes) as advance:
                pieces = _counted(self._pieces(sliced=True), _Place(self.plan, advance))
                sample = sample_pieces(pieces, settings.sample_bytes)
            if not len(sample):
                raise InputError("no training text: every document is empty, skipped or held out")
            with self.progress.phase("training the tokenizer"):
                stores.write_durably(kept, train_tokenizer(sample.texts(), settings.vocab_size))
        text = kept.read_text(encoding="utf-8")
        return load_encoder(text, stores.TOKENIZER), text

    def _encode(self, encoder: Encoder, journal: Journal, state: State) -> None:
        writer = Writer(self.partial, encoder, self.settings.shard_length, journal, state)
        pieces = self._pieces(encoder.sliced, state.position, report=True)
        # Three stages overlap: one batch is read, the one before it encoded, the earliest written.
        read = ahead(batches(pieces, state.position, self.pace))
        uncommitted = 0
        with (
            self.progress.phase("encoding", self.plan.total_bytes) as advance,
            closing(ahead(encode(read, encoder))) as encoded,
        ):
            place = _Place(self.plan, advance)
            for batch, ids in encoded:
                completed = writer.write(batch, ids)
                uncommitted += batch.size
                if completed or uncommitted >= self.pace.commit_bytes:
                    writer.commit()
                    uncommitted = 0
                place.reached(batch.after, batch.consumed)
        if not state.splits[0].documents:
            raise InputError("no training text: every document is empty, skipped or held out")
        state.finished = True
        writer.commit()
        writer.close()

    def _finish(self, encoder: Encoder, text: str, state: State) -> dict[str, Any]:
        """Writes the rest, the manifest last, and moves the store to its place."""
        store = self.partial / "store"
        exact = not any(split.inexact for split in state.splits)
        splits = self._finish_arrays(encoder, state, keep_text_bytes=not exact)
        stores.write_array(store / "token_bytes", encoder.token_bytes())
        stores.write_durably(store / stores.TOKENIZER, text)
        identity = self._identity()
        for index, source in enumerate(identity["sources"]):
            source["documents"] = state.source_documents.get(index, 0)
        manifest = identity | {
            "dtype": encoder.dtype,
            "exact_token_bytes": exact,
            "vocab_size": encoder.vocab_size,
            "bos_id": encoder.bos_id,
            "tokenizer": {
                "file": stores.TOKENIZER,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            },
            "splits": splits,
            "skipped": {**self.plan.skipped, **state.skipped},
        }
        manifest["digest"] = stores.manifest_digest(manifest)
        for leftover in store.rglob("*.__lock"):  # from a write that was killed
            leftover.unlink()
        stores.write_durably(store / stores.MANIFEST, stores.render_manifest(manifest))
        store.rename(self.out)
        shutil.rmtree(self.partial)
        return manifest

    def _finish_arrays(
        self, encoder: Encoder, state: State, *, keep_text_bytes: bool
    ) -> dict[str, Any]:
        """Writes the rest of each split's arrays; returns their entries of the manifest.

        Where tokens spell every text, the bytes of a text follow from its tokens.
        """
        appenders = open_appenders(self.partial, encoder, self.settings.shard_length, state)
        splits = {}
        for name, arrays, split in zip(SPLITS, appenders, state.splits, strict=True):
            tokens, offsets, text_bytes = (array.finish() for array in arrays)
            splits[name] = {
                "documents": split.documents,
                "tokens": split.tokens,
                "bytes": split.bytes,
                "tokens_sha256": tokens,
                "offsets_sha256": offsets,
            }
            if keep_text_bytes:
                counts = {"inexact_documents": split.inexact, "text_bytes_sha256": text_bytes}
                splits[name] |= counts
            else:
                shutil.rmtree(self.partial / "store" / name / "text_bytes")
        return splits


class _Place:
    """Reports positions in the plan as progress, in bytes of the input files."""

    def __init__(self, plan: Plan, advance: Advance) -> None:
        self._starts = [0]
        for file in plan.files:
            self._starts.append(self._starts[-1] + file.size)
        self._advance = advance
        self._done = 0

    def reached(self, after: Position, consumed: int) -> None:
        position = self._starts[after.file] + consumed
        self._advance(position - self._done)
        self._done = position


def _counted(pieces: Iterator[Piece | Skip], place: _Place) -> Iterator[Piece | Skip]:
    for count, piece in enumerate(pieces):
        yield piece
        if count % 64 == 0:
            place.reached(piece.after, piece.consumed)


@contextmanager
def _lock(path: Path, out: Path, wait: bool) -> Generator[None]:
    """Holds the store's lock file; the lock ends with the process."""
    while True:
        with path.open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise ToolError(
                    f"{out}: another process is building this store; wait for it to end"
                ) from None
            # The holder before us removed the file: whoever comes now would lock a new one.
            if not path.exists() or not os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


@contextmanager
def _disk_errors(out: Path, elsewhere: str) -> Generator[None]:
    """Turn a full disk or missing rights, in our writes or TensorStore's, into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANT_WRITE:
            raise
        place = error.filename or out
        raise ToolError(
            f"{place}: {error.strerror or error}; make room and run again, finished work is "
            f"kept; or {elsewhere}"
        ) from error
    except ValueError as error:  # TensorStore's, which names the system's error in its text
        match = re.search(r"os_error_code='(\d+)'", str(error))
        if not match or int(match[1]) not in _CANT_WRITE:
            raise
        raise ToolError(
            f"{out}: {os.strerror(int(match[1]))}; make room and run again, finished work is "
            f"kept; or {elsewhere}"
        ) from error
