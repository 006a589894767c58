"""Whatever its origin does, a copy that takes its commits in order ends with none lacking."""

import itertools
import re

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.tools.lifecycle.conftest import BASE, Workspace, fill
from tools.lifecycle.merge import has_markers

COPY = "experiments/grug/relu"
FILES = ("model.py", "data.py", "a.py", "b.py")
edits = st.lists(
    st.tuples(
        st.sampled_from(("replace", "insert", "delete", "take back", "file", "rename")),
        st.integers(0, 19),
        st.sampled_from(FILES),
        st.sampled_from(FILES),
    ),
    min_size=1,
    max_size=5,
)


def apply(workspace: Workspace, directory: str, edit, number: int, states: list[str]) -> None:
    """One edit of a directory; one that makes no sense there does nothing."""
    kind, line, name, other = edit
    file, target = (workspace.root / directory / n for n in (name, other))
    if kind == "take back":
        workspace.git("checkout", "-q", states[line % len(states)], "--", BASE)
    elif kind == "file":
        file.unlink() if file.exists() else file.write_text(f"N = {number}\n" * 9)
    elif kind == "rename":
        if file.exists() and not target.exists():
            file.rename(target)
    elif file.exists():
        lines = file.read_bytes().splitlines(keepends=True)
        at = line % (len(lines) or 1)
        new = [] if kind == "delete" else [b"V%d = 'new %d'\n" % (line, number)]
        lines[at : at + (kind != "insert")] = new
        file.write_bytes(b"".join(lines))


def suggested(capsys, workspace: Workspace) -> str | None:
    capsys.readouterr()
    assert workspace.run("drift") == 0
    out = capsys.readouterr().out
    match = re.search(r"^next: ./pants drift --drift-apply=(\w+) ", out, re.MULTILINE)
    assert bool(match) == ("lacks nothing" not in out)
    return match[1] if match else None


def port_all(capsys, workspace: Workspace, *, clean: bool) -> None:
    """Does what drift says until it says no more; with `clean` that must never conflict."""
    for _ in range(12):
        if (commit := suggested(capsys, workspace)) is None:
            return
        code = workspace.run("drift", "--apply", commit)
        if clean:
            assert code == 0
        if code:  # a person takes the copy's own lines
            workspace.git("checkout", "-q", "--", COPY)
            assert workspace.run("drift", "--synced", commit, "relu") == 0
        for file in (workspace.root / COPY).rglob("*.py"):
            assert not has_markers(file.read_bytes())
        workspace.commit("ported")
    raise AssertionError("drift goes on and on")


few = settings(
    max_examples=6,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)


@few
@example(edits=[("rename", 0, "model.py", "a.py"), ("file", 0, "a.py", "a.py")], own=None)
@example(edits=[("replace", 7, "model.py", "a.py"), ("replace", 7, "model.py", "a.py")], own=None)
@given(edits=edits, own=st.none() | st.integers(0, 19))
def test_porting_in_order_ends(tmp_path_factory, capsys, edits, own):
    workspace = fill(Workspace(tmp_path_factory.mktemp("ends")))
    assert workspace.fork() == 0
    if own is not None:
        apply(workspace, COPY, ("replace", own, "model.py", "model.py"), 99, [])
    states = [workspace.commit("fork relu")]
    for number, edit in zip(itertools.count(), edits, strict=False):
        apply(workspace, BASE, edit, number, states)
        states.append(workspace.commit(f"edit {number}"))
    port_all(capsys, workspace, clean=own is None)
    assert suggested(capsys, workspace) is None and workspace.faults() == []
    if own is None:
        ours = {
            p.name: p.read_text()
            .replace("grug.relu", "grug.base")
            .replace("grug/relu", "grug/base")
            for p in (workspace.root / COPY).glob("*.py")
        }
        theirs = {p.name: p.read_text() for p in (workspace.root / BASE).glob("*.py")}
        assert ours == theirs
