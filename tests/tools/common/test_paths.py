"""Arguments that name places take URLs for what they are."""

import argparse
from pathlib import Path

import pytest

from tools.common.paths import is_url, local_path, local_text, location

URLS = ["s3://bucket/a b", "gs://bucket", "s3://bucket/"]
NO_PLACE = [
    "s3:/bucket/a",
    "gs:/b",
    "s3://",
    "gs:///a",
    "http://host/a",
    "hf://a/b",
    "file://a/b",
    "",
]
PATHS = [
    "a",
    "/a/b",
    "./a:b",
    "s3",
    "a/s3://b",
    "C:/a",
    "HEAD:a/b",
    "origin/main:a",
    "~/a",
    "a.b/c",
]


@pytest.mark.parametrize("text", PATHS)
def test_paths_are_kept(text):
    assert location(text) == local_text(text) == text
    assert local_path(text) == Path(text)
    assert not is_url(text) and not is_url(Path(text))


def test_a_file_url_is_a_path():
    assert local_path("file:///a/b c") == Path("/a/b c") and location("file:///a") == "/a"


@pytest.mark.parametrize("text", URLS)
def test_urls_of_buckets_are_locations_and_no_paths(text):
    assert location(text) == text and is_url(text)
    for convert in (local_path, local_text):
        with pytest.raises(argparse.ArgumentTypeError) as refused:
            convert(text)
        message = str(refused.value)
        assert (
            message.startswith(f"{text}: ") and "\n" not in message and "cp --recursive" in message
        )


@pytest.mark.parametrize("text", NO_PLACE)
@pytest.mark.parametrize("convert", [local_path, local_text, location])
def test_what_is_neither_is_refused(text, convert):
    with pytest.raises(argparse.ArgumentTypeError, match="give a path|takes a path") as refused:
        convert(text)
    assert "\n" not in str(refused.value)
