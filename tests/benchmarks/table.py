"""Measurements of a benchmark and the table made of them."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One implementation's rounds, in the order in which they ran."""

    name: str
    seconds: tuple[float, ...]
    """Wall time of each round."""
    cpu_seconds: tuple[float, ...]
    """Time of all cores together in each round."""
    peak_bytes: int
    """The most memory its process held."""
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Row:
    """What the table says of one implementation."""

    name: str
    tokens_per_second: float
    slowest: float
    fastest: float
    ratio: float
    """Ours over this one, in tokens a second: the median over the rounds of the ratio in each."""
    peak_bytes: int
    milliseconds: float
    """A step, at the median."""


def summarize(
    ours: Measurement, peers: list[Measurement], *, tokens_per_step: int, steps_per_round: int
) -> list[Row]:
    """A row for each implementation, ours first."""
    rows = []
    for one in (ours, *peers):
        rates = [tokens_per_step * steps_per_round / seconds for seconds in one.seconds]
        ratios = [its / our for its, our in zip(one.seconds, ours.seconds, strict=True)]
        rows.append(
            Row(
                name=one.name,
                tokens_per_second=statistics.median(rates),
                slowest=min(rates),
                fastest=max(rates),
                ratio=statistics.median(ratios),
                peak_bytes=one.peak_bytes,
                milliseconds=1000 * statistics.median(one.seconds) / steps_per_round,
            )
        )
    return rows


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| implementation | tokens/s (min–max) | ours ÷ it | peak memory | ms a step |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        rate = f"{row.tokens_per_second:,.0f} ({row.slowest:,.0f}–{row.fastest:,.0f})"
        ratio = "1" if row is rows[0] else f"{row.ratio:.2f}"
        memory = f"{row.peak_bytes / 2**20:,.0f} MiB"
        lines.append(f"| {row.name} | {rate} | {ratio} | {memory} | {row.milliseconds:,.0f} |")
    return "\n".join(lines)
