"""The pre-commit hook: its text, and a test for hooks that we wrote."""

from __future__ import annotations

import hashlib

MARK = "# grug's pre-commit hook, unchanged while its digest is "

_HEAD = """\
#!/bin/sh
# Runs ./pants fmt lint check on the files that are staged. ./pants run tools/hooks:install writes
# this file, with --uninstall removes it; git commit --no-verify goes without it.
"""
_BODY = r"""
# A hooks directory may serve repositories, and commits, that have no Pants.
[ -x ./pants ] && [ -f pants.toml ] || exit 0

say() { echo "pre-commit: $*" >&2; }
names() { git -c core.quotePath=off diff --name-only --diff-filter=ACMRT --no-ext-diff "$@"; }

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
names --cached >"$work/staged" && names >"$work/edited" || exit 1
[ -s "$work/staged" ] || exit 0

# Pants reads files, not git's index: a file that is staged in part would be judged, and formatted,
# with edits that are not committed.
sort "$work/staged" >"$work/a" && sort "$work/edited" >"$work/b"
partly=$(comm -12 "$work/a" "$work/b" | head -n 1)
if [ -n "$partly" ]; then
  say "$partly is staged only in part: git add it, or stash the rest: git stash --keep-index"
  exit 1
fi

# Pants asks git, too, which must not see the index that this commit is made from. Files below
# .github/ and the like it cannot see, and lets be.
# shellcheck disable=SC2046
(
  unset $(git rev-parse --local-env-vars)
  ./pants --unmatched-cli-globs=ignore --spec-files="$work/staged" fmt lint check
)
status=$?
names >"$work/edited"
sort "$work/edited" >"$work/b"
formatted=$(comm -12 "$work/a" "$work/b" | paste -sd ' ' -)
if [ -n "$formatted" ]; then
  say "formatted ${formatted}: look at that, git add it, and commit again"
  exit 1
fi
[ "$status" -eq 0 ] || say "not committed: mend what is said above"
exit "$status"
"""


def text() -> str:
    """The hook, with the digest by which `is_ours` recognises it."""
    return f"{_HEAD}{MARK}{_digest(_HEAD + _BODY)}\n{_BODY}"


def is_ours(text: str) -> bool:
    """Whether a file's text is a hook of ours, of any version, that nobody has edited."""
    lines = text.splitlines(keepends=True)
    marks = [line for line in lines if line.startswith(MARK)]
    if len(marks) != 1:
        return False
    others = "".join(line for line in lines if line is not marks[0])
    return marks[0] == f"{MARK}{_digest(others)}\n"


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
