"""Keeps what the ledger names and the main branch lacks, before a squash merge drops it."""

from __future__ import annotations

from collections.abc import Sequence

from tools.common.files import File, Tree
from tools.common.repository import Repository
from tools.common.transaction import Change
from tools.ledger import kept_sizes, kept_trees, pins
from tools.ledger.ledger import Entry
from tools.runs import kept_sources, run_summary
from tools.runs.run_summary import Run


def keep(repo: Repository, change: Change, path: str, tree: str, files: Tree) -> str | None:
    """Adds to a change that the directory `path` is kept, unless the main branch has it.

    Args:
        repo: the workspace.
        change: what the command is about to do.
        path: the directory, from the workspace's root.
        tree: git's full id of its content.
        files: that content.

    Returns:
        The file that will hold it; None if there is no need.
    """
    if pins.newest_with(repo, tree, path, repo.main_branches()):
        return None
    place = kept_trees.place(tree)
    if (repo.root / place).exists() or place in change.writes:
        return None
    change.put(place, None, File(kept_trees.encode(repo, tree, path, files)))
    return place


def keep_commit(repo: Repository, change: Change, commit: str, path: str) -> str | None:
    """As `keep`, of the directory as it is in a commit; None, too, if the commit lacks it."""
    tree = repo.object(commit, path)
    return keep(repo, change, path, tree, repo.files(commit, path)) if tree else None


def keep_sources(repo: Repository, change: Change, run: Run, paths: Sequence[str]) -> bool:
    """Adds to a change that the sources of a run of one of the directories are kept.

    Returns whether this clone has them.
    """
    commit = repo.commit(run.git["commit"] or "")
    sources = kept_sources.sources_of(repo, commit, paths) if commit else {}
    for name, data in sources.get(run.sources_digest, {}).items():
        change.put(f"{kept_sources.place(run.sources_digest)}/{name}", None, File(data))
    return run.sources_digest in sources


def _runs_of(repo: Repository, entry: Entry) -> list[Run]:
    runs, _ = run_summary.load_all(repo.root)
    return [run for run in runs if run.variant == entry.name]


def keep_runs(repo: Repository, change: Change, entry: Entry) -> list[str]:
    """Keeps the sources of an entry's runs that only this branch has; returns their directories."""
    _, beside = kept_sources.lost(repo, _runs_of(repo, entry))
    directories = entry.directories
    on_main = kept_sources.commits_of(repo, directories, repo.main_branches()) if beside else {}
    places: list[str] = []
    for run in beside:
        place = kept_sources.place(run.sources_digest)
        is_kept = run.sources_digest in on_main or (repo.root / place).is_dir()
        if not is_kept and place not in places and keep_sources(repo, change, run, directories):
            places.append(place)
    return places


def uncommitted_records(repo: Repository, entry: Entry) -> list[str]:
    """The files of an entry's runs that no commit has yet, though the ledger quotes them."""
    kept = [kept_sources.place(run.sources_digest) for run in _runs_of(repo, entry)]
    return repo.dirty(f"{run_summary.RUNS}/{entry.name}", *kept)


def keep_sizes(
    repo: Repository, change: Change, entry: Entry, entries: Sequence[Entry], sizes: str
) -> None:
    """Keeps how large a variant is, and its origin was, as the plugin measured them.

    Raises ToolError if `sizes` is malformed.
    """
    measured = kept_sizes.read_argument(sizes)
    origin = next((other for other in entries if other.name == entry.origin), None)
    forked = pins.parse(entry.forked_at)
    trees = {"variant": (repo.object("HEAD", entry.path), entry.path)}
    if origin and forked and (commit := pins.find(repo, forked, origin.path)):
        trees["origin"] = (repo.object(commit, origin.path), origin.path)
    elif origin and forked and forked.tree:
        trees["origin"] = (forked.tree, origin.path)
    for side, (tree, path) in trees.items():
        place = kept_sizes.place(tree)
        is_there = (repo.root / place).exists() or place in change.writes
        if side in measured and not is_there:
            change.put(place, None, File(kept_sizes.encode(measured[side], tree, path)))
