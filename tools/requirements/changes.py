"""What a lock has that another had not: a pure comparison."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from tools.bundle.lock import Lock

Pair = tuple[str | None, str | None]
"""Before and after; None where there was or is none."""


@dataclass(frozen=True)
class Moved:
    """A distribution with other versions, or that only one of the locks has."""

    name: str
    old: str | None
    new: str | None

    @property
    def kind(self) -> str:
        """added, removed, updated or downgraded."""
        if self.old is None or self.new is None:
            return "added" if self.old is None else "removed"
        try:
            return "downgraded" if Version(self.new) < Version(self.old) else "updated"
        except InvalidVersion:
            return "updated"


@dataclass(frozen=True)
class Refiled:
    """A distribution whose files are others at the same version.

    An index may get further files for a release, and Pex picks those that fit; but a file of one
    name never changes its content where all is well.
    """

    name: str
    version: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    altered: tuple[str, ...]
    """Files of the same name with another sha256."""


@dataclass(frozen=True)
class LockChange:
    """One lock against an earlier one of the same resolve."""

    path: str
    old_sha256: str | None
    new_sha256: str | None
    size: int  # distributions now
    asked: tuple[Pair, ...]  # direct requirements: "jax==0.10.2" -> "jax==0.12.0"
    interpreters: Pair | None  # None: the same
    moved: tuple[Moved, ...]
    refiled: tuple[Refiled, ...]
    hosts: Pair | None  # where files are downloaded from, if from elsewhere than before

    @property
    def same(self) -> bool:
        """Whether the lock's file is byte for byte what it was."""
        return self.old_sha256 == self.new_sha256

    @property
    def altered(self) -> tuple[Refiled, ...]:
        """Distributions of an unchanged version whose files have other digests."""
        return tuple(each for each in self.refiled if each.altered)


def compare(path: str, old: Lock | None, new: Lock | None) -> LockChange:
    """`path` is the lock's, to name it; None stands for a lock that is not there."""
    before, after = (lock.distributions if lock else {} for lock in (old, new))
    versions = ((n, _version(before, n), _version(after, n)) for n in sorted({*before, *after}))
    pairs = (
        ", ".join(old.interpreters) if old else None,
        ", ".join(new.interpreters) if new else None,
    )
    hosts = tuple(", ".join(sorted(_hosts(lock))) or None for lock in (before, after))
    return LockChange(
        path=path,
        old_sha256=old.sha256 if old else None,
        new_sha256=new.sha256 if new else None,
        size=len(after),
        asked=tuple(_asked(old, new)),
        interpreters=pairs if pairs[0] != pairs[1] else None,
        moved=tuple(Moved(*each) for each in versions if each[1] != each[2]),
        refiled=tuple(_refiled(before, after)),
        hosts=(hosts[0], hosts[1]) if hosts[0] and hosts[1] and hosts[0] != hosts[1] else None,
    )


Entries = Mapping[str, Mapping[str, Any]]


def _version(entries: Entries, name: str) -> str | None:
    return entries[name]["version"] if name in entries else None


def _asked(old: Lock | None, new: Lock | None) -> Iterator[Pair]:
    before, after = (_by_name(lock) for lock in (old, new))
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield before.get(name), after.get(name)


def _by_name(lock: Lock | None) -> dict[str, str]:
    lines = lock.requirements if lock else ()
    return {canonicalize_name(Requirement(line).name): line for line in lines}


def _refiled(before: Entries, after: Entries) -> Iterator[Refiled]:
    for name in sorted(before.keys() & after.keys()):
        version = before[name]["version"]
        old, new = _files(before[name]), _files(after[name])
        if version != after[name]["version"] or old == new:
            continue
        altered = tuple(sorted(f for f in old.keys() & new.keys() if old[f] != new[f]))
        yield Refiled(
            name,
            version,
            added=tuple(sorted(new.keys() - old.keys())),
            removed=tuple(sorted(old.keys() - new.keys())),
            altered=altered,
        )


def _files(entry: Mapping[str, Any]) -> dict[str, str]:
    """Digests of a distribution's files by their names."""
    return {
        unquote(posixpath.basename(urlsplit(a["url"]).path)): f"{a['algorithm']}:{a['hash']}"
        for a in entry["artifacts"]
    }


def _hosts(entries: Entries) -> set[str]:
    """`files.example.org`; for files of this machine `file:`."""
    urls = (urlsplit(a["url"]) for entry in entries.values() for a in entry["artifacts"])
    return {url.hostname or f"{url.scheme}:" for url in urls}
