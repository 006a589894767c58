"""The docs are built by Zensical, the successor of MkDocs Material, too."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def zensical():
    """The command of Zensical."""
    named = os.environ.get("GRUG_ZENSICAL")
    if named:
        return [named]
    program = Path("tests/site/zensical.pex").resolve()
    if not program.exists():
        pytest.fail("there is no Zensical: name one with GRUG_ZENSICAL")
    return [sys.executable, str(program)]


def test_every_page_is_built_with_its_title_and_its_links(zensical, tmp_path):
    shutil.copytree("docs", tmp_path / "docs")
    shutil.copy("mkdocs.yml", tmp_path)
    command = [*zensical, "build", "--config-file", "mkdocs.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    sources = [p.relative_to(tmp_path / "docs") for p in (tmp_path / "docs").rglob("*.md")]
    assert len(sources) > 20
    built = tmp_path / "dist/site"
    for source in sources:
        page = (built / source.with_suffix(".html")).read_text()
        # The navigation names generated pages, too, which the docs lack.
        page = page[page.index("<article") : page.index("</article>")]
        heading = re.search(r"^# (.+)$", (tmp_path / "docs" / source).read_text(), re.MULTILINE)
        words = re.sub(r"[`*]", "", heading[1]) if heading else ""
        text = re.sub(r"<[^>]+>", "", page).replace("&#39;", "'").replace("&amp;", "&")
        assert words in text, source
        assert not re.search(r'href="[^":]+\.md[#"]', page), source
