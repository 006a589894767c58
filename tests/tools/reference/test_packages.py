"""The picture of the packages is that of their imports, and these have no circle."""

import ast
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.common.errors import ToolError
from tools.reference import packages, pages

ROOT = Path(__file__).parents[3]
IMPORTS = packages.find_imports(ROOT)
PLUGIN = "tools/pants_plugins/grug/tool.py"


@pytest.mark.parametrize("name", [packages.PAGE, packages.PICTURE])
def test_the_page_and_its_picture_are_what_the_code_imports(name):
    text = {packages.PAGE: packages.page, packages.PICTURE: packages.picture}[name](IMPORTS)
    assert not pages.is_stale(ROOT / name, text), pages.remedy(name)


def test_the_floors_of_the_house():
    """What the packages of the archive may import: only what is below them."""
    floors = ("common", "ledger", "runs", "site")
    for floor, package in enumerate(floors):
        assert IMPORTS[package] <= set(floors[:floor]), package
    assert "common" in packages.levels(IMPORTS)[0]


def test_the_plugin_brings_each_tool_what_it_imports():
    (result,) = [
        ast.literal_eval(node.value)
        for node in ast.parse((ROOT / PLUGIN).read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "IMPORTS"
    ]
    for package, imports in result.items():
        assert set(imports) == packages.closure(IMPORTS, package), f"{PLUGIN}: IMPORTS: {package}"


def test_every_way_to_import_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "PURPOSES", dict.fromkeys("abcd", "a purpose"))
    texts = {
        "a": "import tools.b.x\nimport os\n",
        "b": "from tools import c\n",
        "c": "from tools.c.below import z\n",
        "c/below": "def late():\n    from tools.d.x import y\n",
        "d": "",
    }
    for package, text in texts.items():
        (tmp_path / "tools" / package).mkdir(parents=True)
        (tmp_path / "tools" / package / "x.py").write_text(text)
    imports = packages.find_imports(tmp_path)
    assert imports == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set()}
    assert packages.levels(imports) == [["d"], ["c"], ["b"], ["a"]]
    (tmp_path / "tools/d/x.py").write_text("from tools.b import x\n")
    with pytest.raises(ToolError, match="^tools/: b, c, d import each other in a circle$"):
        packages.levels(packages.find_imports(tmp_path))
    (tmp_path / "tools/e").mkdir()
    (tmp_path / "tools/e/x.py").write_text("")
    with pytest.raises(ToolError, match="^tools/e: say its purpose in packages.py, PURPOSES$"):
        packages.find_imports(tmp_path)


def test_arrows_that_follow_from_others_are_left_out():
    imports = {"a": {"b", "c", "d"}, "b": {"c"}, "c": frozenset(), "d": frozenset()}
    imports = {name: frozenset(names) for name, names in imports.items()}
    assert packages.needed(imports) == [("a", "b"), ("a", "d"), ("b", "c")]
    drawing = ElementTree.fromstring(packages.picture(imports))
    svg = "{http://www.w3.org/2000/svg}"
    assert sorted(text.text or "" for text in drawing.iter(f"{svg}text")) == ["a", "b", "c", "d"]
    assert len(drawing.findall(f"{svg}path")) == 3
