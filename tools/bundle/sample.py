"""The text of the small sample in a bundle: the variant's own sources, a block a document.

    python -m tools.bundle.sample text.jsonl SOURCE...

A token store made of it lets anybody try a bundle without data: it tells that all works, no more.
"""

from __future__ import annotations

import argparse
import json
import sys

from tools.common.errors import ToolError
from tools.common.files import MIB, read_text
from tools.common.paths import local_path

_MAX_SOURCE = 64 * MIB
LENGTH = 1000  # characters of a document, about: enough of them that some are held out


def documents(text: str) -> list[str]:
    """`text` cut at blank lines into parts of at least LENGTH characters."""
    parts = [""]
    for block in text.split("\n\n"):
        if len(parts[-1]) >= LENGTH:
            parts.append("")
        parts[-1] += f"{block}\n\n"
    return [part for part in parts if part.strip()]


def main(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    parser = argparse.ArgumentParser(prog="sample", description="Write a bundle's sample of text.")
    parser.add_argument(
        "out", type=local_path, help="file of JSON lines to write, one document per line"
    )
    parser.add_argument("sources", nargs="+", type=local_path, metavar="SOURCE")
    options = parser.parse_args(arguments)
    try:
        texts = [
            part
            for path in sorted(options.sources)
            for part in documents(read_text(path, _MAX_SOURCE))
        ]
        options.out.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    except ToolError as error:
        print(f"sample: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"sample: {options.out}: {error.strerror}; choose another OUT", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
