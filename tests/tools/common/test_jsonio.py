"""JSON that others wrote is read with the line of its fault; ours is the same each time."""

import pytest

from tools.common.errors import ToolError
from tools.common.jsonio import json_line, json_text, line_of, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b": }', "^r.json:8: is no JSON: "),
        ('{"a": NaN}', "^r.json:7: is no usable JSON: NaN is not finite"),
        ('{"a": 1e999}', "^r.json:7: is no usable JSON: 1e999 is not finite"),
        ("[" * 100_000, "^r.json:7: is no usable JSON: "),
        ("1" * 5000, "^r.json:7: is no usable JSON: "),
    ],
)
def test_a_fault_has_its_line(text, message):
    with pytest.raises(ToolError, match=message) as raised:
        parse_json(text, "r.json", 7)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path):
    (tmp_path / "r.json").write_text('{"a": 12}')
    assert read_json(tmp_path / "r.json", 9) == {"a": 12}
    with pytest.raises(ToolError, match="^r: holds more than 8 bytes$"):
        read_json(tmp_path / "r.json", 8, name="r")


def test_equal_values_are_equal_bytes():
    one, other = {"b": 1, "a": {"d": 2, "c": "é"}}, {"a": {"c": "é", "d": 2}, "b": 1}
    assert json_text(one) == json_text(other) and json_line(one) == json_line(other)
    assert json_text({"b": 1, "a": 2}) == '{\n "a": 2,\n "b": 1\n}\n'
    assert line_of(json_text(one).splitlines(), "b") == 6


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1,\n"a": 1}', "x.json:2: the key 'a' stands twice; correct it"),
        ('{"b": {"a": 1},\n "a": 2,\n "c": [{"x": 1,\n "x": ""}]}', "x.json:4: the key 'x' stands"),
        ('{"a": "\\"a\\": {[",\n\n"\\u0061": 2}', "x.json:3: the key 'a' stands twice"),
        ('[{"a": 1}, {"a": 1, "b": {"a": 2}},\n{"b": 1, "b": 2}]', "x.json:2: the key 'b' stands"),
    ],
)
def test_a_key_that_stands_twice(text, message):
    """Readers take one or the other: a reviewer sees what a tool does not."""
    with pytest.raises(ToolError) as raised:
        parse_json(text, "x.json")
    assert str(raised.value).startswith(message)


def test_equal_keys_of_different_objects():
    text = '{"a": {"a": [{"a": 1}, {"a": 2}]}}'
    assert parse_json(text, "x.json") == {"a": {"a": [{"a": 1}, {"a": 2}]}}
