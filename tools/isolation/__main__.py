"""Finds what keeps a variant from standing alone, as JSON. The plugin runs both commands.

    python -m tools.isolation scan [--root DIR] [--today DATE] VARIANT FILE...
    python -m tools.isolation links --root DIR VARIANT...

`scan` reads a variant's Python files in a sandbox that holds them alone:

    {"schema_version": 1,
     "findings": [{"path", "line", "message"}, ...],        ways out of the variant
     "exemptions": [{"path", "line", "check", "until", "reason"}, ...],
     "problems": [{"path", "line", "message"}, ...]}        exemptions that do not hold

`links` reads the workspace itself, since a sandbox holds the target of a symbolic link instead of
the link; with --root so does `scan`.

Exit code 0; 1 if there are such links, since only a result without links may be cached (replacing a
link by a copy changes no content); 2 for a bad command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import require_directory
from tools.common.paths import local_path, local_text
from tools.isolation import exemptions
from tools.isolation.scan import Finding, links, scan

SCHEMA_VERSION = 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="isolation", description="Find what a variant reaches outside its directory."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    scan_parser = commands.add_parser("scan", help="find ways out of a variant in its Python files")
    scan_parser.add_argument("variants", nargs=1, type=local_text, metavar="VARIANT")
    scan_parser.add_argument("files", nargs="*", type=local_text, metavar="FILE")
    scan_parser.add_argument(
        "--root", type=local_path, help="workspace, to look for symbolic links in it, too"
    )
    scan_parser.add_argument(
        "--today",
        type=datetime.date.fromisoformat,
        help="day from which to report overdue exemptions, YYYY-MM-DD",
    )
    links_parser = commands.add_parser(
        "links", help="find symbolic links that lead out of variants"
    )
    links_parser.add_argument("variants", nargs="+", type=local_text, metavar="VARIANT")
    links_parser.add_argument(
        "--root", type=local_path, required=True, help="root of the workspace"
    )
    links_parser.set_defaults(files=[], today=None)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    options = parse(arguments)
    try:
        return report(options)
    except ToolError as error:
        print(f"isolation: {error}", file=sys.stderr)
        return 1


def report(options: argparse.Namespace) -> int:
    """Prints what a command line asks for; returns the exit code.

    Raises:
        ToolError: the root is no directory, or a file cannot be read.
    """
    if options.root:
        require_directory(options.root)
    link_findings = [f for v in options.variants if options.root for f in links(options.root, v)]
    findings: list[Finding] = list(link_findings)
    all_exemptions: list[exemptions.Exemption] = []
    problems: list[exemptions.Problem] = []
    for path in sorted(set(options.files)):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}; name files that can be read") from error
        findings += scan(path, text, options.variants[0])
        exempted, malformed = exemptions.find(path, text)
        all_exemptions += exempted
        problems += malformed
    if options.today:
        problems += exemptions.overdue(all_exemptions, options.today)
    answer = {
        "schema_version": SCHEMA_VERSION,
        "findings": [dataclasses.asdict(finding) for finding in sorted(findings)],
        "exemptions": [dataclasses.asdict(e) | {"until": str(e.until)} for e in all_exemptions],
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }
    print(json.dumps(answer, indent=1, sort_keys=True))
    return 1 if link_findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
