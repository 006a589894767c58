"""Lists of requirements: one line comes or goes, everything else stays."""

import pytest
from packaging.requirements import Requirement

from tools.common.errors import ToolError
from tools.requirements import listing

CPU = """\
# Why it is pinned:
# for two reasons.
jax==0.10.2

equinox
# The data.
grain
tensorboardX
tyro  # flags
"""


def added(text: str, requirement: str) -> str:
    return listing.with_requirement(listing.parse(text, "x.in"), Requirement(requirement))


@pytest.mark.parametrize(
    ("requirement", "above"),
    [
        ("Chex", "equinox\n"),
        ("flax>=0.12", "# The data.\n"),
        ("jaxtyping", "tensorboardX\n"),
        ("tensorstore", "tyro  # flags\n"),
        ("zstandard", None),
        ("ray[default]==2.60", "tensorboardX\n"),
    ],
)
def test_a_requirement_comes_in_its_place(requirement, above):
    text = added(CPU, requirement)
    lines = text.splitlines(keepends=True)
    lines.remove(f"{requirement}\n")
    assert "".join(lines) == CPU
    after = text.partition(f"{requirement}\n")[2]
    assert after.startswith(above) if above else after == ""


def test_a_comment_at_the_top_stays_there():
    assert added("# All\n# of it.\nmkdocs\n", "alpha") == "# All\n# of it.\nalpha\nmkdocs\n"
    assert added("# Nothing yet.\n", "alpha") == "# Nothing yet.\nalpha\n"
    assert added("", "alpha") == "alpha\n"
    assert added("jax\n\n# Of tests.\npytest\n", "alpha") == "jax\n\n# Of tests.\nalpha\npytest\n"


def test_line_ends_stay():
    assert added("a\r\nc\r\n", "b") == "a\r\nb\r\nc\r\n"
    assert added("a\nc", "d") == "a\nc\nd\n"


def test_a_requirement_goes_by_any_spelling_of_its_name():
    lines = listing.parse(CPU, "x.in")
    assert listing.without_requirement(lines, "TensorBoardX") == CPU.replace("tensorboardX\n", "")
    found = listing.find(lines, "JAX")
    assert found and str(found.requirement) == "jax==0.10.2"
    assert listing.find(lines, "jax-typing") is None


def test_what_is_no_requirement_is_refused():
    with pytest.raises(ToolError, match=r"x\.in:2: is no requirement"):
        listing.parse("a\nnot one\n", "x.in")
    for text in ("", "../up", "name==", "two words", "-r x.txt"):
        with pytest.raises(ToolError, match="is no requirement .*: write NAME"):
            listing.requirement_of(text)
    with pytest.raises(ToolError, match="names a URL"):
        listing.requirement_of("a @ https://example.org/a.whl")
