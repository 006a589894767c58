"""What a user has to correct in the text or the settings."""

from tools.common.errors import ToolError


class InputError(ToolError):
    """A fault of the input or the settings, which ends the command with 2 instead of 1.

    `reason` is the short key under which `--skip-bad` counts the record in the manifest.
    """

    def __init__(self, message: str, reason: str = "bad") -> None:
        super().__init__(message)
        self.reason = reason
