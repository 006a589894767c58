"""What long work says where there is no terminal."""

import io

import pytest

from tools.corpus import progress
from tools.corpus.progress import PlainProgress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_long_phase_says_what_is_left(clock):
    stream = io.StringIO()
    with PlainProgress(stream).phase("encoding", 40_000_000) as advance:
        for seconds in (2.0, 6.0, 8.0, 12.0):
            clock[0] = seconds
            advance(5_000_000)
    assert stream.getvalue().splitlines() == [
        "encoding: 10.0 of 40.0 MB, 18 s left",
        "encoding: 20.0 of 40.0 MB, 12 s left",
        "encoding: 20.0 MB, 1.7 MB/s, 12.0 s",
    ]


def test_a_phase_that_cannot_tell_says_that_it_begins(clock):
    stream = io.StringIO()
    with PlainProgress(stream).phase("training the tokenizer"):
        assert stream.getvalue() == "training the tokenizer...\n"
        clock[0] = 23.75
    assert stream.getvalue().endswith("training the tokenizer: 23.8 s\n")
