"""Turns input arguments into a plan: an ordered list of files with their digests."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.common.errors import ToolError
from tools.corpus.errors import InputError

ENDINGS = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
"""Kinds of files by their ending, in small or capital letters."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
"""Compressions by the ending after that of the kind; Parquet files have their own within."""
# For each reason what is left out, and the remedy.
_LEFT_OUT = {
    "link_outside": (
        "links that lead out of it",
        "; copy their files into it (cp -rL), or name them",
    ),
    "link_to_the_same": ("links to files read under another name", ""),
    "linked_directory": ("links to directories", "; name the directories themselves"),
    "not_a_file": ("devices, sockets and links to nothing", ""),
}
_MAGIC = "*?["
_HASH_BLOCK = 1 << 20
_HASH_FILES = 1024


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read.

    `name` is relative to its source; messages and digests use it. `kind` is a value of `ENDINGS`;
    `compression` is one of `COMPRESSIONS`, or "". `size` is in bytes. `sha256` is the expected
    digest of the file's bytes, or "" before `hash_files`.
    """

    source: int
    name: str
    path: Path
    kind: str
    size: int
    mtime_ns: int
    sha256: str = ""
    compression: str = ""


@dataclass(frozen=True)
class Plan:
    """All files to read, in order. `sources` names the input arguments.

    `skipped` counts the directory entries left out, by reason; `notes` tells a person about them
    and about what the names of files do not say. `verified` files (of installed
    packages) are checked against `sha256` while they are read, others against size and time.
    """

    sources: tuple[str, ...]
    files: tuple[InputFile, ...]
    skipped: dict[str, int] = field(default_factory=dict)
    verified: bool = False
    notes: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Bytes of all files on disk, so compressed ones count as they are."""
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
    """Expands directories, globs and files into a plan, in the order of the arguments.

    Inside a directory or glob, files are sorted by name. What is left out is counted: hidden
    entries, further names of a file, and links that lead outside, so that a corpus from elsewhere
    can't pull in files of this machine. (Links of a Hugging Face cache lead to its own blobs.) A
    directory gives only files with the endings of `ENDINGS`; a glob or a named file may have any
    other ending and is then plain text.

    Raises:
        InputError: an argument matches nothing, cannot be read, or names a file again.
    """
    sources: list[str] = []
    files: list[InputFile] = []
    skipped: Counter[str] = Counter()
    notes: list[str] = []
    named_by: dict[str, str] = {}
    for argument in map(str, arguments):
        matched = _expand(os.path.expanduser(argument))
        skipped.update(matched.skipped)
        notes += [f"{argument}: {note}" for note in matched.notes()]
        for relative, path in matched.files:
            resolved = os.path.realpath(path)
            if resolved in named_by:
                raise InputError(
                    f"{relative}: named by {named_by[resolved]} and again by {argument}; "
                    "drop one of the two inputs"
                )
            named_by[resolved] = argument
            files.append(_input_file(len(sources), relative, path))
        sources.append(matched.name)
    if not files:
        raise InputError("no input given; name a file, a directory or a quoted glob")
    return Plan(tuple(sources), tuple(files), dict(skipped), notes=tuple(notes))


def hash_files(
    plan: Plan,
    digests: dict[str, str] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Plan:
    """The plan with every file's sha256 filled in; several threads read.

    `digests` maps `fingerprint(file)` to digests computed earlier; `advance` gets the bytes hashed.
    """
    digests = digests or {}

    def digest(file: InputFile) -> InputFile:
        if file.sha256:
            return file
        earlier = digests.get(fingerprint(file))
        return replace(file, sha256=earlier or _sha256(file.path))

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


@dataclass
class _Matches:
    """What an argument stands for: its name, without this machine's paths, and its files.

    `other` counts files by an ending that says nothing of their kind: left out of a directory,
    plain text elsewhere.
    """

    name: str
    files: list[tuple[str, Path]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """Lines on what was left out or guessed."""
        lines = [
            f"left out {_LEFT_OUT[reason][0]} ({count:,}){_LEFT_OUT[reason][1]}"
            for reason, count in sorted(self.skipped.items())
            if reason in _LEFT_OUT
        ]
        if self.other:
            count = sum(self.other.values())
            endings = ", ".join(f"{ending} {n:,}" for ending, n in self.other.most_common(5))
            endings += ", ..." * (len(self.other) > 5)
            others = f"files of other endings ({count:,}: {endings})"
            lines.append(
                f"left out {others}; a quoted glob takes them as plain text"
                if self.skipped["other_ending"]
                else f"reads {others} as plain text, one document per file"
            )
        return lines


def _expand(argument: str) -> _Matches:
    path = Path(argument)
    if path.is_dir():
        matches = _Matches(path.resolve().name or "root")
        _walk(path, matches)
        if not matches.files:
            endings = ", ".join(ENDINGS)
            left_out = "".join(f"; {note}" for note in matches.notes())
            raise InputError(
                f"{argument}: no file to read in this directory ends in {endings}{left_out}; "
                f"for other plain text give a quoted glob such as '{argument}/**/*.md'"
            )
        return matches
    if path.exists():
        if not path.is_file():
            raise InputError(f"{argument}: neither a file nor a directory")
        return _counted_endings(_Matches(path.name, [(path.name, path)]))
    if path.is_symlink():
        raise InputError(f"{argument}: a link to {os.readlink(path)}, which is not there")
    if any(character in argument for character in _MAGIC):
        parts = path.parts
        first = next(i for i, part in enumerate(parts) if any(c in part for c in _MAGIC))
        root, pattern = Path(*parts[:first]), os.path.join(*parts[first:])
        prefix = root.resolve().name
        matches = _Matches(f"{prefix}/{pattern}" if prefix else pattern)
        _glob(root, pattern, matches)
        if not matches.files:
            left_out = "".join(f"; {note}" for note in matches.notes())
            raise InputError(
                f"{argument}: no file matches{left_out}; check the path and quote the glob"
            )
        return _counted_endings(matches)
    raise InputError(f"{argument}: no such file or directory; check the path")


def _walk(root: Path, matches: _Matches) -> None:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: {error.strerror}; make it readable or name its files")

    paths: list[Path] = []
    for directory, subdirectories, names in os.walk(root, onerror=refuse, followlinks=False):
        parent = Path(directory)
        for name in list(subdirectories):
            if name.startswith("."):
                subdirectories.remove(name)
                matches.skipped["hidden"] += 1
            elif (parent / name).is_symlink():
                matches.skipped["linked_directory"] += 1
        for name in names:
            if name.startswith("."):
                matches.skipped["hidden"] += 1
            elif file_kind(name) is None:
                matches.skipped["other_ending"] += 1
                matches.other[_ending(name)] += 1
            else:
                paths.append(parent / name)
    _keep_inside(root, paths, matches)


def _glob(root: Path, pattern: str, matches: _Matches) -> None:
    hidden = any(part.startswith(".") for part in Path(pattern).parts)
    paths = []
    for path in root.glob(pattern):
        if path.is_dir():
            continue
        if not hidden and any(part.startswith(".") for part in path.relative_to(root).parts):
            matches.skipped["hidden"] += 1
        else:
            paths.append(path)
    _keep_inside(root, paths, matches)


def _keep_inside(root: Path, paths: list[Path], matches: _Matches) -> None:
    """Adds the regular files whose real path is below `root`, each once, sorted by name."""
    roots = _real_roots(root)
    seen: set[str] = set()
    # A file comes before the links to it, which are left out.
    for path in sorted(paths, key=lambda path: (path.is_symlink(), os.fsencode(path))):
        real = os.path.realpath(path)
        if path.is_symlink() and not any(Path(real).is_relative_to(below) for below in roots):
            # A broken link says nothing about where it would lead.
            matches.skipped["link_outside" if os.path.exists(path) else "not_a_file"] += 1
        elif not path.is_file():
            matches.skipped["not_a_file"] += 1
        elif real in seen:
            matches.skipped["link_to_the_same"] += 1
        else:
            seen.add(real)
            matches.files.append((path.relative_to(root).as_posix(), path))
    matches.files.sort(key=lambda match: os.fsencode(match[0]))


def _real_roots(root: Path) -> list[Path]:
    """The directories that links below `root` may lead to.

    A Hugging Face cache holds `snapshots/REVISION/NAME`, links to the `blobs` beside `snapshots`.
    """
    real = Path(os.path.realpath(root))
    for directory in (real, *real.parents):
        if directory.name == "snapshots":
            return [real, directory.with_name("blobs")]
    return [real]


def _counted_endings(matches: _Matches) -> _Matches:
    names = (name.rpartition("/")[2] for name, _ in matches.files)
    matches.other.update(_ending(name) for name in names if file_kind(name) is None)
    return matches


def _ending(name: str) -> str:
    """A name's ending as notes tell it."""
    ending = os.path.splitext(name)[1]
    return ending if 1 < len(ending) <= 12 and ending.isprintable() else "without ending"


def file_kind(name: str) -> tuple[str, str] | None:
    """(kind, compression) by a file's name; None if its ending says nothing of its kind."""
    stem, ending = os.path.splitext(name.lower())
    compression = COMPRESSIONS.get(ending, "")
    kind = ENDINGS.get(os.path.splitext(stem)[1] if compression else ending)
    if kind is None or (compression and kind == "parquet"):
        return None
    return kind, compression


def _input_file(source: int, name: str, path: Path) -> InputFile:
    status = path.stat()
    kind, compression = file_kind(name) or ("text", "")
    return InputFile(
        source, name, path, kind, status.st_size, status.st_mtime_ns, compression=compression
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as stream:
            while block := stream.read(_HASH_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path.name}: {error.strerror}") from None
    return digest.hexdigest()
