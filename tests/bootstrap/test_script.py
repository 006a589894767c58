"""./pants installs what the locks name, once, and hands over to it."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bootstrap.checkout import UNSET, Checkout, ended
from tests.bootstrap.servers import Index, dead_port
from tests.bootstrap.wheels import make_wheel
from tools.start import interpreters


def test_installs_then_hands_over(checkout: Checkout) -> None:
    told = checkout.run("test", "::", "--", "two words", "", "ü*", TEST_EXIT="3")
    assert told.code == 3, told.errors
    (cache,) = checkout.caches
    assert told.pants["arguments"] == ["test", "::", "--", "two words", "", "ü*"]
    assert told.pants["cwd"] == str(checkout.root)
    assert told.pants["program"] == str(cache / "venv/bin/pants")
    assert told.errors == f"pants: installing Pants into {cache} (once)\n"
    assert checkout.leftovers == []


def test_flags_of_the_launcher_without_dashes_are_refused_before_pants(installed: Checkout) -> None:
    told = installed.run("run", "launch", "base", "--note", "two words")
    assert told.code == 2
    remedy = "./pants run launch -- base --note 'two words'"
    assert told.errors == f"pants: flags of the launcher stand behind `--`: {remedy}\n"
    for words in (["run", "launch"], ["run", "launch", "--", "base"], ["run", "launch", "--debug"]):
        assert installed.run(*words, TEST_EXIT="0").pants["arguments"] == words


@pytest.mark.parametrize("code", ["1", "141"])
def test_hands_on_the_exit_code(code: str, installed: Checkout) -> None:
    assert installed.run(TEST_EXIT=code).code == int(code)


def test_points_pants_at_the_pex_it_installed(checkout: Checkout) -> None:
    told = checkout.run().check().environment
    (cache,) = checkout.caches
    data = (cache / "pex").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert told["PANTS_PEX_CLI_VERSION"] == "v2.73.1"
    # Pants doesn't decode the path of a file's URL.
    url = told["PANTS_PEX_CLI_URL_TEMPLATE"]
    assert re.fullmatch(r"file:/[\w./-]+", url, re.ASCII)
    assert Path(url[len("file:") :]).read_bytes() == data
    for system in ("linux_x86_64", "linux_arm64", "macos_x86_64", "macos_arm64"):
        assert f"'v2.73.1|{system}|{digest}|{len(data)}'" in told["PANTS_PEX_CLI_KNOWN_VERSIONS"]
    assert (cache / "pexlib/pex/version.py").exists()


def test_scripts_in_pants_caches_can_name_their_interpreter(
    checkout: Checkout, tmp_path: Path
) -> None:
    """A script's first line has no way to name a program below a directory with a space in it."""
    told = checkout.run().check().environment
    places = {told[f"PANTS_{name}_DIR"] for name in ("NAMED_CACHES", "LOCAL_STORE")}
    assert len(places) == 2
    for place in map(Path, places):
        assert not re.search(r"\s", str(place))
        assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    told = checkout.run(XDG_CACHE_HOME=str(tmp_path / "cäche")).check().environment
    assert "PANTS_NAMED_CACHES_DIR" not in told
    assert "PANTS_LOCAL_STORE_DIR" not in told


def test_directory_of_another_is_not_used(checkout: Checkout, tmp_path: Path) -> None:
    """Somebody else may have made it first, to have their program run."""
    checkout.run().check()
    (place,) = (tmp_path / "tmp").iterdir()
    (place / "pex").unlink()
    for change in (lambda: place.chmod(0o777), lambda: (place.rmdir(), place.symlink_to("/tmp"))):
        change()
        told = checkout.run().check().environment
        assert not Path(told["PANTS_NAMED_CACHES_DIR"]).is_relative_to(place)
        shutil.rmtree(Path(told["PANTS_NAMED_CACHES_DIR"]).parent)


def test_second_start_only_hands_over(checkout: Checkout) -> None:
    """Without an index, without uv, and without a Python to install with."""
    checkout.run().check()
    for name in ("uv", "python3"):
        (checkout.bin / name).unlink()
    told = checkout.run("--version", PIP_INDEX_URL=f"http://localhost:{dead_port()}").check()
    assert told.errors == ""
    assert told.pants["arguments"] == ["--version"]


@pytest.mark.parametrize("changed", ["tools/locks/pants.txt", "tools/start/client.py"])
def test_another_lock_or_start_is_another_installation(changed: str, checkout: Checkout) -> None:
    checkout.run().check()
    with (checkout.root / changed).open("a") as file:
        file.write("# changed\n")
    told = checkout.run().check()
    assert "installing" in told.errors
    assert len(checkout.caches) == 2


def test_half_made_installation_heals(checkout: Checkout) -> None:
    checkout.run().check()
    (cache,) = checkout.caches
    (cache / "ready").unlink()
    (cache / "venv/rubble").touch()
    checkout.run().check()
    assert not (cache / "venv/rubble").exists()


def test_installation_whose_python_is_gone_heals(checkout: Checkout) -> None:
    checkout.run().check()
    (cache,) = checkout.caches
    (cache / "venv/bin/python").unlink()
    (cache / "venv/bin/python").symlink_to("/no/such/python")
    assert "installing" in checkout.run().check().errors
    assert checkout.run().check().errors == ""


@pytest.fixture
def slow(checkout: Checkout, serve: Callable[..., Index]) -> Index:
    """The index, which once takes two seconds to say nothing."""
    server = serve(checkout.packages.root)
    server.faults["/simple/pantsbuild-pants/"] = ["silence"]
    checkout.env["PIP_INDEX_URL"] = f"{server.url}/simple"
    return server


def test_killed_installation_heals(checkout: Checkout, slow: Index) -> None:
    process = checkout.start()
    while not slow.asked:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert [cache.name for cache in checkout.caches] == checkout.leftovers
    checkout.run().check()
    assert checkout.leftovers == []


def test_starts_at_once_install_once(checkout: Checkout, slow: Index) -> None:
    starts = [checkout.start(str(i)) for i in range(3)]
    told = [ended(start).check() for start in starts]
    assert [start.pants["arguments"] for start in told] == [["0"], ["1"], ["2"]]
    errors = "".join(start.errors for start in told)
    assert errors.count("pants: installing Pants into") == 1
    assert errors.count("pants: waiting for another start that is installing Pants\n") == 2


def test_offline_says_so_and_leaves_nothing(checkout: Checkout) -> None:
    dead = f"http://localhost:{dead_port()}/simple"
    told = checkout.run(PIP_INDEX_URL=dead)
    told.check_failed("could not install Pants")
    assert dead in told.errors
    assert checkout.caches == []
    assert checkout.leftovers == []
    checkout.run().check()


def test_file_with_another_digest_is_not_installed(checkout: Checkout, tmp_path: Path) -> None:
    other = make_wheel(tmp_path, "pantsbuild-pants", "2.17.1", {"pants/other.py": ""})
    (checkout.root / "tools/locks/pants.txt").write_text(other.pin)
    told = checkout.run()
    told.check_failed("could not install Pants")
    assert "Hash mismatch" in told.errors
    assert checkout.leftovers == []


def test_place_for_the_cache(checkout: Checkout, tmp_path: Path) -> None:
    for variable, value, place in (
        ("GRUG_CACHE", "here", checkout.home / "here"),
        ("GRUG_CACHE", f"{tmp_path}/there", tmp_path / "there"),
        ("XDG_CACHE_HOME", f"{tmp_path}/cache", tmp_path / "cache/grug"),
    ):
        told = checkout.run(**{variable: value}).check()
        assert Path(told.pants["program"]).is_relative_to(place)
    assert checkout.caches == []


def test_place_that_cannot_be_written_is_named(checkout: Checkout) -> None:
    (checkout.home / "file").touch()
    checkout.run(GRUG_CACHE=f"{checkout.home}/file/cache").check_failed("GRUG_CACHE", "file/cache")


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'


def test_installation_that_cannot_be_written_serves(
    checkout: Checkout, namespace: list[str]
) -> None:
    """One that somebody else keeps, for all who work on a machine."""
    checkout.run().check()
    (cache,) = checkout.caches
    before = [shutil.which(namespace[0]) or "", *namespace[1:], "sh", "-c", READ_ONLY, "sh"]
    env = {"PATH": f"{checkout.bin}:/usr/sbin:/usr/bin:/sbin:/bin"}
    told = checkout.run(before=[*before, str(cache)], **env).check()
    assert told.errors == ""
    env["PIP_EXTRA_INDEX_URL"] = "https://packages.invalid/simple"
    told = checkout.run(before=[*before, str(cache)], **env)
    told.check_failed(str(cache), "GRUG_CACHE")


def test_home_that_is_not_told(checkout: Checkout, tmp_path: Path) -> None:
    """As for what a system starts by itself."""
    cache = {"GRUG_CACHE": str(tmp_path / "cache"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    told = checkout.run(HOME=UNSET, **cache).check()
    assert told.environment["HOME"] == os.path.expanduser(f"~{getpass.getuser()}")


def test_is_found_from_anywhere(checkout: Checkout) -> None:
    """And not led astray by the places where the user's shell looks for directories."""
    (checkout.home / checkout.root.name).mkdir()
    name = f"{checkout.root.name}/pants"
    told = ended(
        subprocess.Popen(
            [str(checkout.bin / "bash"), name, "--version"],
            cwd=checkout.root.parent,
            env={
                **checkout.env,
                "PATH": str(checkout.bin),
                "HOME": str(checkout.home),
                "CDPATH": str(checkout.home),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    assert told.check().pants["cwd"] == str(checkout.root)


def test_private_umask(checkout: Checkout) -> None:
    before = ["sh", "-c", 'umask 077; exec "$@"', "sh"]
    checkout.run(before=before).check()
    assert checkout.run(before=before).check().errors == ""


def test_password_of_an_index_is_for_its_owner_alone(checkout: Checkout) -> None:
    checkout.run(before=["sh", "-c", 'umask 000; exec "$@"', "sh"]).check()
    (cache,) = checkout.caches
    assert stat.S_IMODE((cache / "machine.json").stat().st_mode) == 0o600


def test_environment_of_python_reaches_nothing(checkout: Checkout, tmp_path: Path) -> None:
    poison, mark = tmp_path / "poison", tmp_path / "poisoned"
    poison.mkdir()
    for name in ("sitecustomize", "usercustomize", "json", "tools", "pants", "startup"):
        (poison / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write(__name__ + '\\n')")
    site = poison / "lib" / "python3.9" / "site-packages"
    site.mkdir(parents=True)
    (site / "poison.pth").write_text(f"import sys; open({str(mark)!r}, 'a').write('user site')\n")
    variables = {
        "PYTHONPATH": str(poison),
        "PYTHONSTARTUP": str(poison / "startup.py"),
        "PYTHONUSERBASE": str(poison),
        "PYTHONWARNINGS": "error",
        "PYTHONHOME": "/no/such/home",
    }
    for _ in range(2):
        told = checkout.run(**variables).check()
        assert not mark.exists(), mark.read_text()
        assert not [entry for entry in told.pants["path"] if str(poison) in entry]
        # What Pants starts, as its daemon, is no better protected than by its environment.
        assert told.pants["child"] is not None
        assert not [entry for entry in told.pants["child"] if str(poison) in entry]


@pytest.mark.parametrize("minor", [7, 8, 10, 13, 14])
def test_any_python_installs(minor: int, checkout: Checkout) -> None:
    """It needs none but the standard library of a Python from 3.7 on."""
    python = interpreters.find(range(minor, minor + 1))
    if not python:
        pytest.skip(f"this machine has no CPython 3.{minor}")
    checkout.link("python3", python.path)
    # PANTS_PYTHON39 comes first where the search for any Python goes.
    named = checkout.env.pop("PANTS_PYTHON39")
    checkout.link("python3.9", named)
    checkout.run().check()


def test_python_that_does_not_run_is_passed_over(checkout: Checkout) -> None:
    checkout.link("python3.9", checkout.env.pop("PANTS_PYTHON39"))
    checkout.program("python3", "#!/bin/sh\necho no such version >&2\nexit 127\n")
    assert "no such version" not in checkout.run().check().errors


def test_no_python_and_no_uv(bare: Checkout) -> None:
    if re.search("python", " ".join(map(str, Path("/opt").glob("*/bin/python3*")))):
        pytest.skip("this machine has a Python in /opt")
    told = bare.run(PYENV_ROOT=UNSET)
    told.check_failed("no Python was found", "python3", "uv python install 3.9")
    assert len(told.errors.splitlines()) == 1
    assert bare.leftovers == []
