"""Expected failures, each printed as one line."""


class CorpusError(Exception):
    """An expected failure. The message names the place and the remedy."""

    exit_code = 1


class InputError(CorpusError):
    """Input or settings that the user has to correct.

    `reason` is the short key under which `--skip-bad` counts the record in the manifest.
    """

    exit_code = 2

    def __init__(self, message: str, reason: str = "bad") -> None:
        super().__init__(message)
        self.reason = reason
