"""The contract suite's checks, and a variant's exemptions from them.

A variant that differs on purpose says so in one of its own sources, on a separate line:

    # grug: no-contract CHECK until YYYY-MM-DD: REASON
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import io
import re
import tokenize

CHECKS: dict[str, str] = {
    "abstract-meshes": "One step keeps shapes, dtypes and shardings on meshes of 8 devices.",
    "branch": "A branch with the same horizon is the run that went on, bit for bit.",
    "causality": "Nothing of a later token reaches an earlier position.",
    "checkpoint": "A checkpoint gives the training state back bit for bit, on any mesh.",
    "config": "Configs and presets construct and resolve; a bad value is named.",
    "config-fields": "Every config field of base is there; an added one has a docstring.",
    "context": "Steps are the same where devices share the positions of each row.",
    "document-isolation": "Packed documents do not see each other.",
    "ema": "The EMA is the running average of the weights and changes no loss.",
    "files": "The files of base are there, within their bounds of length.",
    "finite-step": "A step is finite and the same bit for bit when made again.",
    "flops": "flops_per_token is what the matrix products of the model come to.",
    "help": "--help names every flag; --plan tells sizes and allocates nothing.",
    "keys": "A query meets as many keys as the config says, in rows of any length.",
    "loss": "The loss is that of the logits, and its gradient its own.",
    "loss-falls": "The loss falls on real text, below what token frequencies alone give.",
    "metrics": "A run writes one line per step with every metric that base promises.",
    "parts": "The compiled program names each part of the model; without names it is the same.",
    "plan": "The plan compiles the step that runs, and says whether it fits.",
    "presets": "The presets are tiny, 130m, 350m and 1b.",
    "record": "A run's record holds its sources, config, lock and versions.",
    "resume": "An interrupted and resumed run is the uninterrupted one bit for bit.",
    "watch": "Watched norms are those of the step, on any mesh, and change no number.",
    "weights-learn": "Every array of the model changes in training by more than its decay.",
}
"""Each check by name, with one line on what must hold."""

SYNTAX = "# grug: no-contract CHECK until YYYY-MM-DD: REASON"
"""The form of an exemption."""

_EXEMPTION = re.compile(
    r"no-contract\s+(?P<check>\S+?)(\s+until\b\s*(?P<until>[^\s:]*))?\s*:(?P<reason>.*)"
)
_SHORTEST_REASON = 10
_LONGEST = datetime.timedelta(days=366)


@dataclasses.dataclass(frozen=True)
class Exemption:
    """A variant's statement that one check does not hold for it, for a while."""

    path: str
    line: int
    check: str
    until: datetime.date
    """The last day on which it is valid."""
    reason: str


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something to correct; the message holds the offending value and the remedy."""

    path: str
    line: int
    message: str


def find(path: str, text: str) -> tuple[list[Exemption], list[Problem]]:
    """The exemptions in the Python source `text`, and a problem for each malformed one.

    Only comments count, not strings. A source that is not Python has neither; other tools report
    that.
    """
    exemptions: list[Exemption] = []
    problems: list[Problem] = []
    for token in _comments(text):
        comment = token.string.lstrip("#").strip()
        if not comment.startswith("grug:"):
            continue
        line = token.start[0]
        is_alone = not token.line[: token.start[1]].strip()
        parsed = _parse(comment.removeprefix("grug:").strip()) if is_alone else _NOT_ALONE
        if isinstance(parsed, str):
            problems.append(Problem(path, line, parsed))
        else:
            exemptions.append(Exemption(path, line, *parsed))
    return exemptions, problems


def overdue(exemptions: list[Exemption], today: datetime.date) -> list[Problem]:
    """A problem for each exemption whose date is past, or more than a year ahead."""
    problems = []
    for e in exemptions:
        if e.until < today:
            message = (
                f"the exemption from {e.check} ended on {e.until}: remove this line, or decide "
                "anew and give a later date"
            )
        elif e.until > today + _LONGEST:
            message = (
                f"the exemption from {e.check} lasts until {e.until}: a year from today "
                f"({today}) is the most"
            )
        else:
            continue
        problems.append(Problem(e.path, e.line, message))
    return problems


_NOT_ALONE = f"an exemption stands on a line of its own: {SYNTAX}"


def _comments(text: str) -> list[tokenize.TokenInfo]:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    return [token for token in tokens if token.type == tokenize.COMMENT]


def _parse(text: str) -> tuple[str, datetime.date, str] | str:
    """(check, until, reason), or a message that says what is wrong."""
    match = _EXEMPTION.fullmatch(text)
    if not match:
        return f"{text!r} is not understood; write {SYNTAX}"
    check, until, reason = match["check"], match["until"], match["reason"].strip()
    if check not in CHECKS:
        close = difflib.get_close_matches(check, CHECKS, n=3) or sorted(CHECKS)
        return f"no check is called {check!r}; did you mean {', '.join(close)}?"
    if not until:
        return f"the exemption from {check} has no date; write {SYNTAX}"
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", until):
            raise ValueError(until)
        date = datetime.date.fromisoformat(until)
    except ValueError:
        return f"{until!r} is no date; write until YYYY-MM-DD"
    if len(reason) < _SHORTEST_REASON:
        return (
            f"the exemption from {check} gives {reason!r} as its reason: say in a sentence why the "
            "variant means to differ"
        )
    return check, date, reason
