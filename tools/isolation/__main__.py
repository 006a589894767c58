"""What keeps a variant from standing alone, as JSON. The plugin runs both commands.

    python -m tools.isolation scan [--root DIR] [--today DATE] VARIANT FILE...
    python -m tools.isolation links --root DIR VARIANT...

`scan` reads a variant's Python files in a sandbox that holds them alone:

    {"schema_version": 1,
     "findings": [{"path", "line", "message"}, ...],        ways out of the variant
     "exemptions": [{"path", "line", "check", "until", "reason"}, ...],
     "problems": [{"path", "line", "message"}, ...]}        exemptions that do not hold

`links` looks at the workspace itself, since a sandbox holds what a symbolic link leads to in place
of the link; with --root so does `scan`.

Exit code 0; 1 where there are such links, whose absence alone may be remembered: a link replaced by
a copy changes no content. 2 for a bad command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from pathlib import Path

from tools.isolation import exemptions
from tools.isolation.scan import Finding, links, scan

SCHEMA_VERSION = 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="isolation")
    commands = parser.add_subparsers(dest="command", required=True)
    reading = commands.add_parser("scan", help="find ways out of a variant in its Python files")
    reading.add_argument("variants", nargs=1, metavar="VARIANT")
    reading.add_argument("files", nargs="*", metavar="FILE")
    reading.add_argument(
        "--root", type=Path, help="workspace in which to look for symbolic links, too"
    )
    reading.add_argument(
        "--today",
        type=datetime.date.fromisoformat,
        help="day from which to report overdue exemptions, YYYY-MM-DD",
    )
    linking = commands.add_parser("links", help="find symbolic links that lead out of variants")
    linking.add_argument("variants", nargs="+", metavar="VARIANT")
    linking.add_argument("--root", type=Path, required=True, help="root of the workspace")
    linking.set_defaults(files=[], today=None)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    options = parse(arguments)
    linked = [f for v in options.variants if options.root for f in links(options.root, v)]
    findings: list[Finding] = list(linked)
    found: list[exemptions.Exemption] = []
    problems: list[exemptions.Problem] = []
    for path in sorted(set(options.files)):
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        findings += scan(path, text, options.variants[0])
        named, wrong = exemptions.find(path, text)
        found += named
        problems += wrong
    if options.today:
        problems += exemptions.overdue(found, options.today)
    report = {
        "schema_version": SCHEMA_VERSION,
        "findings": [dataclasses.asdict(finding) for finding in sorted(findings)],
        "exemptions": [dataclasses.asdict(e) | {"until": str(e.until)} for e in found],
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }
    print(json.dumps(report, indent=1, sort_keys=True))
    return 1 if linked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
