"""`package` and `run` of the site: documents, the archive's pages and the diffs in one tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from pants.core.goals.package import BuiltPackage, Package
from pants.core.goals.run import RunRequest
from pants.engine.addresses import Address
from pants.engine.fs import DigestContents
from pants.engine.internals.scheduler import ExecutionError
from pants.testutil.rule_runner import RuleRunner

from grug.serve import ServeFieldSet
from grug.site import SiteFieldSet
from grug.tool import OwnTool, ToolResult
from tests.plugin.cases.conftest import INHERITED, OPTIONS

LEDGER = """# Archive

## seed

- path: experiments/grug/seed
- origin: none
- status: active
- bucket: template
- purpose: to be copied
- verdict: pending

## wider

- path: experiments/grug/wider
- origin: seed
- status: active
- bucket: loss kernel
- purpose: to be shown
- verdict: pending
"""
CONFIG = """site_name: a site
docs_dir: docs
site_dir: dist/site
exclude_docs: BUILD
use_directory_urls: false
theme: {name: material, font: false}
"""
BUILD = """
grug_site(name="site", output_path="site", sources=["**/*.md"])
grug_site_server(name="serve", site=":site")
"""


@pytest.fixture(scope="module")
def package(runner: RuleRunner) -> BuiltPackage:
    runner.write_files(
        {
            "experiments/grug/seed/BUILD": "grug_variant()",
            "experiments/grug/seed/model.py": "WIDTH = 1\n",
            "experiments/grug/wider/BUILD": "grug_variant()",
            "experiments/grug/wider/model.py": "WIDTH = 2048\n",
            "docs/reports/grug-archive.md": LEDGER,
            "docs/index.md": "# Home\n",
            "docs/BUILD": BUILD,
            "mkdocs.yml": CONFIG,
        }
    )
    site = runner.get_target(Address("docs", target_name="site"))
    return runner.request(BuiltPackage, [SiteFieldSet.create(site)])


def test_pages_of_variants_hold_their_diffs(runner: RuleRunner, package: BuiltPackage) -> None:
    assert [artifact.relpath for artifact in package.artifacts] == ["site"]
    files = {
        f.path: f.content.decode(errors="replace")
        for f in runner.request(DigestContents, [package.digest])
    }
    assert "site/index.html" in files
    page = files["site/reports/variants/wider.html"]
    assert "2048" in page and "To be shown" in page
    assert "2048" not in files["site/reports/variants/seed.html"]
    assert "2048" not in files["site/search/search_index.json"]


def test_run_serves_the_packaged_site(runner: RuleRunner, package: BuiltPackage) -> None:
    server = runner.get_target(Address("docs", target_name="serve"))
    request = runner.request(RunRequest, [ServeFieldSet.create(server)])
    assert request.args[-2:] == ("{chroot}/tools/site/serve.py", "{chroot}/site")
    paths = {f.path for f in runner.request(DigestContents, [request.digest])}
    assert {"tools/site/serve.py", "site/index.html"} <= paths


def test_what_a_person_wrote_wrongly_is_one_line(runner: RuleRunner, package: BuiltPackage) -> None:
    """Without the engine's part, whichever tool finds it; a broken tool keeps that part."""
    ledger = "docs/reports/grug-archive.md"
    summary = "docs/reports/runs/wider/first.json"
    doubtful = LEDGER.replace("- origin: seed", "- origin: sed")
    cases = (
        (ledger, LEDGER.replace("status: active", "status: actve", 1), f"{ledger}:7: unknown"),
        (ledger, doubtful, f"{ledger}:15: unknown origin 'sed'; did you mean 'seed'?"),
        (ledger, LEDGER + "- nonsense\n", f"{ledger}:"),
        (summary, "{}", f"{summary}:1: "),
        (summary, '{"schema_version": 99}', f"{summary}:"),
        ("docs/index.md", "# Home\n\n[x](nowhere.md)\n", "index.html:"),
    )
    for path, text, message in cases:
        before = Path(runner.build_root, path)
        kept = before.read_text() if before.exists() else None
        runner.write_files({path: text})
        with pytest.raises(ExecutionError) as caught:
            runner.run_goal_rule(
                Package, global_args=OPTIONS, args=["docs:site"], env_inherit=INHERITED
            )
        before.unlink()
        if kept is not None:
            runner.write_files({path: kept})
        said = str(caught.value)
        assert said.startswith(message) and "Engine" not in said and "Traceback" not in said, said


def test_a_tool_that_breaks_is_no_refusal(runner: RuleRunner) -> None:
    request = OwnTool("site.splice", ("--no-such-flag",), description="break")
    with pytest.raises(Exception, match="ended with code 2"):
        runner.request(ToolResult, [request])
