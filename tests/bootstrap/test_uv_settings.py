"""What machine.read takes from uv's files and variables."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.bootstrap.conftest import read
from tools.start import machine

pytestmark = pytest.mark.usefixtures("quiet_etc")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


UV_FILES = ("xdg two/uv/uv.toml", "xdg one/uv/uv.toml", ".config/uv/uv.toml")


@pytest.mark.parametrize(("lower", "upper"), list(itertools.combinations(UV_FILES, 2)))
def test_uvs_files_outrank_each_other(
    lower: str, upper: str, user_home: Path, environ: dict[str, str]
) -> None:
    for name in (lower, upper):
        write(user_home / name, f'index-url = "https://{name.replace(" ", "-")}.example"\n')
    assert read(environ).index == f"https://{upper.replace(' ', '-')}.example"


def test_file_that_uv_is_told_of_replaces_the_others(
    user_home: Path, environ: dict[str, str]
) -> None:
    write(user_home / ".config/uv/uv.toml", 'extra-index-url = ["https://dead.example"]\n')
    named = write(user_home / "mine.toml", 'index-url = "https://mine.example"\n')
    settings = read({**environ, "UV_CONFIG_FILE": str(named)})
    assert (settings.index, settings.extra_indexes) == ("https://mine.example", ())
    assert read({**environ, "UV_NO_CONFIG": "1"}) == machine.Machine()


def test_levels_are_put_together(user_home: Path, environ: dict[str, str]) -> None:
    """As uv does it: lists of all levels, the stronger first; of the site's files the first."""
    for name in UV_FILES:
        text = f'extra-index-url = ["https://{name.replace(" ", "-")}.example"]\n'
        write(user_home / name, text)
    environ["UV_INDEX"] = "https://variable.example"
    user = "https://.config/uv/uv.toml.example"
    site = "https://xdg-one/uv/uv.toml.example"
    assert read(environ).extra_indexes == ("https://variable.example", user, site)
    found = read({**environ, "UV_NO_SYSTEM_CONFIG": "1"})
    assert found.extra_indexes == ("https://variable.example", user)


def test_every_form_of_uvs_file(user_home: Path, environ: dict[str, str]) -> None:
    write(
        user_home / ".config/uv/uv.toml",
        """index-url = "https://outranked.example"
find-links = ["/opt/wheels"]
allow-insecure-host = ["packages.example"]
native-tls = true
trusted-host = ["https://b.example:8443"]
[[index]]
url = "flat"
format = "flat"
[[index]]
url = "https://never.example"
explicit = true
[[index]]
name = "extra"
url = "https://extra.example/simple"
[[index]]
url = "https://default.example/simple"
default = true
[pip]
find-links = ["/opt/other wheels"]
target = "/no/such/target"
""",
    )
    assert read(environ) == machine.Machine(
        index="https://default.example/simple",
        extra_indexes=("https://extra.example/simple",),
        find_links=(
            "file:///opt/other%20wheels",
            f"{(user_home / '.config/uv/flat').as_uri()}",
        ),
        trusted_hosts=("packages.example", "b.example:8443"),
        spare=machine.PYPI,
    )


def test_uvs_environment(environ: dict[str, str]) -> None:
    environ.update(
        UV_DEFAULT_INDEX="main=https://default.example/simple",
        UV_INDEX_URL="https://outranked.example/simple",
        UV_INDEX="one=https://one.example/simple  https://two.example/simple?a=b",
        UV_EXTRA_INDEX_URL="https://three.example",
        UV_FIND_LINKS="/opt/my wheels,https://links.example",
        UV_INSECURE_HOST="one.example two.example:8080",
    )
    assert read(environ) == machine.Machine(
        index="https://default.example/simple",
        extra_indexes=(
            "https://one.example/simple",
            "https://two.example/simple?a=b",
            "https://three.example",
        ),
        find_links=("file:///opt/my%20wheels", "https://links.example"),
        trusted_hosts=("one.example", "two.example:8080"),
        spare=machine.PYPI,
    )


def test_login_of_a_named_index(user_home: Path, environ: dict[str, str]) -> None:
    write(
        user_home / ".config/uv/uv.toml",
        """[[index]]
name = "my-own.x"
url = "https://own.example/simple"
default = true
[[index]]
name = "other"
url = "https://told:already@other.example/simple"
""",
    )
    environ.update(UV_INDEX_MY_OWN_X_USERNAME="me@home", UV_INDEX_MY_OWN_X_PASSWORD="s3cr/t")
    environ.update(UV_INDEX_OTHER_USERNAME="no", UV_INDEX_OTHER_PASSWORD="no")
    settings = read(environ)
    assert settings.index == "https://me%40home:s3cr%2Ft@own.example/simple"
    assert settings.extra_indexes == ("https://told:already@other.example/simple",)
    environ["UV_DEFAULT_INDEX"] = "my_own.x=https://env.example:8443"
    assert read(environ).index == "https://me%40home:s3cr%2Ft@env.example:8443"
