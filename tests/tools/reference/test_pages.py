"""Goals and target types of ./pants help-all as pages: ours alone, and nothing of the machine."""

import json

import pytest

from tools.common.errors import ToolError
from tools.reference import packages
from tools.reference.__main__ import main
from tools.reference.help_text import Help
from tools.reference.pages import goals_page, inline, targets_page, tools_page
from tools.reference.pants_help import parse
from tools.reference.programs import Program, ProgramHelp


def option(name: str, **more) -> dict:
    """As Pants prints one; what a machine or pants.toml made of it is in `value_history`."""
    history = {
        "ranked_values": [{"rank": "CONFIG", "value": "/home/somebody", "details": "pants.toml"}]
    }
    plain = {"scoped_cmd_line_args": [name], "typ": "str", "default": None, "choices": None}
    return {**plain, "help": "Says how.", "value_history": history, **more}


def scope(name: str, *options: dict, goal: bool = False) -> dict:
    output = {"scope": name, "is_goal": goal, "description": f"What {name} is.", "provider": "grug"}
    return {**output, "basic": list(options), "advanced": [], "deprecated": [option("--old")]}


def declared(module: str, *scopes: str) -> dict:
    return {"module": module, "returned_by_rules": [f"construct_scope_{name}" for name in scopes]}


def field(name: str, default: str | None, description: str) -> dict:
    output = {"alias": name, "default": default, "description": description, "required": False}
    return {**output, "type_hint": "Iterable[str] | None"}


@pytest.fixture
def said() -> dict:
    return {
        "name_to_api_type_info": {
            "grug.bake.Bake": declared("grug.bake", "bake"),
            "grug.oven.Oven": declared("grug.oven", "hot_oven"),
            "grug.oven.Heat": {"module": "grug.oven", "returned_by_rules": None},
            "pants.python.PythonSetup": declared("pants.python", "python"),
        },
        "scope_to_help_info": {
            "bake": scope(
                "bake", option("--bake-kind", choices=["a", "b"], default="a"), goal=True
            ),
            "hot-oven": scope("hot-oven", option("--hot-oven-lit", typ="bool", default=True)),
            "python": scope("python", option("--python-resolves")),
        },
        "name_to_target_type_info": {
            "grug_cake": {
                "alias": "grug_cake",
                "provider": "grug",
                "description": "A cake.\n\nIt is `**baked**`, not **fried**.",
                "fields": [
                    field("layers", "('sponge', 'cream')", "Of it.\n\nPages more."),
                    field("age", None, "a|b"),
                ],
            },
            "pex_binary": {"alias": "pex_binary", "provider": "pants.backend.python", "fields": []},
        },
    }


def test_goals_and_options_that_the_plugin_declares(said):
    page = goals_page(parse(json.dumps(said), "help.json"))
    assert "## bake\n\nWhat bake is.\n" in page
    assert '| `--bake-kind` | `"a"` | Says how. One of `a`, `b`. |' in page
    assert "### hot-oven\n" in page
    assert "| `--[no-]hot-oven-lit` | `true` | Says how. |" in page
    assert "python" not in page.replace("pantsbuild", "")  # whose provider Pants gives as ours
    assert "somebody" not in page and "--old" not in page


def test_target_types_of_ours(said):
    page = targets_page(parse(json.dumps(said), "help.json"))
    assert "## grug_cake\n\nA cake.\n\nIt is `**baked**`, not \\*\\*fried\\*\\*.\n" in page
    assert '| `layers` | `Iterable[str]` | `["sponge", "cream"]` | Of it. |' in page
    assert r"| `age` | `Iterable[str]` | | a\|b |" in page
    assert "pex_binary" not in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "help.json:1: is no JSON: "),
        ("[]", "help.json: lacks one of name_to_api_type_info, "),
        ('{"scope_to_help_info": {}}', "help.json: lacks one of name_to_api_type_info, "),
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(ToolError) as raised:
        parse(text, "help.json")
    assert str(raised.value).startswith(message)
    assert "give what ./pants help-all prints" in str(raised.value)


def test_help_without_the_plugin_or_of_another_pants_is_refused(said):
    del said["scope_to_help_info"]["bake"]["basic"][0]["default"]
    with pytest.raises(ToolError, match="another form than Pants 2.17's: KeyError.'default'"):
        parse(json.dumps(said), "help.json")
    for key in said:
        said[key] = {}
    with pytest.raises(ToolError, match="names nothing of the backend 'grug'"):
        parse(json.dumps(said), "help.json")


def test_a_help_text_is_no_markdown():
    assert inline("a *b* [c](d) <e> f|g `h*|i`") == r"a \*b\* \[c\](d) \<e\> f\|g `h*\|i`"
    assert inline("RUN_DIR and _private_") == r"RUN_DIR and \_private\_"


def test_every_tool_has_a_heading_and_a_link_to_it():
    output = [
        ProgramHelp(
            Program("tools/hot_oven/__main__.py", ("python -m tools.hot_oven",)),
            (),
            "",
            Help("X", ()),
        ),
        ProgramHelp(
            Program("tools/a/b.py", ("python -m tools.a.b",)), ("c",), "says so", Help("[Y]", ())
        ),
    ]
    page = tools_page(output)
    assert "| [`python -m tools.hot_oven`](#toolshot_oven) | |" in page
    begin = "\n\n<div data-search-exclude markdown>\n\n```text\nusage: "
    assert f"## tools.hot_oven{begin}python -m tools.hot_oven X\n```\n\n</div>" in page
    assert f"### tools.a.b c\n\nsays so{begin}python -m tools.a.b c [Y]\n```" in page


@pytest.fixture
def workspace(tmp_path, said, monkeypatch):
    """One with a package of tools, whose only program is the template's launch.py."""
    monkeypatch.setattr(packages, "PURPOSES", {"oven": "Bakes."})
    (tmp_path / "tools/oven").mkdir(parents=True)
    (tmp_path / "tools/oven/heat.py").write_text("")
    (tmp_path / "pants.toml").write_text("[cli.alias]\n")
    (tmp_path / "BUILD").write_text("")
    launch = tmp_path / "experiments/grug/base/launch.py"
    launch.parent.mkdir(parents=True)
    launch.write_text("import argparse\nargparse.ArgumentParser().parse_args()\n")
    (tmp_path / "help.json").write_text(json.dumps(said))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stale_pages_are_named_and_written(workspace, capsys):
    check = ["--pants", "help.json", "--check"]
    assert main(check) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"docs/{name} is stale: run ./pants run tools/reference:write"
        for name in (
            "reference/packages.md",
            "assets/packages.svg",
            "reference/goals.md",
            "reference/targets.md",
            "reference/tools.md",
        )
    ]
    assert not (workspace / "docs").exists()
    assert main(check[:2]) == 0
    before = {path: path.read_bytes() for path in (workspace / "docs/reference").iterdir()}
    assert (main(check), main(check[:2])) == (0, 0)
    assert {path: path.read_bytes() for path in (workspace / "docs/reference").iterdir()} == before
    (workspace / "docs/reference/goals.md").write_text("edited")
    capsys.readouterr()
    assert main(check) == 1
    assert capsys.readouterr().err.startswith("docs/reference/goals.md is stale: run ")


def test_elsewhere_is_no_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ToolError, match="holds no pants.toml; name the workspace with --root"):
        main(["--check"])
