"""What of its origin was looked at for a copy, as the ledger says it in the field `synced`.

    COMMIT tree TREE; COMMIT applied; COMMIT declined: the reason

The first is a watermark: every commit of the origin up to it was looked at. Then come those that
were looked at before others were; declined ones stay, with their reasons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tools.common.errors import ToolError
from tools.ledger import pins
from tools.ledger.pins import SHORT, Pin

_LOOKED = re.compile(r"([0-9a-f]{7,64}) (?:applied|declined: (\S.*))")


@dataclass(frozen=True)
class Looked:
    """A commit of the origin that was applied or, with a reason, declined."""

    commit: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.commit[:SHORT]} {f'declined: {self.reason}' if self.reason else 'applied'}"

    def means(self, digest: str) -> bool:
        """Whether it is the commit of that full digest."""
        return digest.startswith(self.commit)


@dataclass(frozen=True)
class Synced:
    """The field's value."""

    pin: Pin
    looked: tuple[Looked, ...] = ()

    def __str__(self) -> str:
        return "; ".join(map(str, (self.pin, *self.looked)))

    def at(self, digest: str) -> Looked | None:
        """What was decided on the commit of that full digest; None if nothing is written."""
        return next((looked for looked in self.looked if looked.means(digest)), None)


def parse(text: str) -> Synced | None:
    """The value of a field; None if it is malformed."""
    first, *others = (part.strip() for part in text.split(";"))
    pin = pins.parse(first)
    matches = [_LOOKED.fullmatch(other) for other in others]
    if pin is None or None in matches:
        return None
    return Synced(pin, tuple(Looked(m[1], m[2] or "") for m in matches if m))


def check_reason(reason: str) -> str:
    """The stripped reason for declining a commit. Raises ToolError if it cannot stand there."""
    words = reason.strip()
    if not words:
        raise ToolError("a commit is declined for a reason: say it with --drift-reason='...'")
    if ";" in words or not words.isprintable():
        raise ToolError("the reason holds ';' or a line break: say it in one sentence without")
    return words


def declined(looked: Sequence[Looked]) -> list[Looked]:
    """Those that were declined."""
    return [one for one in looked if one.reason]
