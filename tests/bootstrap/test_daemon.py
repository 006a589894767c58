"""The daemon's lock, and Pants without a daemon where none starts."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Generator

import pytest

from tests.bootstrap.checkout import Checkout, ended

WITHOUT = "pants: another command is running: this one starts without the daemon\n"


@contextlib.contextmanager
def held(checkout: Checkout) -> Generator[None]:
    (checkout.root / ".pants.d").mkdir(exist_ok=True)
    with open(checkout.root / ".pants.d/daemon.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_command_alone_has_the_daemon(installed: Checkout) -> None:
    told = installed.run().check()
    assert told.errors == ""
    assert "PANTS_CONCURRENT" not in told.environment
    assert told.pants["daemon"] == "daemon"


def test_command_beside_another_does_without(installed: Checkout) -> None:
    start = time.monotonic()
    with held(installed):
        told = installed.run().check()
    assert told.environment["PANTS_CONCURRENT"] == "true"
    assert told.errors == WITHOUT
    assert time.monotonic() - start > 3


def test_command_waits_a_moment_for_a_short_one(installed: Checkout) -> None:
    with held(installed):
        process = installed.start()
        time.sleep(0.5)
    told = ended(process).check()
    assert "PANTS_CONCURRENT" not in told.environment
    assert told.errors == ""


def test_long_command_holds_the_daemon_to_its_end(installed: Checkout) -> None:
    """And to no later: however it ends."""
    first = installed.start(TEST_SECONDS="60")
    assert first.stdout
    first.stdout.readline()
    assert installed.run().check().errors == WITHOUT
    first.kill()
    first.communicate()
    assert installed.run().check().errors == ""


def test_no_color_reaches_pants(installed: Checkout) -> None:
    """Pants knows options of its own only; where the user sets these, they count."""
    names = ("PANTS_COLORS", "PANTS_DYNAMIC_UI")
    for value, told in (("1", ["false", "false"]), ("", [None, None])):
        environment = installed.run(NO_COLOR=value).check().environment
        assert [environment.get(name) for name in names] == told
    environment = installed.run(NO_COLOR="1", PANTS_COLORS="true").check().environment
    assert environment["PANTS_COLORS"] == "true"


@pytest.mark.parametrize("value", ["true", "false"])
def test_users_own_choice_counts(value: str, installed: Checkout) -> None:
    with held(installed):
        told = installed.run(PANTS_CONCURRENT=value).check()
    assert told.environment["PANTS_CONCURRENT"] == value
    assert told.errors == ""  # it did not wait


def test_busy_machine_has_time_to_start_the_daemon(installed: Checkout) -> None:
    told = installed.run().check().pants
    assert told["daemon seconds"] == 300
    assert told["socket seconds"] == 1000  # Pants' own wait, where it is longer


def test_without_a_daemon_pants_goes_on(installed: Checkout) -> None:
    told = installed.run(TEST_NO_DAEMON="1").check()
    assert told.pants["daemon"] == "fallback"
    assert told.errors == "pants: the daemon did not start: this command goes on without it\n"
