"""One directory per lock: made once and whole, healed, and stood for by a deterministic wheel."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bootstrap.checkout import base_python
from tests.bootstrap.home import Home, make_home
from tests.bootstrap.servers import Index, dead_port
from tests.bootstrap.wheels import make_wheel, write_index
from tools.start import environment
from tools.start.machine import Machine


@pytest.fixture(scope="session")
def venv(tmp_path_factory: pytest.TempPathFactory, python39: str) -> Path:
    place = tmp_path_factory.mktemp("venv")
    subprocess.run([python39, "-m", "venv", "--without-pip", place], check=True)
    return place


@pytest.fixture
def home(tmp_path: Path, uv: Path, venv: Path) -> Home:
    return make_home(tmp_path, venv, uv)


@pytest.fixture
def listed(home: Home, tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(home.requirements)
    return path


@pytest.fixture
def place(home: Home) -> Path:
    return home.environments / "cpu-0123456789abcdef"


@pytest.fixture
def slow(home: Home, serve: Callable[..., Index]) -> Index:
    """The index, which once takes two seconds to say nothing."""
    server = serve(home.index)
    server.faults["/simple/alpha-one/"] = ["silence"]
    home.tell(Machine(index=f"{server.url}/simple"))
    return server


def entries(home: Home) -> list[str]:
    return sorted(path.name for path in home.environments.iterdir())


def check_made(home: Home, place: Path) -> None:
    """That it holds what was listed, and that nothing lies beside it."""
    names = {path.name for path in place.iterdir()}
    assert {"alpha.py", "beta", "Alpha_One-1.0.dist-info", "beta-2.0+local.dist-info"} <= names
    assert entries(home) == [place.name, f"{place.name}.lock"]


def test_makes_what_is_listed(home: Home, listed: Path, place: Path) -> None:
    done = home.run(listed, base_python(), place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "pants: installing 2 packages of a lock\n"
    check_made(home, place)


def test_is_made_once_however_many_want_it(
    home: Home, listed: Path, place: Path, slow: Index
) -> None:
    processes = [home.start(listed, base_python(), place) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert "".join(errors).count("installing") == 1
    check_made(home, place)
    assert home.run(listed, base_python(), place).stderr == ""


def test_killed_one_leaves_nothing_that_counts(
    home: Home, listed: Path, place: Path, slow: Index
) -> None:
    process = home.start(listed, base_python(), place)
    while not slow.asked:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not place.exists()
    done = home.run(listed, base_python(), place)
    assert done.returncode == 0, done.stderr
    check_made(home, place)


def check_refused(home: Home, done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert [name for name in entries(home) if not name.endswith(".lock")] == []


def test_dead_index(home: Home, listed: Path, place: Path) -> None:
    dead = f"http://localhost:{dead_port()}/simple"
    home.tell(Machine(index=dead))
    done = home.run(listed, base_python(), place)
    check_refused(home, done, dead, "pants: could not install the packages of a lock")


def test_file_with_another_digest(home: Home, listed: Path, place: Path) -> None:
    text = listed.read_text()
    listed.write_text(text.replace(home.wheels[1].sha256, "0" * 64))
    check_refused(home, home.run(listed, base_python(), place), "Hash mismatch")


def test_source_is_not_built(home: Home, listed: Path, place: Path) -> None:
    """What a lock names is installed as it is, or by Pex."""
    wheel = home.wheels[1]
    wheel.path.rename(wheel.path.with_name("beta-2.0+local.tar.gz"))
    page = home.index / "simple/beta/index.html"
    page.write_text(page.read_text().replace(wheel.path.name, "beta-2.0+local.tar.gz"))
    check_refused(home, home.run(listed, base_python(), place), "beta", "no usable wheels")


def test_installer_that_does_nothing_is_found_out(
    home: Home, listed: Path, place: Path, tmp_path: Path
) -> None:
    """As one with --dry-run or --target from some configuration."""
    (tmp_path / "bin/uv").unlink()
    (tmp_path / "bin/uv").write_text("#!/bin/sh\n")
    (tmp_path / "bin/uv").chmod(0o755)
    done = home.run(listed, base_python(), place)
    check_refused(home, done, "2 packages were not installed, alpha-one==1.0, beta==2.0+local")


def test_place_that_cannot_be_written_is_named(home: Home, listed: Path, place: Path) -> None:
    home.environments.touch()
    done = home.run(listed, base_python(), place)
    assert done.returncode == 1
    assert done.stderr.startswith(f"pants: {home.environments}: ")
    assert len(done.stderr.splitlines()) == 1


def test_package_of_another_version_is_missing(tmp_path: Path) -> None:
    (tmp_path / "alpha_one-1.0.dist-info").mkdir()
    environment.check(tmp_path, {"alpha-one": "1.0"})
    with pytest.raises(environment.StartError, match="1 packages were not installed, alpha-one=="):
        environment.check(tmp_path, {"alpha-one": "1.1"})


def test_pins_of_a_lock() -> None:
    text = (
        "Some_Name==1.0 \\\n    --hash=sha256:00\nextras[a,b]==2.0+cpu; python_version >= '3'\n"
        "# comment==3.0\n--index-url==4\nzope.x==5rc1\n"
    )
    pins = {"some-name": "1.0", "extras": "2.0+cpu", "zope-x": "5rc1"}
    assert environment.versions(text) == pins


def test_what_is_not_used_is_deleted(home: Home, listed: Path, place: Path) -> None:
    old, used = home.environments / "cpu-old", home.environments / "cpu-used"
    for directory, age in ((old, 31), (used, 29)):
        directory.mkdir(parents=True)
        then = time.time() - age * 86400
        os.utime(directory, (then, then))
    assert home.run(listed, base_python(), place).returncode == 0
    assert [name for name in entries(home) if not name.endswith(".lock")] == [
        place.name,
        used.name,
    ]


@pytest.fixture
def reference(home: Home, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel, unpacked as an installer does."""
    monkeypatch.setattr(environment, "start_home", lambda: home.place)
    wheel = environment.reference(home.requirements, base_python(), place, "cpu.lock", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    return tmp_path / "site"


PROGRAM = "import site, sys; site.addsitedir(sys.argv[1]); import alpha, beta; print(beta.VALUE)"


def use(home: Home, reference: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [base_python(), "-Ic", PROGRAM, reference],
        env=home.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_reference_is_deterministic(
    home: Home, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "start_home", lambda: home.place)
    data = []
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda name=name: float(len(name)))
            told = (home.requirements, base_python(), place, "cpu.lock", tmp_path / name)
            data.append(environment.reference(*told).read_bytes())
    assert data[0] == data[1]
    other = environment.reference(*told[:2], place / "other", "cpu.lock", tmp_path)
    assert other.read_bytes() != data[0]


def test_reference_is_a_wheel_that_installers_take(
    home: Home, reference: Path, uv: Path, tmp_path: Path
) -> None:
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "target"
    place = ("--python", base_python(), "--target", target, "--no-index", "--no-config")
    subprocess.run([uv, "pip", "install", "-q", *place, wheel], env=home.env, check=True)
    for path in reference.iterdir():
        if path.is_file():
            assert (target / path.name).read_bytes() == path.read_bytes()


def test_reference_makes_what_it_stands_for(home: Home, place: Path, reference: Path) -> None:
    """At first, and when somebody has deleted it."""
    for _ in range(2):
        output, errors = use(home, reference).communicate(timeout=120)
        assert output == "beta\n", errors
        assert errors == "pants: installing 2 packages of a lock\n"
        output, errors = use(home, reference).communicate(timeout=120)
        assert (output, errors) == ("beta\n", "")
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        place.rmdir()


def test_programs_at_once_make_it_once(
    home: Home, place: Path, reference: Path, slow: Index
) -> None:
    programs = [use(home, reference) for _ in range(3)]
    told = [program.communicate(timeout=120) for program in programs]
    assert [output for output, _ in told] == ["beta\n"] * 3, told
    assert sum("installing" in errors for _, errors in told) == 1


def test_reference_says_why_it_cannot(home: Home, place: Path, reference: Path) -> None:
    home.tell(Machine(index=f"http://localhost:{dead_port()}/simple"))
    output, errors = use(home, reference).communicate(timeout=120)
    assert output == ""
    assert "pants: could not install the packages of a lock" in errors
    assert not place.exists()


def test_use_is_noted(home: Home, place: Path, reference: Path) -> None:
    use(home, reference).communicate(timeout=120)
    os.utime(place, (0, 0))
    use(home, reference).communicate(timeout=120)
    assert time.time() - place.stat().st_mtime < 600


def test_directory_is_named_by_lock_and_interpreter(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("one")
    os.utime(python, (1e9, 1e9))
    names = {environment.place_for({"a": 1}, "cpu", str(python), tmp_path)}
    assert environment.place_for({"a": 1}, "cpu", str(python), tmp_path) in names
    names.add(environment.place_for({"a": 2}, "cpu", str(python), tmp_path))
    python.write_text("another")
    names.add(environment.place_for({"a": 1}, "cpu", str(python), tmp_path))
    assert len(names) == 3


def test_extra_index_has_what_the_main_one_lacks(
    home: Home, listed: Path, place: Path, tmp_path: Path
) -> None:
    root = tmp_path / "more"
    wheel = make_wheel(root / "files", "gamma", "3.0", {"gamma.py": ""})
    write_index(root, wheel)
    main, more = (home.index / "simple").as_uri(), (root / "simple").as_uri()
    home.tell(Machine(index=main, extra_indexes=(more,)))
    listed.write_text(home.requirements + wheel.pin)
    done = home.run(listed, base_python(), place)
    assert done.returncode == 0, done.stderr
    assert (place / "gamma.py").exists()
