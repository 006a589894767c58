"""The recipe's steps as commands, each of which happens whole or not at all.

    python -m tools.lifecycle fork ORIGIN --name NAME --bucket BUCKET --purpose SENTENCE
    python -m tools.lifecycle drift [VARIANT...] [--apply COMMIT|plumbing]... [--format text|json]
    python -m tools.lifecycle drift VARIANT... --decline COMMIT... --reason SENTENCE
    python -m tools.lifecycle drift VARIANT... --synced COMMIT
    python -m tools.lifecycle upstream VARIANT --verdict SENTENCE [--resolved]
    python -m tools.lifecycle retire VARIANT --verdict SENTENCE [--keep-mentions]
    python -m tools.lifecycle rename VARIANT --to NAME
    python -m tools.lifecycle relink
    python -m tools.lifecycle recover [--abandon]

Each takes --root DIR, the workspace, and --stage, which puts what it wrote or removed into git's
index, and first finishes what a killed command left. Exit code 1, with one line per fault, if
something cannot be done or conflicts are left; 2 for a bad command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tools.common import transaction
from tools.common.errors import ToolError
from tools.common.paths import local_path, local_text
from tools.common.repository import Repository
from tools.lifecycle import drift, fork, plumbing, relink, rename, retire, upstream


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="lifecycle", description="Take a step of the recipe, whole or not at all."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fork_parser = commands.add_parser("fork", help="copy a variant and add its ledger entry")
    fork_parser.add_argument("origin", type=local_text, help="directory of the variant to copy")
    fork_parser.add_argument("--name", required=True, help="name of the copy")
    fork_parser.add_argument(
        "--bucket", required=True, help="the one part of the template that the copy changes"
    )
    fork_parser.add_argument(
        "--purpose", required=True, help="the question that the copy answers, in one sentence"
    )
    drift_parser = commands.add_parser(
        "drift", help="show which commits of their origins copies lack"
    )
    drift_parser.add_argument(
        "variants", nargs="*", type=local_text, help="names or directories; default: all"
    )
    drift_parser.add_argument(
        "--apply",
        action="append",
        default=[],
        metavar="COMMIT",
        help="commit to merge, or 'plumbing' to fast-forward the plumbing of all copies",
    )
    drift_parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="form of the list"
    )
    drift_parser.add_argument(
        "--decline",
        action="append",
        default=[],
        metavar="COMMIT",
        help="commit that the copies do without, for the --reason",
    )
    drift_parser.add_argument("--reason", default="", help="why commits are declined")
    drift_parser.add_argument(
        "--synced", default="", metavar="COMMIT", help="commit up to which all was looked at"
    )
    upstream_parser = commands.add_parser(
        "upstream", help="merge a variant's change into its origin"
    )
    upstream_parser.add_argument("variant", type=local_text, help="name or directory")
    upstream_parser.add_argument(
        "--resolved",
        action="store_true",
        help="mark the variant superseded, after its conflicts were resolved",
    )
    upstream_parser.add_argument(
        "--check", action="store_true", help="only say what would be refused"
    )
    upstream_parser.add_argument("--verdict", default="", help="what was learned, in one sentence")
    retire_parser = commands.add_parser("retire", help="remove a variant and keep its ledger entry")
    retire_parser.add_argument("variant", type=local_text, help="name or directory")
    retire_parser.add_argument("--verdict", default="", help="what was learned, in one sentence")
    retire_parser.add_argument(
        "--keep-mentions", action="store_true", help="remove it although texts still name it"
    )
    rename_parser = commands.add_parser("rename", help="give a variant another name")
    rename_parser.add_argument("variant", type=local_text, help="name or directory")
    rename_parser.add_argument("--to", required=True, help="new name")
    commands.add_parser("relink", help="name by content what a squash merge dropped")
    for command in (upstream_parser, retire_parser):
        command.add_argument("--sizes", default="", help="what was measured, as JSON, to keep")
    recover_parser = commands.add_parser("recover", help="finish what a killed command left")
    recover_parser.add_argument(
        "--abandon", action="store_true", help="discard it instead of finishing it"
    )
    for name, command in commands.choices.items():
        command.add_argument(
            "--root", type=local_path, default=Path("."), help="root of the workspace"
        )
        if name != "recover":
            what = "add to git's index just what was written or removed"
            command.add_argument("--stage", action="store_true", help=what)
    parser.set_defaults(stage=False)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    options = parse(arguments)
    try:
        repo = Repository(options.root, stages=options.stage)
        state = repo.state()
        with transaction.locked(state):
            if options.command == "recover" and options.abandon:
                print(transaction.abandon(state))
                return 0
            if message := transaction.recover(repo.root, state):
                print(message, file=sys.stderr)
            return run(options, repo)
    except ToolError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename or ''}: {error.strerror or error}", file=sys.stderr)
    return 1


# Commands that leave no conflicts.
_SIMPLE: dict[str, Callable[[Repository, argparse.Namespace], list[str]]] = {
    "fork": lambda repo, o: fork.fork(repo, o.origin, o.name, o.bucket, o.purpose),
    "rename": lambda repo, o: rename.rename(repo, o.variant, o.to),
    "retire": lambda repo, o: retire.retire(repo, o.variant, o.verdict, o.sizes, o.keep_mentions),
}


def run(options: argparse.Namespace, repo: Repository) -> int:
    """Runs the chosen command, prints what it did, and returns the exit code."""
    lines: list[str] = []
    conflicts = False
    if options.command in _SIMPLE:
        lines = _SIMPLE[options.command](repo, options)
    elif options.command == "drift":
        lines, conflicts = run_drift(options, repo)
    elif options.command == "upstream" and options.resolved:
        lines = upstream.resolved(repo, options.variant, options.verdict, options.sizes)
    elif options.command == "upstream":
        lines, conflicts = upstream.upstream(
            repo, options.variant, options.verdict, options.sizes, check=options.check
        )
    elif options.command == "relink":
        lines, conflicts = relink.relink(repo)
    if lines:
        print("\n".join(lines))
    return 1 if conflicts else 0


def run_drift(options: argparse.Namespace, repo: Repository) -> tuple[list[str], bool]:
    """(lines to print, whether conflicts were left) of the chosen form of `drift`."""
    names = options.variants
    if options.apply == [plumbing.WORD]:
        return plumbing.forward(repo, names), False
    if options.apply:
        return drift.port(repo, options.apply, names)
    if options.decline:
        return drift.decline(repo, options.decline, options.reason, names), False
    if options.synced:
        return drift.sync(repo, options.synced, names), False
    drifts = drift.drift(repo, names)
    return [drift.as_json(drifts) if options.format == "json" else drift.as_text(drifts)], False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
