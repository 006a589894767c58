"""The values that a config's field may have: stated with the field, checked when it is made."""

import dataclasses
import math
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from `low` to `high`, without these with `above` and `below`."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        return math.isfinite(value) and low and high

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}"
        high = f"{'below' if self.below else 'at most'} {self.high:.10g}"
        return f"{low} and {high}" if math.isfinite(self.high) else low


Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Decay = Annotated[float, Range(0, 1, below=True)]
"""A share of a running average's past that is kept; one of 1 would never change."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What the shuffle of grain takes."""


def check_ranges(config: Any) -> None:
    """Raises ValueError for the first field of a dataclass that has none of its values."""
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(get_args(hint))}")
        for item in get_args(hint):
            if isinstance(item, Range) and value not in item:
                raise ValueError(f"{name}={value}: must be {item}")
