"""The logic of `./pants variants`; the plugin runs each command in a sandbox.

    python -m tools.variants origins LEDGER
        {"paths": {path: its origin's path or null}, "with_origin": [name, ...],
         "forked": {path: where its origin's directory was as it was copied}}
    python -m tools.variants facts VARIANT [ORIGIN]
        {"files", "lines", "added", "deleted", "own_plumbing", "plumbing"}
    python -m tools.variants sides LEDGER VARIANT [--against X] [--directories DIR...]
    python -m tools.variants all-sides LEDGER [--directories DIR...]
        {name: {"sides": what `sides` prints} or {"fault": why there are none}}, of each entry that
        has an origin
    python -m tools.variants list REQUEST LEDGER --format FORMAT       the list itself

A ledger that does not exist counts as empty. Exit code 1, with one line per fault, for a bad one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, get_args

from tools.common.errors import ToolError
from tools.common.files import MIB
from tools.common.jsonio import read_json
from tools.common.paths import local_path, local_text
from tools.common.sources import is_source
from tools.diff.plumbing import whose
from tools.ledger.files import compose
from tools.ledger.ledger import Entry, parse
from tools.variants.facts import compare
from tools.variants.listing import Format, listing
from tools.variants.sides import sides

MAX_REQUEST = 64 * MIB


def read_ledger(path: str) -> list[Entry]:
    """The entries of a ledger; none if the file does not exist. Raises ToolError for a bad one."""
    return parse(compose(Path(), path), path) if Path(path).exists() else []


def read_sources(directory: str) -> dict[str, bytes]:
    """The Python files below a directory, and the data that they may read, by path."""
    root = Path(directory)
    files = {p.relative_to(root).as_posix(): p for p in sorted(root.rglob("*")) if p.is_file()}
    # Tests are no sources of runs, and are of the variant.
    own = (name for name in files if name.endswith(".py") or is_source(name))
    return {name: files[name].read_bytes() for name in own}


def origins(ledger: str) -> dict[str, Any]:
    """The origin of each recorded variant, and which variants have one."""
    entries = read_ledger(ledger)
    paths = {entry.name: entry.path for entry in entries}
    return {
        "paths": {entry.path: paths.get(entry.origin) for entry in entries},
        "forked": {
            entry.path: f"{entry.forked_at}:{paths[entry.origin]}"
            for entry in entries
            if entry.origin in paths and entry.forked_at and entry.status != "deleted"
        },
        "with_origin": [entry.name for entry in entries if entry.origin in paths],
    }


def facts(variant: str, origin: str | None) -> dict[str, int | str | None]:
    """The size of a variant, its distance from its origin, and whose plumbing it has."""
    sources = read_sources(origin) if origin else {}
    measured = compare(read_sources(variant), sources or None, (variant, origin or ""))
    changed, own = measured.changed, measured.own_plumbing
    return {
        "files": measured.files,
        "lines": measured.lines,
        "added": changed.added if changed else None,
        "deleted": changed.deleted if changed else None,
        "own_plumbing": own,
        "plumbing": None if own is None else whose(own, origin or ""),
    }


def all_sides(ledger: str, directories: list[str]) -> dict[str, Any]:
    """What each recorded variant that has an origin is compared with, by name."""
    entries = read_ledger(ledger)
    paths = {entry.name for entry in entries}
    answers: dict[str, Any] = {}
    for entry in entries:
        if entry.origin in paths:
            try:
                found = sides(entry.name, "", entries, directories)
                answers[entry.name] = {"sides": dataclasses.asdict(found)}
            except ToolError as error:
                answers[entry.name] = {"fault": str(error)}
    return answers


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="variants", description="Print what ./pants variants needs to know, as JSON."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    of_all = commands.add_parser("origins", help="print the origin of each recorded variant")
    of_all.add_argument("ledger", type=local_text, help="path of the ledger")
    facts_of = commands.add_parser("facts", help="print the size of a variant")
    facts_of.add_argument("variant", type=local_text, help="directory of the variant")
    facts_of.add_argument("origin", nargs="?", type=local_text, help="directory of its origin")
    pair = commands.add_parser("sides", help="print what a variant is compared with")
    pair.add_argument("ledger", type=local_text, help="path of the ledger")
    pair.add_argument("variant", type=local_text, help="name or directory")
    pair.add_argument("--against", default="", help="variant or COMMIT:DIRECTORY, not its origin")
    pairs = commands.add_parser("all-sides", help="print what each variant is compared with")
    pairs.add_argument("ledger", type=local_text, help="path of the ledger")
    for command in (pair, pairs):
        command.add_argument(
            "--directories",
            nargs="*",
            type=local_text,
            default=[],
            help="directories that hold a variant",
        )
    list_parser = commands.add_parser("list", help="print the list of variants")
    list_parser.add_argument(
        "request", type=local_path, help="JSON file with what Pants knows of them"
    )
    list_parser.add_argument("ledger", type=local_text, help="path of the ledger")
    list_parser.add_argument(
        "--format", choices=get_args(Format), default="table", help="form of the list"
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "origins":
            print(json.dumps(origins(options.ledger), sort_keys=True))
        elif options.command == "facts":
            print(json.dumps(facts(options.variant, options.origin), sort_keys=True))
        elif options.command == "sides":
            entries = read_ledger(options.ledger)
            answer = sides(options.variant, options.against, entries, options.directories)
            print(json.dumps(dataclasses.asdict(answer), sort_keys=True))
        elif options.command == "all-sides":
            print(json.dumps(all_sides(options.ledger, options.directories), sort_keys=True))
        else:
            request = read_json(options.request, MAX_REQUEST)
            sys.stdout.write(listing(request, read_ledger(options.ledger), options.format))
    except ToolError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
