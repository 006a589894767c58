"""What a user can mend: one line that says what is wrong and what to do."""


class LocksError(Exception):
    """An expected failure; its text is one line with the remedy, or one a fault."""
