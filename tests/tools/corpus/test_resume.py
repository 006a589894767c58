"""A build that is killed at any moment resumes and ends with the same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from tools.common.errors import ToolError
from tools.corpus.build import Pace, Settings, _lock, build
from tools.corpus.errors import InputError
from tools.corpus.inputs import fingerprint, hash_files, plan_inputs
from tools.corpus.journal import Journal, State
from tools.corpus.store import Appender

# Kills itself with SIGKILL at the n-th of the moments that matter: around each flush to disk,
# each finished shard, each rename and each removal.
KILLED = """
import functools, os, signal, sys
from pathlib import Path
from tools.corpus import store
from tools.corpus.build import Pace, Settings, build
from tools.corpus.inputs import plan_inputs

left = int(sys.argv[1])

def moment():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def around(owner, name):
    function = getattr(owner, name)
    @functools.wraps(function)
    def wrapped(*arguments, **options):
        moment()
        result = function(*arguments, **options)
        moment()
        return result
    setattr(owner, name, wrapped)

for owner, name in [(os, "fsync"), (store.Appender, "_write_shard"), (Path, "rename"),
                    (Path, "replace"), (Path, "unlink")]:
    around(owner, name)
settings = Settings(vocab_size=300, heldout_fraction=0.2, shard_length=4000)
build(plan_inputs(sys.argv[3:]), Path(sys.argv[2]), settings, pace=Pace(20_000, 100, 40_000))
print("moments", -left)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, words: str) -> list[Path]:
    """A .jsonl with blank lines, a directory of text and a document of several slices."""
    root = tmp_path_factory.mktemp("inputs")
    lines = [json.dumps({"text": f"{n} {words[: 50 * n]}"}) + "\n" * (1 + n % 2) for n in range(30)]
    (root / "a.jsonl").write_text("".join(lines))
    (root / "more").mkdir()
    for number in range(8):
        (root / f"more/{number}.txt").write_text(f"{number}{words}")
    (root / "long.txt").write_text(words * 40)
    return [root / "a.jsonl", root / "more", root / "long.txt"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, inputs: list[Path]) -> Path:
    """The store of an uninterrupted build."""
    settings = Settings(vocab_size=300, heldout_fraction=0.2, shard_length=4000)
    return build(plan_inputs(inputs), tmp_path_factory.mktemp("whole") / "out", settings).store


def finished_shards(partial: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every shard that the journal calls finished."""
    journal = partial / "journal.jsonl"
    result = {}
    if journal.exists():
        for line in journal.read_bytes().split(b"\n")[1:]:
            try:
                shards = json.loads(line)["shards"]
            except ValueError:
                continue
            for name, digests in shards.items():
                count = sum(1 for key in result if key.startswith(f"{name}/"))
                for index in range(count, count + len(digests)):
                    status = (partial / f"store/{name}/c/{index}").stat()
                    result[f"{name}/c/{index}"] = (status.st_ino, status.st_mtime_ns)
    return result


@pytest.mark.parametrize("step", [3, 17, 44, 101])
def test_killed_again_and_again(
    tmp_path: Path, inputs: list[Path], whole: Path, step: int, run, digests
) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    kept: dict[str, tuple[int, int]] = {}
    kills = 0
    moment = step
    while True:
        result = run("-c", KILLED, str(moment), out, *inputs)
        if result.returncode == 0:
            break
        assert result.returncode == -9, result.stderr
        kills += 1
        moment = step + kills * 7  # so that every run gets farther, whatever the first does
        if (partial / "store").exists():
            now = finished_shards(partial)
            assert {name: now.get(name) for name in kept} == kept, "a finished shard was redone"
            kept = now
        assert kills < 40
    assert kills > 0
    assert digests(out) == digests(whole)
    for name, (inode, mtime) in kept.items():
        status = (out / name).stat()
        assert (status.st_ino, status.st_mtime_ns) == (inode, mtime), f"{name} was redone"
    assert not partial.exists()


def test_kill_between_rename_and_cleanup(
    tmp_path: Path, inputs: list[Path], whole: Path, digests
) -> None:
    shutil.copytree(whole, tmp_path / "out")
    (tmp_path / "out.partial/tails").mkdir(parents=True)
    settings = Settings(vocab_size=300, heldout_fraction=0.2, shard_length=4000)
    result = build(plan_inputs(inputs), tmp_path / "out", settings)
    assert result.already_there and not (tmp_path / "out.partial").exists()
    assert digests(tmp_path / "out") == digests(whole)


def kill_midway(tmp_path: Path, source: Path, run) -> Path:
    result = run("-c", KILLED, "60", tmp_path / "out", source)
    assert result.returncode == -9, result.stderr
    assert finished_shards(tmp_path / "out.partial")
    return tmp_path / "out"


def test_changed_inputs_or_settings_lose_nothing_silently(
    tmp_path: Path, words: str, run, digests
) -> None:
    source = tmp_path / "a.txt"
    source.write_text(words * 40)
    out = kill_midway(tmp_path, source, run)
    before = digests(tmp_path / "out.partial")
    settings = Settings(vocab_size=300, heldout_fraction=0.2, shard_length=4000)
    other = Settings(vocab_size=301, heldout_fraction=0.2, shard_length=4000)
    with pytest.raises(ToolError, match="unfinished work on other settings.*--restart"):
        build(plan_inputs([source]), out, other)
    source.write_text(words * 43)
    with pytest.raises(ToolError, match="unfinished work on other sources.*--restart"):
        build(plan_inputs([source]), out, settings)
    after = digests(tmp_path / "out.partial")
    assert {**after, "files.json": before["files.json"]} == before
    result = build(plan_inputs([source]), out, settings, restart=True)
    clean = build(plan_inputs([source]), tmp_path / "clean", settings)
    assert not result.resumed and digests(result.store) == digests(clean.store)


def test_a_corrected_input_needs_no_restart_if_nothing_was_done(tmp_path: Path, words: str) -> None:
    source = tmp_path / "a.txt"
    source.write_bytes(b"\xff" + words.encode())
    with pytest.raises(InputError):
        build(plan_inputs([source]), tmp_path / "out", Settings(vocab_size=300))
    assert not (tmp_path / "out.partial").exists()
    source.write_text(words)
    build(plan_inputs([source]), tmp_path / "out", Settings(vocab_size=300))


def test_skip_bad_resumes_what_a_bad_record_stopped(
    tmp_path: Path, words: str, tokenizer: Path, digests
) -> None:
    lines = [json.dumps({"text": f"{n} {words}"}) for n in range(20)]
    source = tmp_path / "a.jsonl"
    source.write_text("\n".join([*lines[:15], "{", *lines[15:]]) + "\n")
    settings, pace = Settings(tokenizer, heldout_fraction=0.2), Pace(10_000, 100, 10_000)
    with pytest.raises(InputError, match="a.jsonl: record 16: not JSON"):
        build(plan_inputs([source]), tmp_path / "out", settings, pace=pace)
    result = build(plan_inputs([source]), tmp_path / "out", settings, pace=pace, skip_bad=True)
    assert result.resumed and result.manifest["skipped"] == {"invalid_json": 1}
    clean = build(plan_inputs([source]), tmp_path / "clean", settings, skip_bad=True)
    assert digests(result.store) == digests(clean.store)


def test_what_was_skipped_is_not_resumed_unasked(
    tmp_path: Path, words: str, tokenizer: Path
) -> None:
    lines = [json.dumps({"text": f"{n} {words}"}) for n in range(9)]
    (tmp_path / "a.jsonl").write_text("\n".join([lines[0], "{", *lines[1:]]))
    (tmp_path / "b.txt").write_text(words)
    inputs = plan_inputs([tmp_path / "a.jsonl", tmp_path / "b.txt"])
    out, settings, pace = tmp_path / "out", Settings(tokenizer), Pace(1, 1, 1)
    hashed = hash_files(replace(inputs, files=inputs.files[:1])).files
    inputs = replace(inputs, files=(*hashed, replace(inputs.files[1], sha256="0" * 64)))
    inputs = replace(inputs, verified=True)
    (tmp_path / "b.txt").write_text("not what was planned")
    with pytest.raises(ToolError, match="not as its package shipped it"):
        build(inputs, out, settings, pace=pace, skip_bad=True)
    with pytest.raises(ToolError, match="skipped 1 records; pass --skip-bad again"):
        build(inputs, out, settings, pace=pace)


def test_a_line_of_the_journal_cut_short_is_ignored(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.load() is None
    journal.begin({"a": 1})
    state = State(source_documents={0: 3}, shards={"train/tokens": ["aa"]})
    journal.commit(state)
    whole = (tmp_path / "journal.jsonl").read_bytes()
    state.shards["train/tokens"].append("bb")
    journal.commit(state)
    full = (tmp_path / "journal.jsonl").read_bytes()
    for end in range(len(whole), len(full)):
        (tmp_path / "journal.jsonl").write_bytes(full[:end])
        again = Journal(tmp_path / "journal.jsonl")
        result = again.load()
        assert result and result[1].shards == {"train/tokens": ["aa"]}
        assert (tmp_path / "journal.jsonl").read_bytes() == whole
        again.commit(state)
        assert (tmp_path / "journal.jsonl").read_bytes() == full


def test_work_of_another_version_is_not_resumed(tmp_path: Path, words: str, digests) -> None:
    (tmp_path / "a.txt").write_text(words)
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "journal.jsonl").write_text('{"identity": {}}\n')
    plan, settings = plan_inputs([tmp_path / "a.txt"]), Settings(vocab_size=300)
    before = digests(partial)
    (partial / "journal.jsonl").write_text('{"identity":\n')
    with pytest.raises(ToolError, match="journal.jsonl: is damaged; pass --restart"):
        build(plan, tmp_path / "out", settings)
    (partial / "journal.jsonl").write_text('{"identity": {}}\n')
    (partial / "files.json").write_text("{")  # damaged, but only a shortcut
    before = digests(partial) | {"files.json": ANY}
    with pytest.raises(ToolError, match="unfinished work of another version.*--restart"):
        build(plan, tmp_path / "out", settings)
    assert digests(partial) == before
    assert build(plan, tmp_path / "out", settings, restart=True).store == tmp_path / "out"


def test_digests_of_long_files_are_remembered_by_name_size_and_time(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    plan = plan_inputs([tmp_path])
    known = {fingerprint(plan.files[0]): "remembered"}
    digests = [file.sha256 for file in hash_files(plan, known).files]
    assert digests == ["remembered", hashlib.sha256(b"b.txt").hexdigest()]
    (tmp_path / "a.txt").write_text("a.tx2")
    assert hash_files(plan_inputs([tmp_path]), known).files[0].sha256 != "remembered"


def test_a_lock_that_was_removed_while_waiting_is_taken_anew(tmp_path: Path) -> None:
    """The waiter must not hold a lock on a file that nobody else can find any more."""
    path, order = tmp_path / "lock", []

    def wait() -> None:
        with _lock(path, path, wait=True):
            order.append("waiter")
            refused = pytest.raises(ToolError, match="another process")
            with refused, _lock(path, path, wait=False):
                order.append("both")

    with _lock(path, path, wait=False):
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.2)
        order.append("holder")
    waiter.join(10)
    assert order == ["holder", "waiter"]


def test_a_store_of_other_inputs_is_kept(tmp_path: Path, words: str, tokenizer: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text(words)
    build(plan_inputs([source]), tmp_path / "out", Settings(tokenizer))
    assert build(plan_inputs([source]), tmp_path / "out", Settings(tokenizer)).already_there
    with pytest.raises(ToolError, match="other heldout fraction; choose another --out"):
        build(plan_inputs([source]), tmp_path / "out", Settings(tokenizer, heldout_fraction=0.5))
    source.write_text(words * 2)
    with pytest.raises(ToolError, match="other sources; choose another --out"):
        build(plan_inputs([source]), tmp_path / "out", Settings(tokenizer))
    (tmp_path / "used").mkdir()
    with pytest.raises(ToolError, match="no token store"):
        build(plan_inputs([source]), tmp_path / "used", Settings(tokenizer))


def test_tensorstore_on_a_full_disk(
    tmp_path: Path, words: str, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its errors are ValueErrors with the system's code at the end."""
    source = tmp_path / "a.txt"
    source.write_text(words)

    def write_shard(appender: Appender, index: int) -> None:
        code = " [os_error_code='28']" if full else ""
        raise ValueError(f"RESOURCE_EXHAUSTED: Error writing local file{code}")

    monkeypatch.setattr(Appender, "_write_shard", write_shard)
    full = True
    with pytest.raises(ToolError, match="No space left on device; make room and run again"):
        build(plan_inputs([source]), tmp_path / "out", Settings(tokenizer))
    full = False
    with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED"):
        build(plan_inputs([source]), tmp_path / "out", Settings(tokenizer))


FULL = """
import resource, signal, sys
from tools.corpus.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def test_a_place_that_cannot_be_written(tmp_path: Path, tokenizer: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("text")
    for out in (source / "out", Path("/proc/out")):
        with pytest.raises(ToolError, match="cannot be written; choose another --out"):
            build(plan_inputs([source]), out, Settings(tokenizer))


def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, words: str, tokenizer: Path, run, digests
) -> None:
    source = tmp_path / "a.txt"
    source.write_text(words * 100)
    flags = ["build", source, "--out", tmp_path / "out", "--tokenizer", tokenizer]
    result = run("-c", FULL, "100000", *flags)
    assert result.returncode == 1 and "File too large" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr and result.stderr.count("error:") == 1
    assert run("-m", "tools.corpus", *flags).returncode == 0
    clean = build(plan_inputs([source]), tmp_path / "clean", Settings(tokenizer))
    assert digests(tmp_path / "out") == digests(clean.store)
