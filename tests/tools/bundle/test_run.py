"""run.py as workers run it: real processes, real virtual environments, no network."""

import json
import os
import py_compile
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools.bundle.conftest import PYTHON, STAND_IN, VERSION, Bundle, environment, make_wheel
from tools.bundle.lock import Lock
from tools.bundle.manifest import identity
from tools.bundle.worker import locks
from tools.bundle.worker.errors import WorkerError
from tools.bundle.worker.installed import check_installed


def refusal(done: subprocess.CompletedProcess) -> str:
    """The one line of a run that could not start."""
    assert done.returncode == 78, done.stderr
    lines = [line for line in done.stderr.splitlines() if "installing with" not in line]
    assert len(lines) == 1 and lines[0].startswith("bundle: "), done.stderr
    return lines[0]


def edit_manifest(bundle, **changes) -> None:
    """Another manifest, with a name that fits it: as if it had been packed so."""
    path = bundle.path / "bundle.json"
    body = {**json.loads(path.read_text()), **changes}
    del body["id"]
    path.write_text(json.dumps({**body, "id": identity(body)}))


def test_the_program_runs_in_the_locked_environment(make, home):
    bundle = make()
    done = bundle.run(home, "--steps", "3", XLA_FLAGS="--user=1", GLIBC_TUNABLES="mine")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["argv"] == ["--steps", "3", "--data", str(bundle.path / "sample")]
    assert told["jax"].startswith(str(home)) and told["file"].startswith(str(home))
    assert told["env"]["XLA_FLAGS"] == "--xla_gpu_autotune_level=4 --user=1"
    assert told["env"]["GLIBC_TUNABLES"] == "mine"
    assert told["env"]["GRUG_BUNDLE"] == str(bundle.path)


def test_a_second_start_installs_nothing_and_is_fast(make, home):
    bundle = make()
    assert bundle.run(home).returncode == 0
    began = time.perf_counter()
    done = bundle.run(home)
    took = time.perf_counter() - began
    assert done.returncode == 0 and "installing" not in done.stderr
    assert took < 5, took  # 0.1 s alone; the bound is for a machine full of other tests


@pytest.mark.parametrize("flag", ["--data=s3://x", "--plan", "--help"])
def test_the_sample_is_for_those_without_data(make, home, flag):
    assert json.loads(make().run(home, flag).stdout)["argv"] == [flag]


def test_signals_and_exit_codes_are_the_programs(make, home):
    bundle = make()
    assert bundle.run(home, "--fail").returncode == 7
    with subprocess.Popen(
        bundle.command("--wait"), env=environment(home), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143


@pytest.mark.parametrize(
    "name",
    [
        "app.pex",
        "lock.json",
        "requirements.txt",
        "launch/job.sbatch",
        "parts/tools/bundle/worker/start.py",
        "parts/tools/start/settings.py",
        "sample/manifest.json",
    ],
)
def test_a_changed_byte_is_found(make, home, name):
    bundle = make()
    path = bundle.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert f"{name} is not what was packed" in refusal(bundle.run(home))


def test_a_changed_manifest_and_a_missing_file_are_found(make, home):
    bundle = make()
    path = bundle.path / "bundle.json"
    path.write_text(path.read_text().replace('"--xla_gpu', '"--xla_gqu'))
    assert "bundle.json is not what was packed" in refusal(bundle.run(home))
    path.write_text("{")
    assert "bundle.json cannot be read" in refusal(bundle.run(home))
    bundle = make()
    (bundle.path / "app.pex").unlink()
    assert "app.pex cannot be read (No such file" in refusal(bundle.run(home))


def test_another_python_another_machine_an_old_glibc(make, home):
    bundle = make()
    edit_manifest(bundle, python={"minimum": "3.98", "below": "3.99"})
    line = refusal(bundle.run(home))
    assert PYTHON in line and "at least 3.98 and below 3.99" in line
    edit_manifest(bundle, python={"minimum": "3.12", "below": "3.15"}, machines={"vax": "2.1"})
    assert "the bundle's wheels are for Linux on vax" in refusal(bundle.run(home))
    edit_manifest(bundle, machines={os.uname().machine: "2.999"})
    assert "need glibc 2.999 or newer: use a newer image" in refusal(bundle.run(home))
    edit_manifest(bundle, schema_version=1)
    assert "schema version 1" in refusal(bundle.run(home))


POISON = "raise SystemExit('a foreign {name}')\n"


@pytest.mark.parametrize("where", ["beside run.py", "in parts/", "on PYTHONPATH"])
def test_no_other_file_is_imported_in_place_of_a_part(make, home, tmp_path, where):
    """Not before, and not instead of what bundle.json names."""
    bundle = make()
    assert bundle.run(home).returncode == 0
    places = {"beside run.py": bundle.path, "in parts/": bundle.path / "parts"}
    place = places.get(where, tmp_path / "path")
    for name in ("tools", "tools/bundle", "tools/bundle/worker"):
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / "__init__.py").write_text(POISON.format(name=name))
    stdlib = ("json.py", "hashlib.py", "platform.py") if where != "on PYTHONPATH" else ()
    for name in ("tools/bundle/worker/fcntl.py", *stdlib):
        (place / name).write_text(POISON.format(name=name))
    done = bundle.run(home, **({"PYTHONPATH": str(place)} if where == "on PYTHONPATH" else {}))
    assert done.returncode == 0, done.stderr


def test_bytecode_beside_a_part_is_not_run(make, home):
    """A bundle copied over another has its times, all of them one, and may have its sizes."""
    bundle = make()
    assert bundle.run(home).returncode == 0
    part = bundle.path / "parts/tools/bundle/worker/say.py"
    text = part.read_bytes()
    part.write_bytes(b"raise SystemExit(3)\n".ljust(len(text), b"#"))
    os.utime(part, (0, 0))
    py_compile.compile(str(part), doraise=True)
    part.write_bytes(text)
    os.utime(part, (0, 0))
    assert list(part.parent.glob("__pycache__/say.*.pyc"))
    assert bundle.run(home).returncode == 0


def test_a_bundle_that_cannot_be_written(make, home):
    """From another directory, with nothing of the user's on Python's path; it stays as it was."""
    bundle = make()
    assert bundle.run(home).returncode == 0
    before = sorted(path for path in bundle.path.rglob("*"))
    for path in (bundle.path, *before):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o555)
    for flags in ([], ["-I"]):
        command = [PYTHON, *flags, *bundle.command()[1:]]
        env = environment(home)
        del env["PATH"]
        done = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert sorted(path for path in bundle.path.rglob("*")) == before


def test_a_wheel_with_another_digest_is_not_installed(make, wheels, tmp_path):
    bundle = make()
    (bundle.path / "wheels").unlink()
    (bundle.path / "wheels").mkdir()
    for wheel in wheels[0].iterdir():
        (bundle.path / "wheels" / wheel.name).write_bytes(wheel.read_bytes() + b"\0")
    done = bundle.run(tmp_path / "fresh")
    assert done.returncode == 78 and "could not be installed" in done.stderr
    assert not list((tmp_path / "fresh").glob("py*[!k]"))


def test_uv_is_fetched_once_and_installs(make, uv, tmp_path):
    directory, lock = uv(STAND_IN)
    bundle, place = make(directory, tools=lock), tmp_path / "fresh"
    done = bundle.run(place)
    assert done.returncode == 0 and "installing with uv..." in done.stderr, done.stderr
    assert "with pip" not in done.stderr, done.stderr
    (fetched,) = (path for path in place.glob("uv-*") if path.is_dir())
    before = (fetched / "bin/uv").stat()
    assert not list(place.glob("*.partial"))
    shutil.rmtree(next(path for path in place.glob("py3*") if path.is_dir()))
    assert "installing with uv..." in bundle.run(place).stderr
    assert (fetched / "bin/uv").stat() == before


@pytest.mark.parametrize("fault", ["missing", "another digest", "fails", "does not start"])
def test_pip_installs_where_uv_cannot(make, uv, tmp_path, fault):
    script = {"fails": "#!/bin/sh\necho an error of its own; exit 3\n"}.get(fault, "#!/no/such\n")
    directory, lock = uv(script)
    bundle, place = make(directory, tools=lock), tmp_path / "fresh"
    (wheel,) = directory.glob("uv-*")
    if fault == "missing":
        wheel.unlink()
    if fault == "another digest":
        wheel.write_bytes(wheel.read_bytes() + b"\0")
    done = bundle.run(place)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "not with uv (" in line)
    assert line.endswith("installing with pip...")
    assert fault != "fails" or "an error of its own" in line
    assert json.loads(done.stdout)["jax"].startswith(str(place))
    assert not list(place.glob("*.partial"))


FAULTS = {
    "does not start": "#!/no/such\n",
    "fails": "#!/bin/sh\necho an error of its own; echo '  cause: its own'; exit 3\n",
    "installs nothing": f"#!{PYTHON}\nimport os, sys\nif sys.argv[1] == 'venv':\n"
    f" os.execv({PYTHON!r}, [{PYTHON!r}, '-m', 'venv', '--without-pip', sys.argv[-1]])\n",
    "makes nothing": "#!/bin/sh\n",
}
REASONS = {
    "does not start": "cannot be run: No such file",
    "fails": "an error of its own: its own",
    "installs nothing": "the installer left no jax in the environment",
    "makes nothing": "the installer left no jax in the environment",
}


@pytest.mark.parametrize("where", ["on PATH", "named"])
@pytest.mark.parametrize("fault", FAULTS)
def test_pip_installs_where_the_uv_at_hand_cannot(make, tmp_path, fault, where):
    bundle, place, uv = make(), tmp_path / "fresh", tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(FAULTS[fault])
    uv.chmod(0o755)
    path = environment(place)["PATH"]
    env = {"GRUG_UV": str(uv)} if where == "named" else {"PATH": f"{uv.parent}:{path}"}
    done = bundle.run(place, **env)
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stderr.splitlines()
    assert first == "bundle: installing with uv..." and REASONS[fault] in second
    assert second.startswith("bundle: not with uv (") and second.endswith("with pip...")
    assert json.loads(done.stdout)["jax"].startswith(str(place))
    assert not list(place.glob("*.partial*"))


def environments(place: Path) -> list[Path]:
    return [path for path in place.glob("py3*") if path.is_dir()]


@pytest.mark.parametrize("fault", ["empty", "no seal", "one is gone", "no Python", "not a seal"])
def test_an_environment_that_is_not_whole_is_made_anew(make, warm, fault):
    bundle, place = make(), warm
    (venv,) = environments(place)
    (site,) = venv.glob("lib/python*/site-packages")
    if fault == "empty":  # as PIP_PREFIX left it
        shutil.rmtree(venv)
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", venv], check=True)
    elif fault == "no seal":
        (venv / locks.SEAL).unlink()
    elif fault == "one is gone":  # as those do that delete old files of a directory like /tmp
        shutil.rmtree(next(site.glob("jaxlib-*")))
    elif fault == "no Python":
        (venv / "bin/python").unlink()
    else:
        (venv / locks.SEAL).write_text("{")
    done = bundle.run(place)
    assert done.returncode == 0 and "installed in" in done.stderr, done.stderr
    assert environments(place) == [venv] and list(site.glob("jaxlib-*"))
    assert not list(place.glob("*.partial*"))
    assert "installed in" not in bundle.run(place).stderr


def test_what_an_installer_left_is_held_to_the_lock(make, tmp_path, warm):
    bundle, place = make(), warm
    (venv,) = environments(place)
    pins, other = bundle.path / "requirements.txt", tmp_path / "other.txt"
    known = check_installed(str(venv), str(pins))
    assert [Path(name).parent.name.partition("-")[0] for name in known] == ["jax", "jaxlib"]
    other.write_text(pins.read_text().replace(f"jaxlib=={VERSION}", "jaxlib==9.8"))
    with pytest.raises(WorkerError, match=rf"left jaxlib {re.escape(VERSION)}, not 9\.8"):
        check_installed(str(venv), str(other))
    other.write_text(pins.read_text() + "More_over==1 \\\n    --hash=sha256:00\n")
    with pytest.raises(WorkerError, match="left no more-over"):
        check_installed(str(venv), str(other))
    (lost,) = venv.glob("lib/*/site-packages/jax.py")
    lost.unlink()
    with pytest.raises(WorkerError, match=r"left jax without lib/.*/jax\.py"):
        check_installed(str(venv), str(pins))


def test_sources_that_are_not_whole_are_unpacked_anew(make, warm):
    bundle, place = make(), warm
    (app,) = (path for path in place.glob("app-*") if path.is_dir())
    (app / "experiments/small/launch.py").unlink()
    assert bundle.run(place).returncode == 0


BROKEN = "raise ImportError('libno.so.1: cannot open shared object file')\n"


def other_packages(directory: Path, **codes: str) -> dict:
    """What to make a bundle of, where its packages are modules of these texts."""
    directory.mkdir()
    entries = [make_wheel(directory, name, code=code) for name, code in codes.items()]
    text = json.dumps({"locked_resolves": [{"locked_requirements": entries}]})
    lock = Lock.parse(text, "small.lock")
    return {"beside": directory, "lock": lock, "requirements": tuple(codes), "env": {}}


def test_packages_that_do_not_import_are_not_kept(make, tmp_path):
    bundle = make(**other_packages(tmp_path / "broken", jax=BROKEN))
    place = tmp_path / "fresh"
    done = bundle.run(place)
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == (
        "bundle: the locked packages were installed, but do not import here: "
        "ImportError: libno.so.1: cannot open shared object file"
    )
    assert not environments(place) and not list(place.glob("*.partial*"))


def test_only_what_the_program_imports_at_once_is_imported_before(make, tmp_path):
    """One that it imports in a function, or where it may, may be out of place on this machine."""
    program = "try:\n import jaxlib\nexcept ImportError: pass\n"
    program += "import jax, nowhere.at_all\ndef late():\n import jaxlib\n"
    sources = {"experiments/small/launch.py": program.encode()}
    packages = other_packages(tmp_path / "broken", jax="", jaxlib=BROKEN)
    bundle = make(**packages, sources=sources)
    done = bundle.run(tmp_path / "fresh")
    assert "installed in" in done.stderr and done.returncode == 1
    assert "No module named 'nowhere'" in done.stderr


def test_wheels_for_another_worker(make, home):
    bundle = make()
    assert bundle.run(home).returncode == 0
    edit_manifest(bundle, wheels={"python": "3.98", "machine": "x86_64"})
    line = refusal(bundle.run(home))
    assert "wheels/ are for CPython 3.98 on x86_64" in line and "delete wheels/" in line
    (bundle.path / "wheels").unlink()
    assert bundle.run(home).returncode == 0


def test_a_full_disk_is_one_line_and_leaves_nothing(make, tmp_path):
    def full() -> None:
        # What a write beyond a quota says, in any directory and for any user.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    bundle, place = make(), tmp_path / "fresh"
    done = subprocess.run(
        bundle.command(), env=environment(place), capture_output=True, text=True, preexec_fn=full
    )
    assert f"{place}: " in refusal(done) and "GRUG_VENVS" in done.stderr
    assert not [path for path in place.iterdir() if path.suffix != ".lock"]
    assert bundle.run(place).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB; only root can have one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place))
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    yield place
    subprocess.run(("umount", str(place)), check=True)


def test_no_space_left_on_device(make, small_disk):
    bundle = make(sources={**make_sources(), "experiments/small/data.py": b"#" * 2**18})
    assert f"{small_disk}: No space left on device" in refusal(bundle.run(small_disk))
    bundle = make()
    assert bundle.run(small_disk).returncode == 0
    shutil.rmtree(next(path for path in small_disk.glob("py*") if path.is_dir()))
    fill = small_disk / "fill"
    fill.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 8192))
    assert f"{small_disk}: No space left on device" in refusal(bundle.run(small_disk))
    fill.unlink()
    left = [path for path in small_disk.iterdir() if path.suffix != ".lock"]
    assert [path.name[:4] for path in left] == ["app-"]


def make_sources() -> dict[str, bytes]:
    return {"experiments/small/launch.py": b"print('here')\n"}


def test_a_home_that_cannot_be_written(make, tmp_path):
    bundle = make()
    env = environment(tmp_path, HOME="/dev/null", TMPDIR=str(tmp_path))
    del env["GRUG_VENVS"]
    done = subprocess.run(bundle.command(), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place = tmp_path / f"grug-venvs-{os.getuid()}"
    assert f"using {place}" in done.stderr and list(place.glob("py3*"))
    named = subprocess.run(
        bundle.command(), env={**env, "GRUG_VENVS": "/dev/null/x"}, capture_output=True, text=True
    )
    assert "/dev/null/x: Not a directory: name a directory" in refusal(named)


def test_workers_that_start_at_once_install_once(make, tmp_path):
    bundle = make()
    workers = [
        subprocess.Popen(
            bundle.command(),
            env=environment(tmp_path / "fresh"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, said
    assert sum("installed in" in errors for _, errors in said) == 1
    assert len({json.loads(out)["jax"] for out, _ in said}) == 1


def test_a_killed_install_is_begun_anew(make, tmp_path):
    bundle, place = make(), tmp_path / "fresh"
    process = subprocess.Popen(bundle.command(), env=environment(place), start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(place.glob("py*.partial")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(place.glob("py*.partial"))
    assert bundle.run(place).returncode == 0
    assert not list(place.glob("*.partial"))


SLOW_UV = f"""#!{PYTHON}
import os, sys, time
if sys.argv[1] == "pip":
    open(os.environ["STARTED"], "w").close()
    for _ in range(1500):
        if os.path.exists(os.environ["GO"]):
            break
        time.sleep(0.02)
"""


@pytest.fixture
def slow_uv(tmp_path):
    """A uv that tells when it has begun, and goes on when it may, or after half a minute."""
    uv = tmp_path / "bin/uv"
    uv.parent.mkdir()
    uv.write_text(SLOW_UV + STAND_IN.partition("\n")[2])
    uv.chmod(0o755)
    return {"GRUG_UV": str(uv), "STARTED": str(tmp_path / "began"), "GO": str(tmp_path / "go")}


def wait_for(path: str | Path) -> None:
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_start_waits_for_what_a_killed_one_left_running(make, tmp_path, slow_uv):
    """Else it would delete and make what the other's installer still writes to."""
    bundle, place = make(), tmp_path / "fresh"
    first = subprocess.Popen(bundle.command(), env=environment(place, **slow_uv))
    wait_for(slow_uv["STARTED"])
    first.kill()
    first.wait()
    with subprocess.Popen(
        bundle.command(), env=environment(place, **slow_uv), stderr=subprocess.PIPE, text=True
    ) as second:
        assert second.stderr
        assert "waiting for another process" in second.stderr.readline()
        Path(slow_uv["GO"]).touch()
        assert second.wait(60) == 0
    assert not list(place.glob("*.partial*"))


def test_the_next_start_deletes_what_killed_ones_left(make, tmp_path, warm, slow_uv):
    """Of its own environment and of others, files and directories; not what is being made."""
    place = warm
    host, name = socket.gethostname(), "uv-x86_64-0123456789abcdef"
    names = [f"{name}.{host}.99.partial", f"{name}.{host}.98.old.partial"]
    names += [f"py3.98-0123456789abcdef.{host}.97.partial{more}" for more in ("", ".partial")]
    names += [f"{name}.elsewhere.1.partial", f"{name}.elsewhere.2.partial"]
    for number, path in enumerate(place / name for name in names):
        if number % 2:
            path.mkdir()
        else:
            path.write_text("half")
    os.utime(place / names[-2], (0, 0))
    other = make(**other_packages(tmp_path / "other", jax="WHERE = ''"))
    other = Bundle(other.path.rename(tmp_path / "other-cpu"))
    with subprocess.Popen(other.command(), env=environment(place, **slow_uv)) as living:
        wait_for(slow_uv["STARTED"])
        assert make().run(place).returncode == 0
        left = sorted(path.name for path in place.glob("*.partial*"))
        assert names[-1] in left and f".{living.pid}.partial" in "".join(left)
        assert len(left) == 3  # that host's, and the living one's environment and scratch
        Path(slow_uv["GO"]).touch()
        assert living.wait(60) == 0
    assert [path.name for path in place.glob("*.partial*")] == names[-1:]


@pytest.mark.parametrize("umask", [0o077, 0o027])
@pytest.mark.parametrize("with_uv", [False, True])
def test_a_strict_umask(make, uv, tmp_path, umask, with_uv):
    directory, lock = uv(STAND_IN)
    bundle = make(directory, tools=lock if with_uv else None)
    for _ in range(2):
        done = subprocess.run(
            bundle.command(),
            env=environment(tmp_path / "fresh"),
            capture_output=True,
            text=True,
            umask=umask,
        )
        assert done.returncode == 0 and "not with uv" not in done.stderr, done.stderr
    assert not list((tmp_path / "fresh").rglob("*.partial*"))


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("with_uv", [False, True])
def test_paths_with_a_space_and_a_letter_that_is_not_ascii(make, uv, tmp_path, with_uv, locale):
    directory, lock = uv(STAND_IN)
    bundle, place = make(directory, tools=lock if with_uv else None), tmp_path / "ein Ort, größer"
    place.mkdir()
    moved = Bundle(bundle.path.rename(place / "das Bündel"))
    done = moved.run(place / "die Umgebungen", LC_ALL=locale, TMPDIR=str(place))
    assert done.returncode == 0 and "not with uv" not in done.stderr, done.stderr
    told = json.loads(done.stdout)
    assert told["jax"].startswith(str(place)) and told["env"]["GRUG_BUNDLE"] == str(moved.path)


def test_two_first_starts_at_once_fetch_uv_once(make, uv, tmp_path):
    directory, lock = uv(STAND_IN)
    bundle, place = make(directory, tools=lock), tmp_path / "fresh"
    starts = [
        subprocess.Popen(
            bundle.command(), env=environment(place), stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [start.communicate(timeout=120)[1] for start in starts]
    assert [start.returncode for start in starts] == [0, 0], said
    assert sum("installed in" in errors for errors in said) == 1
    assert not any("not with uv" in errors for errors in said), said
    assert len(environments(place)) == 1 and not list(place.glob("*.partial*"))


HOLD = """
import sys, time
from tools.bundle.worker.locks import owned
with owned(sys.argv[1]):
    with open(sys.argv[2]) as file:
        count = int(file.read())
    time.sleep(0.05)
    with open(sys.argv[2], "w") as file:
        file.write(str(count + 1))
"""


def test_the_lock_file_holds_where_flock_does_not(tmp_path):
    lock, count = tmp_path / "x.owner", tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", HOLD, str(lock), str(count)]
    workers = [subprocess.Popen(command) for _ in range(6)]
    assert [worker.wait(60) for worker in workers] == [0] * 6
    assert count.read_text() == "6" and not lock.exists()


def test_the_lock_files_owner_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LOCK_BEAT", 0.01)
    lock = tmp_path / "x.owner"
    with locks.owned(str(lock)):
        os.utime(lock, (0, 0))
        deadline = time.monotonic() + 30
        while not lock.stat().st_mtime and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.stat().st_mtime
    assert not lock.exists()


def test_a_dead_owner_loses_the_lock_a_living_one_keeps_it(tmp_path, monkeypatch):
    lock = tmp_path / "x.owner"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock.write_text(f"{socket.gethostname()} {ended.pid}")
    with locks.owned(str(lock)):
        assert lock.read_text().split()[1] == str(os.getpid())
    monkeypatch.setattr(locks, "LOCK_WAIT", 0.5)
    lock.write_text("elsewhere 1")  # a host of which only the file's time is known
    with pytest.raises(WorkerError, match="is held"), locks.owned(str(lock)):
        pass
    os.utime(lock, (0, 0))
    with locks.owned(str(lock)):
        assert lock.read_text().split()[1] == str(os.getpid())
