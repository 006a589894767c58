"""The workspace's locks: update them, see what changed, add and remove packages.

    ./pants run locks -- update cpu gpu tpu
    ./pants run locks -- diff --against main
    ./pants run locks -- add NAME
    ./pants run locks -- remove NAME

Exit codes: 0; 1 for an expected failure, in one line with the remedy, with nothing changed; 2 for a
bad command line.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from tools.common import transaction
from tools.common.errors import ToolError
from tools.common.paths import local_path, local_text
from tools.common.repository import Repository
from tools.requirements import commands, compare_locks, render
from tools.requirements.records import concerned, replaced
from tools.requirements.workspace import resolves


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="locks", description="Update the workspace's locks and say what changed in them."
    )
    verbs = parser.add_subparsers(dest="command", required=True)
    update_parser = verbs.add_parser(
        "update", help="regenerate locks with the newest versions that fit"
    )
    update_parser.add_argument(
        "resolves",
        nargs="*",
        metavar="RESOLVE",
        help="resolves to update: cpu, gpu, tpu, docs, ...",
    )
    update_parser.add_argument(
        "--all", action="store_true", help="update every resolve of pants.toml"
    )
    diff_parser = verbs.add_parser("diff", help="say what changed in locks")
    diff_parser.add_argument(
        "what",
        nargs="*",
        type=local_text,
        metavar="RESOLVE|FILE",
        help="resolves to compare with a commit's (default: all), or two lock files, old and new",
    )
    diff_parser.add_argument(
        "--against",
        default="HEAD",
        metavar="REF",
        help="commit to compare with (default: HEAD)",
    )
    add_parser = verbs.add_parser("add", help="add a package to every resolve that needs it")
    add_parser.add_argument(
        "requirement",
        metavar="NAME",
        help="package as its index names it, with extras and versions if needed: 'rich>=14'",
    )
    remove_parser = verbs.add_parser(
        "remove", help="remove a package from every resolve that has it"
    )
    remove_parser.add_argument("requirement", metavar="NAME", help="package to remove")
    for verb in (add_parser, remove_parser):
        verb.add_argument(
            "--for",
            dest="audience",
            default=commands.VARIANTS,
            metavar="WHO",
            help="variants (cpu, gpu and tpu; the default), tests (cpu alone), or a resolve",
        )
    for verb in verbs.choices.values():
        verb.add_argument(
            "--root", type=local_path, default=Path("."), help="root of the workspace"
        )
    options = parser.parse_args(arguments)
    if options.command == "update" and bool(options.resolves) == options.all:
        update_parser.error("name resolves, or --all")
    return options


def run(options: argparse.Namespace) -> str:
    """Runs the chosen command and returns the text to print."""
    repo = Repository(options.root)
    all_resolves = resolves(repo.root)
    if options.command == "diff":
        if len(options.what) == 2 and not set(options.what) <= all_resolves.keys():
            return render.differences([compare_locks.files(*map(Path, options.what))])
        differences = compare_locks.against(repo, options.what, options.against)
        return render.differences(differences.values(), concerned(repo.root, replaced(differences)))
    with transaction.locked(repo.state()):
        if message := transaction.recover(repo.root, repo.state()):
            print(message, file=sys.stderr)
    if options.command == "update":
        outcome = commands.update(repo, list(all_resolves) if options.all else options.resolves)
    elif options.command == "add":
        outcome = commands.add(repo, options.requirement, options.audience)
    else:
        outcome = commands.remove(repo, options.requirement, options.audience)
    return render.outcome(outcome)


def _stop(number: int, _: object) -> NoReturn:
    """Ends the process by an exception, so that temporary files are removed."""
    sys.exit(128 + number)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        print(run(options), end="")
        return 0
    except ToolError as error:
        print(f"locks: {error}", file=sys.stderr)
    except OSError as error:
        print(f"locks: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("locks: interrupted", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
