"""Compares an origin with a variant, as an HTML page, JSON or a Markdown comment.

    python -m tools.diff OLD NEW [--format html|json|markdown] [--out FILE]

OLD and NEW are directories (or files), or REF:PATH of a commit, so that deleted variants can still
be compared. Exit code 0; 1, with one line, if something is missing; 2 for a bad command line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.paths import local_path, local_text
from tools.diff import buckets, data, html, markdown, sizes
from tools.diff.compare_trees import compare
from tools.diff.model import Header
from tools.diff.read_trees import read
from tools.ledger.ledger import BUCKETS as DECLARED

# Where the template's change buckets are declared, from the workspace's root.
BUCKETS = Path("experiments/grug/buckets.json")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="diff", description="Compare a variant with its origin.")
    parser.add_argument("old", type=local_text, help="origin: a directory, or REF:PATH")
    parser.add_argument("new", type=local_text, help="variant: a directory, or REF:PATH")
    parser.add_argument(
        "--format",
        choices=("html", "json", "markdown"),
        default="html",
        help="form of the report (default: html)",
    )
    parser.add_argument("--out", type=local_path, help="file to write; default: standard output")
    parser.add_argument(
        "--fragment",
        action="store_true",
        help="write HTML without a document around it, for another page",
    )
    parser.add_argument("--old-label", help="name of the origin in the report")
    parser.add_argument("--new-label", help="name of the variant in the report")
    parser.add_argument("--old-commit", default="", help="commit of the origin, shown as given")
    parser.add_argument("--new-commit", default="", help="commit of the variant, shown as given")
    parser.add_argument(
        "--declared",
        choices=("", *DECLARED),
        default="",
        metavar="BUCKET",
        help="change bucket that the ledger declares",
    )
    parser.add_argument(
        "--found",
        action="store_true",
        help="say that the origin was found by similarity, not recorded",
    )
    parser.add_argument(
        "--buckets",
        type=local_path,
        help=f"map of change buckets; default: {BUCKETS}, if it is there",
    )
    parser.add_argument(
        "--sizes",
        type=local_path,
        help='file with {"old": SIZE, "new": SIZE}, each as tools.diff.sizes prints it',
    )
    parser.add_argument(
        "--cache", type=local_path, help="directory that keeps syntax colours between runs"
    )
    parser.add_argument(
        "--git-dir", type=local_text, help="git directory in which to look up REF:PATH"
    )
    return parser.parse_args(arguments)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no UTF-8"
        raise ToolError(f"{path}: {reason}; name a file that can be read") from error


def report(options: argparse.Namespace) -> str:
    """The report that a command line asks for.

    Raises:
        ToolError: something that the command line names is missing or malformed.
    """
    path = options.buckets or (BUCKETS if BUCKETS.exists() else None)
    bucket_map = buckets.parse(_read_text(path), path.name) if path else {}
    old, new = read(options.old, options.git_dir), read(options.new, options.git_dir)
    header = Header(
        options.old_label or old.name or "old",
        options.new_label or new.name or "new",
        options.old_commit,
        options.new_commit,
        options.found,
        options.declared,
        sizes.parse(_read_text(options.sizes), options.sizes.name) if options.sizes else None,
    )
    comparison = compare(old, new, bucket_map)
    if options.format == "json":
        return data.document(comparison, header)
    if options.format == "markdown":
        return markdown.comment(comparison, header)
    write = html.fragment if options.fragment else html.page
    return write(comparison, header, options.cache)


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    options = parse(arguments)
    try:
        # Names of files may hold bytes that are not UTF-8.
        written = report(options).encode("utf-8", "backslashreplace")
        if options.out:
            options.out.write_bytes(written)
        else:
            sys.stdout.buffer.write(written)
    except ToolError as error:
        print(f"diff: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"diff: {error.filename}: {error.strerror}; choose another --out", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
