"""Expected failures: what a person can mend is said as the tools say it, without the engine's part.

Pants shows every exception below "1 Exception encountered", with the goals and rules that it came
through: of use for a bug, and noise for a typing error in the ledger.
"""

from __future__ import annotations

from typing import NoReturn

from pants.engine.internals.nodes import Throw
from pants.engine.internals.scheduler import ExecutionError, SchedulerSession


class Refused(Exception):
    """An expected failure. The message is a line per fault: what, where and the remedy."""


_raise_as_pants = SchedulerSession._raise_on_error


def _raise_plainly(self: SchedulerSession, throws: list[Throw]) -> NoReturn:
    errors = [throw.exc for throw in throws]
    if not all(isinstance(error, Refused) for error in errors):
        _raise_as_pants(self, throws)
    said = "\n".join(dict.fromkeys(map(str, errors)))
    raise ExecutionError(said, wrapped_exceptions=tuple(errors))


# No rule can do it: `package` and `run` are goals of Pants, which end with any exception.
SchedulerSession._raise_on_error = _raise_plainly
