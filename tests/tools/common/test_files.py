"""Files are read with a limit, and written all or none."""

import pytest

from tools.common.errors import ToolError
from tools.common.files import read_text, write_all


def test_a_failed_write_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "c").mkdir()  # can't be replaced by a file
    with pytest.raises(OSError, match="c"):
        write_all({tmp_path / "a": b"new", tmp_path / "b": b"new", tmp_path / "c": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"12345", "^x.txt: holds more than 4 bytes$"),
        (b"a\n\xff", "^x.txt:2: is not UTF-8$"),
        (None, "^x.txt: cannot be read: No such file"),
    ],
)
def test_a_text_that_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(ToolError, match=message):
        read_text(tmp_path / "x", 4, name="x.txt")
