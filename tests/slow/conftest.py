"""Tests that start real engines and compilers, minutes each: only where they are asked for."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("GRUG_SLOW") != "1":
        for item in items:
            item.add_marker(pytest.mark.skip(reason="slow: ./pants slow runs it"))
