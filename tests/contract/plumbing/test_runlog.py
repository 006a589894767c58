"""Who listens to a run."""

import sys

import pytest

from tests.contract.harness import under_test

runlog = under_test().runlog


def test_without_wandb_one_line_names_the_command_that_adds_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(runlog.ListenerError) as raised:
        runlog.import_wandb()
    message = str(raised.value)
    assert "\n" not in message and "./pants run locks -- add wandb" in message
