"""First starts where pip and uv are configured in ways that would break an installation."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from tests.bootstrap.checkout import UNSET, Checkout
from tests.bootstrap.servers import dead_port

# Settings with which pip, or uv, would install nothing, or elsewhere, or other than what is locked.
PIP = {
    "what": {
        "CONSTRAINT": "/no/such/constraints.txt",
        "NO_BINARY": ":all:",
        "ONLY_BINARY": ":none:",
        "REQUIREMENT": "/no/such/requirements.txt",
    },
    "where": {
        "TARGET": "{tmp}/target",
        "PREFIX": "{tmp}/prefix",
        "ROOT": "{tmp}/root",
        "USER": "1",
        "PYTHON": "/no/such/python",
    },
    "whether": {
        "DRY_RUN": "1",
        "REQUIRE_VIRTUALENV": "1",
        "LOG": "/no/such/directory/log",
        "CACHE_DIR": "/dev/null",
        "EXTRA_INDEX_URL": "{dead}",
    },
}
UV = {
    "what": {
        "CONSTRAINT": "/no/such/constraints.txt",
        "OVERRIDE": "/no/such/overrides.txt",
        "BUILD_CONSTRAINT": "/no/such/constraints.txt",
        "EXCLUDE_NEWER": "2001-01-01",
        "NO_BINARY": "1",
        "RESOLUTION": "lowest",
    },
    "where": {
        "PYTHON": "/no/such/python",
        "PROJECT_ENVIRONMENT": "/no/such/environment",
        "SYSTEM_PYTHON": "1",
        "PYTHON_PREFERENCE": "only-managed",
        "WORKING_DIRECTORY": "/no/such/directory",
        "ENV_FILE": "/no/such/env",
    },
    "whether": {
        "OFFLINE": "1",
        "CACHE_DIR": "/dev/null",
        "LINK_MODE": "symlink",
        "NO_SYNC": "1",
        "INDEX": "{dead}",
    },
}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    return {"tmp": str(tmp_path), "dead": f"http://localhost:{dead_port()}/simple"}


def configured(checkout: Checkout, *unset: str) -> Checkout:
    """The settings of the test alone count, not those that the fixture gives."""
    for name in ("PIP_CONFIG_FILE", *unset):
        checkout.env[name] = UNSET
    return checkout


def check_installed(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run().check()
    assert checkout.leftovers == []
    assert not [name for name in ("target", "prefix", "root") if (tmp_path / name).exists()]
    (cache,) = checkout.caches
    assert (cache / "venv/lib/python3.9/site-packages/pants").is_dir()


@pytest.mark.parametrize("kind", PIP)
def test_pips_variables(
    kind: str, checkout: Checkout, places: dict[str, str], tmp_path: Path
) -> None:
    told = {f"PIP_{name}": value.format(**places) for name, value in PIP[kind].items()}
    checkout.env.update(told)
    check_installed(checkout, tmp_path)


@pytest.mark.parametrize("kind", UV)
def test_uvs_variables(
    kind: str, checkout: Checkout, places: dict[str, str], tmp_path: Path
) -> None:
    told = {f"UV_{name}": value.format(**places) for name, value in UV[kind].items()}
    checkout.env.update(told)
    check_installed(checkout, tmp_path)


def pip_file(path: Path, checkout: Checkout) -> None:
    """What has been seen to break the start, and where the packages are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    constraints = path.parent / "constraints.txt"
    constraints.write_text("pantsbuild.pants==1.0\npantsbuild-pants<1\n")
    settings = {"constraint": constraints, "target": path.parent / "t", "user": "yes"}
    settings |= {"require-virtualenv": "yes", "index-url": checkout.packages.index}
    path.write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items()))


@pytest.mark.parametrize("level", ["site", "user below XDG", "user", "legacy user", "venv"])
def test_pips_file(level: str, checkout: Checkout, tmp_path: Path) -> None:
    variable, place, file = {
        "site": ("XDG_CONFIG_DIRS", "xdg", "xdg/pip/pip.conf"),
        "user below XDG": ("XDG_CONFIG_HOME", "own", "own/pip/pip.conf"),
        "user": ("LANG", "", f"{checkout.home.name}/.config/pip/pip.conf"),
        "legacy user": ("LANG", "", f"{checkout.home.name}/.pip/pip.conf"),
        "venv": ("VIRTUAL_ENV", "venv", "venv/pip.conf"),
    }[level]
    configured(checkout, "PIP_INDEX_URL").env[variable] = str(tmp_path / place)
    pip_file(tmp_path / file, checkout)
    check_installed(checkout, tmp_path)


def test_machines_own_file(checkout: Checkout, tmp_path: Path, namespace: list[str]) -> None:
    """/etc/xdg/pip/pip.conf itself, in a mount namespace."""
    if not Path("/etc/xdg").is_dir():
        pytest.skip("there is no /etc/xdg to mount over")
    configured(checkout, "PIP_INDEX_URL", "XDG_CONFIG_DIRS")
    pip_file(tmp_path / "etc/pip/pip.conf", checkout)
    mount = 'mount --bind "$1" /etc/xdg && shift && exec "$@"'
    env = {"PATH": f"{checkout.bin}:/usr/sbin:/usr/bin:/sbin:/bin"}
    before = [shutil.which(namespace[0]) or "", *namespace[1:], "sh", "-c", mount, "sh"]
    checkout.run(before=[*before, str(tmp_path / "etc")], **env).check()
    (cache,) = checkout.caches
    assert (cache / "venv/lib/python3.9/site-packages/pants").is_dir()
    assert checkout.packages.index in (cache / "machine.json").read_text()


def test_uvs_file(checkout: Checkout, tmp_path: Path) -> None:
    path = checkout.home / ".config/uv/uv.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"""exclude-newer = "2001-01-01"
no-binary = true
offline = true
[[index]]
url = "{checkout.packages.index}"
default = true
[pip]
target = "{tmp_path}/target"
prefix = "{tmp_path}/prefix"
system = true
"""
    )
    check_installed(configured(checkout, "PIP_INDEX_URL"), tmp_path)


def test_project_around_the_checkout_says_nothing(checkout: Checkout, tmp_path: Path) -> None:
    """uv would read both from the directories above."""
    (tmp_path / "uv.toml").write_text("this is no TOML")
    (checkout.root / "pyproject.toml").write_text('[tool.uv]\nexclude-newer = "2001-01-01"\n')
    (checkout.home / ".python-version").write_text("3.1\n")
    check_installed(checkout, tmp_path)


@pytest.mark.parametrize(
    ("variable", "name", "text"),
    [
        ("PIP_CONFIG_FILE", "pip.conf", "index-url = no section\n"),
        ("UV_CONFIG_FILE", "uv.toml", "index-url = no quotes\n"),
    ],
)
def test_broken_file_is_named_and_ends_nothing(
    variable: str, name: str, text: str, checkout: Checkout
) -> None:
    """Neither the first start nor a later one, which needs nothing of it."""
    (checkout.home / name).write_text(text)
    broken = {variable: str(checkout.home / name)}
    for _ in range(2):
        told = checkout.run(**broken).check()
        line = f"settings in {checkout.home / name} are left out: "
        assert line in told.errors.splitlines()[-1]
    assert len(told.errors.splitlines()) == 1
    assert checkout.leftovers == []


def test_dead_index_is_named(checkout: Checkout, places: dict[str, str]) -> None:
    configured(checkout, "PIP_INDEX_URL")
    told = checkout.run(UV_DEFAULT_INDEX=places["dead"], PIP_INDEX_URL=places["dead"])
    told.check_failed("could not install Pants")
    assert places["dead"] in told.errors
    assert len(told.errors.splitlines()) <= 10
    assert checkout.leftovers == []


@pytest.mark.parametrize(("main", "other"), [("{dead}", "{index}"), ("{index}", "{dead}")])
def test_one_dead_index_of_two(
    main: str, other: str, checkout: Checkout, places: dict[str, str], tmp_path: Path
) -> None:
    """pip goes on without it; so must uv."""
    places["index"] = checkout.packages.index
    (checkout.bin / "uv").unlink()
    configured(checkout, "PIP_INDEX_URL").env.update(
        PIP_INDEX_URL=main.format(**places),
        PIP_EXTRA_INDEX_URL=other.format(**places),
        PIP_FIND_LINKS=places["dead"],
    )
    told = checkout.run().check()
    assert f"pants: {places['dead']} does not answer (" in told.errors
    check_installed(checkout, tmp_path)


def test_all_dead_is_told_by_uv(checkout: Checkout, places: dict[str, str]) -> None:
    configured(checkout, "PIP_INDEX_URL").env["PIP_EXTRA_INDEX_URL"] = places["dead"]
    told = checkout.run(PIP_INDEX_URL=places["dead"]).check_failed("could not install Pants")
    assert "going on without it" not in told.errors


def test_find_links_without_index(checkout: Checkout, tmp_path: Path) -> None:
    """A directory on a machine without network, beside one that is no longer there."""
    files = (checkout.packages.root / "files").as_uri()
    configured(checkout, "PIP_INDEX_URL").env.update(
        PIP_NO_INDEX="1", PIP_FIND_LINKS=f"/no/such/wheels file:///no/such/wheels {files}"
    )
    check_installed(checkout, tmp_path)


def test_relative_paths_start_where_the_user_stands(installed: Checkout) -> None:
    directory = installed.home / "below"
    directory.mkdir()
    shutil.copytree(installed.packages.root, installed.home / "mirror")
    configured(installed).env["PIP_INDEX_URL"] = "../mirror/simple"
    told = installed.run(cwd=directory).check()
    mirror = (installed.home / "mirror/simple").as_uri()
    assert ast.literal_eval(told.environment["PANTS_PYTHON_REPOS_INDEXES"]) == [mirror]


def test_what_adds_to_pypi_adds_to_pants_options(installed: Checkout) -> None:
    """Whose own are PyPI, or what pants.toml names."""
    links = (installed.packages.root / "files").as_uri()
    configured(installed).env.update(
        PIP_EXTRA_INDEX_URL="https://more.example", PIP_FIND_LINKS=links
    )
    told = installed.run().check()
    assert told.environment["PANTS_PYTHON_REPOS_FIND_LINKS"] == f"+{[links]}"
    indexes = ast.literal_eval(told.environment["PANTS_PYTHON_REPOS_INDEXES"])
    assert indexes == [installed.packages.index, "https://more.example"]
    told = installed.run(PIP_INDEX_URL=UNSET).check()
    assert told.environment["PANTS_PYTHON_REPOS_INDEXES"] == "+['https://more.example']"


def test_pants_own_options_outrank(installed: Checkout) -> None:
    told = installed.run(PANTS_PYTHON_REPOS_INDEXES="['https://mine.example']").check()
    assert told.environment["PANTS_PYTHON_REPOS_INDEXES"] == "['https://mine.example']"
