"""module_mapping: what is written is read again, by Python, and the rest of the file stays."""

import ast

import pytest

from tests.tools.requirements.conftest import BUILD
from tools.common.errors import ToolError
from tools.requirements import mapping

PATH = "tools/locks/BUILD"


def edit(text: str, listing: str, name: str, modules: list[str] | None) -> str:
    return mapping.with_modules(text, PATH, f"tools/locks/{listing}", name, modules)


@pytest.mark.parametrize("listing", ["cpu.in", "docs.in", "gpu.in", "tpu.in"])
def test_modules_come_and_go(listing):
    before = mapping.read(BUILD, PATH, listing)
    text = edit(BUILD, listing, "PyYAML", ["_yaml", "yaml"])
    assert mapping.read(text, PATH, listing) == {**before, "PyYAML": ["_yaml", "yaml"]}
    others = {"cpu.in", "docs.in", "gpu.in", "tpu.in"} - {listing}
    assert all(mapping.read(text, PATH, o) == mapping.read(BUILD, PATH, o) for o in others)
    assert "# Requirements.\n" in text and "# What a TPU needs.\n" in text
    assert edit(text, listing, "pyyaml", ["_yaml", "yaml"]) != BUILD
    again = edit(text, listing, "pyyaml", None)
    assert ast.dump(ast.parse(again)) == ast.dump(ast.parse(BUILD))


def test_an_entry_lies_as_people_write_it():
    text = edit(BUILD, "cpu.in", "aa", ["bb"])
    assert (
        '    module_mapping={\n        "aa": ["bb"],\n        "Big-Name": ["big"],\n    },\n)'
        in text
    )
    text = edit(BUILD, "gpu.in", "aa", ["bb"])
    assert 'resolve="gpu",\n    module_mapping={\n        "aa": ["bb"],\n    },\n)\n' in text


def test_the_last_entry_takes_the_field_with_it():
    text = edit(BUILD, "tpu.in", "big_name", None)
    assert mapping.read(text, PATH, "tpu.in") == {} and text.count("module_mapping") == 1
    assert text.endswith('    resolve="tpu",\n)\n')


def test_a_field_within_a_line_comes_and_goes():
    for text in (
        "python_requirements(module_mapping={'a': ['b']}, source='cpu.in')\n",
        "python_requirements(source='cpu.in', module_mapping={'a': ['b']}, name='x')\n",
        "python_requirements(source='cpu.in', module_mapping={'a': ['b']})\n",
    ):
        without = edit(text, "cpu.in", "a", None)
        assert mapping.read(without, PATH, "cpu.in") == {} and "  " not in without
        again = edit(without, "cpu.in", "a", ["b"])
        assert mapping.read(again, PATH, "cpu.in") == {"a": ["b"]}


def test_what_is_there_already_changes_nothing():
    assert edit(BUILD, "cpu.in", "Big-Name", ["big"]) is BUILD
    assert edit(BUILD, "cpu.in", "other", None) is BUILD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x(", "cannot be read"),
        ("python_requirement(name='cpu')\n", "no python_requirements has source='cpu.in'"),
        ("python_requirements(source='cpu.in', module_mapping=M)\n", "BUILD:1: .* no plain dict"),
        ("python_requirements(source='cpu.in', module_mapping=['a'])\n", "no plain dict"),
        (
            "python_requirements(source='cpu.in', module_mapping={\n# Why.\n'c': ['d']})\n",
            "laid out unusually: write 'a': ",
        ),
    ],
)
def test_a_file_that_cannot_be_edited_is_named(text, message):
    with pytest.raises(ToolError, match=message):
        edit(text, "cpu.in", "a", ["b"])


def test_text_that_is_not_ascii_moves_nothing():
    text = (
        "# Größe ✓\npython_requirements(name='ü', source='cpu.in', module_mapping={'a': ['ä']})\n"
    )
    assert mapping.read(edit(text, "cpu.in", "b", ["c"]), PATH, "cpu.in") == {
        "a": ["ä"],
        "b": ["c"],
    }
