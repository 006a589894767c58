"""What to read: input arguments become an ordered plan of files, each with its digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.common.errors import ToolError
from tools.corpus.errors import InputError

ENDINGS = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".jsonl.zst": "jsonl.zst",
    ".parquet": "parquet",
}
_MAGIC = "*?["
_HASH_BLOCK = 1 << 20
_HASH_FILES = 1024


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read.

    `name` is relative to its source and is what messages and digests use; `size` in bytes;
    `sha256` is the expected digest of the file's bytes, or "" until `hash_files` ran.
    """

    source: int
    name: str
    path: Path
    kind: str
    size: int
    mtime_ns: int
    sha256: str = ""


@dataclass(frozen=True)
class Plan:
    """All files to read, in order. `sources` names the input arguments.

    `skipped` counts directory entries left out, by reason. `verified` files are checked against
    `sha256` while they are read (installed packages); others against size and time.
    """

    sources: tuple[str, ...]
    files: tuple[InputFile, ...]
    skipped: dict[str, int] = field(default_factory=dict)
    verified: bool = False

    @property
    def total_bytes(self) -> int:
        """Bytes of all files, compressed as they are."""
        return sum(file.size for file in self.files)

    def source_digests(self) -> list[dict[str, str | int]]:
        """Name, sha256 and bytes of each source; needs hashed files.

        A source of a single file has the digest of that file; one of several has the digest of
        its lines `<name> NUL <sha256> NEWLINE`, in reading order.
        """
        by_source: list[list[InputFile]] = [[] for _ in self.sources]
        for file in self.files:
            by_source[file.source].append(file)
        digests: list[dict[str, str | int]] = []
        for name, files in zip(self.sources, by_source, strict=True):
            if len(files) == 1 and files[0].name == name:
                digest = files[0].sha256
            else:
                listing = "".join(f"{file.name}\0{file.sha256}\n" for file in files)
                digest = hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()
            size = sum(file.size for file in files)
            digests.append({"name": name, "sha256": digest, "bytes": size})
        return digests


def plan_inputs(arguments: Sequence[str | Path]) -> Plan:
    """Expand directories, globs and files into a plan, in the order of the arguments.

    Inside a directory or glob, files are sorted by name, hidden entries are left out, and links
    that lead outside it are skipped and counted, so that a corpus from elsewhere can't pull in
    files of this machine. A directory gives the endings of `ENDINGS` only; a glob or a named file
    may have any other ending and is then plain text.

    Raises InputError if an argument matches nothing or a file is named twice.
    """
    sources: list[str] = []
    files: list[InputFile] = []
    skipped: dict[str, int] = {}
    seen: dict[Path, str] = {}
    for argument in map(str, arguments):
        name, matches = _expand(argument, skipped)
        for relative, path in matches:
            resolved = path.resolve()
            if resolved in seen:
                raise InputError(
                    f"{relative}: named by {seen[resolved]} and again by {argument}; "
                    "drop one of the two inputs"
                )
            seen[resolved] = argument
            files.append(_input_file(len(sources), relative, path))
        sources.append(name)
    if not files:
        raise InputError("no input given; name a file, a directory or a quoted glob")
    return Plan(tuple(sources), tuple(files), skipped)


def hash_files(
    plan: Plan,
    known: dict[str, str] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Plan:
    """The plan with every file's sha256 filled in, reading with several threads.

    `known` maps `fingerprint(file)` to digests computed earlier; `advance` gets bytes done.
    """
    known = known or {}

    def digest(file: InputFile) -> InputFile:
        if file.sha256:
            return file
        done = known.get(fingerprint(file))
        return replace(file, sha256=done or _sha256(file.path))

    hashed: list[InputFile] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(plan.files), _HASH_FILES):  # a future each would add up
            for file in pool.map(digest, plan.files[start : start + _HASH_FILES]):
                hashed.append(file)
                advance(file.size)
    return replace(plan, files=tuple(hashed))


def fingerprint(file: InputFile) -> str:
    """A key that changes when the file is replaced or written to, without reading it."""
    return json.dumps([os.fspath(file.path.absolute()), file.size, file.mtime_ns])


def check_unchanged(file: InputFile) -> None:
    """Raises ToolError if the file is no longer the one that was planned."""
    try:
        status = file.path.stat()
    except OSError as error:
        raise ToolError(f"{file.name}: {error.strerror}; it was there at the start") from None
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise ToolError(f"{file.name}: changed while it was read; build again with --restart")


def _expand(argument: str, skipped: dict[str, int]) -> tuple[str, Iterable[tuple[str, Path]]]:
    """The source's name (no machine's paths) and its (name, path) matches."""
    path = Path(argument)
    if path.is_dir():
        name = path.resolve().name or "root"
        matches = _walk(path, skipped)
        if not matches:
            endings = ", ".join(ENDINGS)
            raise InputError(
                f"{argument}: no file in this directory ends in {endings}; "
                f"for other plain text give a quoted glob such as '{argument}/**/*.md'"
            )
        return name, matches
    if path.exists():
        if not path.is_file():
            raise InputError(f"{argument}: neither a file nor a directory")
        return path.name, [(path.name, path)]
    if any(character in argument for character in _MAGIC):
        parts = path.parts
        first = next(i for i, part in enumerate(parts) if any(c in part for c in _MAGIC))
        root, pattern = Path(*parts[:first]), os.path.join(*parts[first:])
        matches = _glob(root, pattern, skipped)
        if not matches:
            raise InputError(f"{argument}: no file matches; check the path and quote the glob")
        prefix = root.resolve().name
        return (f"{prefix}/{pattern}" if prefix else pattern), matches
    raise InputError(f"{argument}: no such file or directory")


def _walk(root: Path, skipped: dict[str, int]) -> list[tuple[str, Path]]:
    found: list[Path] = []
    for directory, subdirectories, names in os.walk(root, followlinks=False):
        here = Path(directory)
        for name in list(subdirectories):
            if name.startswith("."):
                subdirectories.remove(name)
            elif (here / name).is_symlink():
                _count(skipped, "linked_directory")
        for name in names:
            if name.startswith("."):
                continue
            if _kind(name) is None:
                _count(skipped, "other_ending")
            else:
                found.append(here / name)
    return _inside(root, found, skipped)


def _glob(root: Path, pattern: str, skipped: dict[str, int]) -> list[tuple[str, Path]]:
    hidden = any(part.startswith(".") for part in Path(pattern).parts)
    found = [
        path
        for path in root.glob(pattern)
        if hidden or not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    return _inside(root, [path for path in found if not path.is_dir()], skipped)


def _inside(root: Path, paths: list[Path], skipped: dict[str, int]) -> list[tuple[str, Path]]:
    """Regular files whose real place is below `root`, sorted by name."""
    real_root = root.resolve()
    matches: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_symlink() and not path.resolve().is_relative_to(real_root):
            _count(skipped, "link_outside")
        elif path.is_file():
            matches.append((path.relative_to(root).as_posix(), path))
        else:
            _count(skipped, "not_a_file")
    return sorted(matches, key=lambda match: os.fsencode(match[0]))


def _count(skipped: dict[str, int], reason: str) -> None:
    skipped[reason] = skipped.get(reason, 0) + 1


def _kind(name: str) -> str | None:
    for ending, kind in ENDINGS.items():
        if name.endswith(ending):
            return kind
    return None


def _input_file(source: int, name: str, path: Path) -> InputFile:
    status = path.stat()
    kind = _kind(name) or "text"
    return InputFile(source, name, path, kind, status.st_size, status.st_mtime_ns)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as stream:
            while block := stream.read(_HASH_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path.name}: {error.strerror}") from None
    return digest.hexdigest()
