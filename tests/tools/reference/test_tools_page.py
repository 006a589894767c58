"""docs/reference/tools.md is what the tools say of themselves; goals and targets need ./pants, and
are held to theirs in tests/workspace/."""

from pathlib import Path

from tools.reference import pages, programs

ROOT = Path(__file__).parents[3]


def test_the_page_is_what_the_tools_say():
    text = pages.tools_page(programs.say_all(ROOT))
    assert not pages.is_stale(ROOT / pages.TOOLS, text), pages.remedy(pages.TOOLS)
    assert str(ROOT) not in text
