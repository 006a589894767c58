"""The comment that a pull request gets on the variants it adds or edits.

    python -m tools.review pack --summary FILE --pages dist/diff --out DIR
    python -m tools.review comment [--event FILE]

`pack` runs beside a pull request's own code and writes an artifact. `comment` runs with a token,
treats the artifact as hostile, and writes the comment. Exit code 0; 1, with one line, if something
is wrong; 2 for a bad command line. Uses the standard library alone, so that nothing is installed
where the token is.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tools.common import files
from tools.common.errors import ToolError, exit_with
from tools.common.paths import local_path
from tools.review import artifact, post
from tools.review.github import Client


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="review", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    pack_parser = commands.add_parser(
        "pack", help="write the artifact that the other workflow reads"
    )
    pack_parser.add_argument(
        "--summary", type=local_path, required=True, help="file with the reports as Markdown"
    )
    pack_parser.add_argument(
        "--pages",
        type=local_path,
        default=Path("dist/diff"),
        help="directory with NAME/index.html for each variant",
    )
    pack_parser.add_argument(
        "--out", type=local_path, required=True, help="directory of the artifact, to make"
    )
    comment_parser = commands.add_parser(
        "comment", help="create, update or remove the pull request's comment"
    )
    comment_parser.add_argument(
        "--event",
        type=local_path,
        default=os.environ.get("GITHUB_EVENT_PATH"),
        help="file with the workflow_run event; default: $GITHUB_EVENT_PATH",
    )
    comment_parser.add_argument("--bot", default=post.BOT, help="account that writes the comments")
    return parser.parse_args(arguments)


def _setting(name: str) -> str:
    if not (value := os.environ.get(name, "").strip()):
        raise ToolError(f"${name} is not set: run this in a workflow, or set it")
    return value


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    options = parse(arguments)
    if options.command == "pack":
        names = artifact.pack(options.summary, options.pages, options.out)
        print(f"{options.out}: {len(names)} reports")
        return 0
    if options.event is None:
        raise ToolError("$GITHUB_EVENT_PATH is not set: name the event with --event FILE")
    run = post.parse_event(
        files.read_text(options.event, post.MAX_EVENT), _setting("GITHUB_REPOSITORY")
    )
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    client = Client(_setting("GITHUB_API_URL"), _setting("GITHUB_TOKEN"))
    print(post.comment(client, run, server, options.bot))
    return 0


if __name__ == "__main__":
    exit_with(main)
