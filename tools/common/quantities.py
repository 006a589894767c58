"""Numbers as people read them."""

from __future__ import annotations


def scaled(value: float, letters: str) -> str:
    """A number of three digits and the letter of its power of a thousand: `2.66M`."""
    power = 0
    while float(f"{value:.3g}") >= 1000 and power < len(letters):
        value, power = value / 1000, power + 1
    return f"{float(f'{value:.3g}'):g}{letters[power - 1] if power else ''}"


def flop(value: float) -> str:
    """A number of floating-point operations: `10.2 TFLOP`."""
    number = scaled(value, "kMGTPEZY")
    return f"{number.rstrip('kMGTPEZY')} {number.lstrip('0123456789.')}FLOP"
