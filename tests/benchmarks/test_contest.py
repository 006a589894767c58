import contextlib
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks.contest import (
    NotMeasured,
    Worker,
    check_agreement,
    last_words,
    start,
    torch_python,
)
from tests.benchmarks.measure import BenchmarkError
from tests.benchmarks.worker import Job


@pytest.fixture
def begin(tmp_path):
    """`begin(CODE)`: a worker that runs it."""
    with contextlib.ExitStack() as keep:

        def begin(code: str) -> Worker:
            (tmp_path / "worker_module.py").write_text(code)
            path = {"PYTHONPATH": str(tmp_path)}
            return start("w", "worker_module", Job(tmp_path), keep, env=path, wait=False)

        yield begin


def test_a_worker_that_is_late_is_ended(begin):
    worker = begin("import time; time.sleep(60)")
    worker.until = time.monotonic() + 1
    with pytest.raises(NotMeasured, match="not ready in time"):
        worker.read()
    assert worker.process.wait(30) < 0


def test_an_answer_that_came_in_time_is_read_however_late(begin):
    worker = begin("import time; print('{}', '[]', sep='\\n', flush=True); time.sleep(60)")
    assert worker.read() == {}
    worker.until = time.monotonic() - 9
    assert worker.read() == []


def test_a_worker_that_ends_says_why(begin, capfd):
    worker = begin("raise MemoryError('no place')\n")
    with pytest.raises(NotMeasured, match="exit 1: MemoryError: no place"):
        worker.read()
    assert "Traceback" in capfd.readouterr().err


def test_the_last_words_are_those_of_the_last_exception():
    log = "W1 warns\nTraceback:\n  File x\njax.errors.OutOfMemoryError: 5 GiB\n----\nFor more"
    assert last_words(log) == "jax.errors.OutOfMemoryError: 5 GiB"
    assert last_words("a\n  b\nrefused: no\n") == "refused: no"
    assert last_words("") == "no message"
    assert len(last_words("x" * 5000)) <= 300


def test_a_peer_must_agree_in_as_many_steps_as_asked():
    def answering(*losses: float) -> Worker:
        answer = {"losses": list(losses), "grad_norms": [1.0] * len(losses)}
        return Worker("w", None, Path(), answer=answer)  # ty: ignore[invalid-argument-type]

    ours, peer = answering(5.0, 4.0), answering(5.001, 3.0)
    check_agreement(ours, peer, "bfloat16", 1)
    with pytest.raises(BenchmarkError, match="step 2: losses"):
        check_agreement(ours, peer, "bfloat16")


def test_an_interpreter_without_torch_is_not_taken():
    with pytest.raises(NotMeasured, match="has no torch"):
        torch_python(Path(sys.executable))
