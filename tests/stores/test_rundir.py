"""Claims of run directories, and what these hold, in buckets as in directories."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import time
from typing import Any

import pytest

from experiments.grug.base.plumbing import rundir
from experiments.grug.base.plumbing.rundir import Claim, RunDirError, claimed, open_run
from experiments.grug.base.plumbing.storage import Folder

FILES = {
    "run.json": json.dumps({"attempts": [], "config": {"steps": 9}}),
    "checkpoints/step-00000004/COMMIT": "{}",
    "metrics.jsonl": "{}\n",
    "notes.txt": "mine",
}


@pytest.mark.parametrize("kind", ["file", "s3", "gs"])
def test_each_combination_of_files_is_a_run_a_place_for_one_or_refused(root, kind):
    base = root(kind)
    for size, resume in itertools.product(range(5), (False, True)):
        for names in itertools.combinations(FILES, size):
            url = f"{base}/{'-'.join(n[:3] for n in names) or 'none'}-{resume}"
            for name in names:
                Folder(url).write(name, FILES[name].encode())
            if not names or ("run.json" in names and resume):
                assert open_run(url, resume=resume) == bool(names)
                continue
            said = "holds no run" if names == ("notes.txt",) else "of a run, but not its run.json"
            said = "--resume" if "run.json" in names else said
            with pytest.raises(RunDirError, match=said), claimed(url, resume=resume):
                pass
            assert set(Folder(url).names()) == set(names)


def hold(url: str, said: Any, together: Any) -> None:
    folder = Folder(url)
    together.wait(120)
    try:
        Claim(folder)
        said.put("has it")
        time.sleep(600)
    except RunDirError as error:
        said.put(str(error))


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_of_many_starts_at_once_one_has_the_directory_and_killed_it_has_it_no_more(root, kind):
    """fake-gcs-server writes whatever the condition: the claim is read again after a while."""
    url, context = root(kind), multiprocessing.get_context("spawn")
    for attempt in range(2):
        said, together = context.Queue(), context.Barrier(4)
        starts = [context.Process(target=hold, args=(url, said, together)) for _ in range(4)]
        for start in starts:
            start.start()
        outcomes = sorted(said.get(timeout=120) for _ in starts)
        for start in starts:
            start.kill()
            start.join()
        assert outcomes.count("has it") == 1, (attempt, outcomes)
        assert sum("runs here: stop that one" in text for text in outcomes) == 3


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_claim_is_renewed_lost_and_dropped(root, kind, monkeypatch):
    monkeypatch.setattr(rundir, "BEAT", 0.2)
    monkeypatch.setattr(rundir, "PATIENCE", 3.0)
    lost: list[Any] = []
    monkeypatch.setattr(rundir, "fail", lambda *reason: lost.append(reason))
    url = root(kind)
    claim = Claim(Folder(url))
    # As it looks to another host:
    monkeypatch.setattr(rundir, "lives", lambda holder: None)
    with pytest.raises(RunDirError, match="runs here"):
        Claim(Folder(url))
    assert claim.is_ours() and not lost
    claim._dropped.set()  # the holder is killed
    time.sleep(0.5)
    taker = Claim(Folder(url))
    assert taker.is_ours() and not claim.is_ours()
    taker.drop()
    assert Folder(url).names() == []
