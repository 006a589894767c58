"""The pre-commit hook: its text, and a test for hooks that we wrote."""

from __future__ import annotations

import hashlib
import shlex

MARK = "# grug's pre-commit hook, unchanged while its digest is "

_HEAD = """\
#!/bin/sh
# Runs ./pants fmt lint check on the files that are staged. ./pants run tools/hooks:install writes
# this file, with --uninstall removes it; git commit --no-verify goes without it.
"""
_BODY = r"""
# A hooks directory may serve repositories, and commits, that have no Pants.
[ -x "${workspace}pants" ] && [ -f "${workspace}pants.toml" ] || exit 0

say() { printf 'pre-commit: %s\n' "$*" >&2; }
# One name per line, odd ones quoted: to compare and to show.
names() {
  set -- -c core.quotePath=off -c diff.relative=false diff --name-only --diff-filter=ACMRT \
    --no-renames --no-ext-diff "$@"
  if [ -n "$workspace" ]; then git "$@" "--relative=$workspace"; else git "$@"; fi
}

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

# Pants has no address for a file with such a name: what it would lint unread has to be renamed, and
# other files are let be. (git prints names with quotes, backslashes and line breaks in quotes.)
odd='[]#:@*?[!"\\]'
code=$(grep "$odd" "$work/staged" | grep -E '(^|/)BUILD"?$|\.(pyi?|sh)"?$' | head -n 1)
if [ -n "$code" ]; then
  say "$code: Pants reads no file with one of # : @ * ? [ ] ! \" \\ in its name: rename it"
  exit 1
fi
grep -v "$odd" "$work/staged" | tr '\n' '\0' >"$work/list"
[ -s "$work/list" ] || exit 0

# Pants asks git, too, which must not see the index that this commit is made from. Files below
# .github/ and the like it cannot see, and lets be.
# shellcheck disable=SC2046
(
  unset $(git rev-parse --local-env-vars)
  cd "./$workspace" || exit 1
  ./pants --unmatched-cli-globs=ignore "--changed-since=list:$work/list" \
    --changed-dependents=none fmt lint check
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


def text(workspace: str = "") -> str:
    """The hook, with the digest by which `is_ours` recognises it.

    Args:
        workspace: the workspace's directory from the repository's root, with a `/` at its end.
    """
    body = f"\nworkspace={shlex.quote(workspace)}\n{_BODY}"
    return f"{_HEAD}{MARK}{_digest(_HEAD + body)}\n{body}"


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
