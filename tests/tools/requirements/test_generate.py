"""How ./pants is run for locks: what is copied, what is said of a failure, what a kill leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools.requirements.conftest import Lab
from tools.common.errors import ToolError
from tools.requirements.generate import explain, generate
from tools.requirements.workspace import resolves

ROOT = Path(__file__).parents[3]
# As ./pants prints them; what differs from run to run is left out.
HEAD = """\
13:34:55.82 [ERROR] 1 Exception encountered:

Engine traceback:
  in `generate-lockfiles` goal

ProcessExecutionFailure: Process 'Generate lockfile for gpu' failed with exit code 1.
stdout:

stderr:
pid 22972 -> python pex --disable-pip-version-check
"""
FOOT = "\n\n\nUse `--keep-sandboxes=on_failure` to preserve the process chroot for inspection.\n"
UNKNOWN = """\
pip: ERROR: Could not find a version that satisfies the requirement nope (from versions: none)
pip: ERROR: No matching distribution found for nope
"""
RETRY = """\
pip: WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(\
'<HTTPConnection>: Failed to establish a new connection: [Errno 111] Connection refused')': /rich/
"""
NEWEST = """\
pip: ERROR: Could not find a version that satisfies the requirement rich==999 (from versions: \
0.1.0, 0.2.0, 13.0, 14.0)
pip: ERROR: No matching distribution found for rich==999
"""
OTHER_PYTHON = """\
pip: ERROR: Ignored the following versions that require a different python version: 1.0 \
Requires-Python >=3.20
pip: ERROR: Could not find a version that satisfies the requirement beta (from alpha) (from \
versions: none)
pip: ERROR: No matching distribution found for beta
"""
CONFLICT = """\
pip: ERROR: Cannot install ipython==5.0.0 and prompt_toolkit>=3 because these package versions \
have conflicting dependencies.
pip:  
pip:  The conflict is caused by:
pip:      The user requested prompt_toolkit>=3
pip:      ipython 5.0.0 depends on prompt-toolkit<2.0.0 and >=1.0.3
pip:  
pip:  To fix this you could try to:
pip:  1. loosen the range of package versions you've specified
"""  # noqa: W291
INVALID = "ValueError: Invalid requirement 'not one' in tools/locks/gpu.in at line 1: Parse error\n"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (UNKNOWN, "gpu: no package index has nope: correct its name"),
        (RETRY + UNKNOWN, "gpu: the package index does not answer: a lock is made from PyPI"),
        (NEWEST, "gpu: no version fits rich==999: the index has 0.2.0, 13.0, 14.0 and 1 older"),
        (RETRY + NEWEST, "gpu: no version fits rich==999"),
        (OTHER_PYTHON, "gpu: no release of beta (from alpha) is for the Pythons of pants.toml"),
        (CONFLICT, "gpu: these do not go together: The user requested prompt_toolkit>=3; "
         "ipython 5.0.0 depends on prompt-toolkit<2.0.0 and >=1.0.3"),
        (INVALID, "Invalid requirement 'not one' in tools/locks/gpu.in at line 1: Parse error"),
    ],
)  # fmt: skip
def test_a_known_failure_is_one_line(said, reason):
    found = explain(HEAD + said + FOOT)
    assert found and found.startswith(reason) and "\n" not in found


def test_an_unknown_failure_is_not_explained():
    assert explain(f"{HEAD}pip: error: cannot build wheel{FOOT}") is None


def pants(lab: Lab, script: str) -> None:
    """Another program in the place of ./pants."""
    lab.write("pants", f"#!{sys.executable}\nimport os, pathlib, sys, time\n{script}").chmod(0o755)


def test_what_pants_finds(lab, monkeypatch):
    """What shapes a lock is copied, edited or not; what was for this process alone is not told."""
    pants(
        lab,
        "pathlib.Path('tools/locks/cpu.lock').write_text('\\n'.join([\n"
        "    ' '.join(sys.argv[1:]), str(sorted(n for n in os.environ if n.startswith('PEX_'))),\n"
        "    os.environ['PANTS_CONCURRENT'],\n"
        "    *(p.as_posix() for p in sorted(pathlib.Path().rglob('*')) if p.is_file())]))",
    )
    lab.write("tools/new/BUILD", "")
    lab.write("data/huge.bin", "x")
    lab.write("data/BUILD", "")
    (lab.root / "link").symlink_to("tools")
    lab.git("add", "link")
    lab.git("rm", "-q", "tools/locks/docs.in")
    (lab.root / "submodule").mkdir()
    lab.git("-C", "submodule", "init", "-q")
    name = ("-c", "user.name=n", "-c", "user.email=e@localhost")
    lab.git("-C", "submodule", *name, "commit", "-q", "--allow-empty", "-m", "a state")
    lab.git("add", "submodule")
    monkeypatch.setenv("PEX_EXTRA_SYS_PATH", "/x")
    before = lab.state()
    edits = {"tools/locks/cpu.in": b"edited\n", "more/x.in": b"\n"}
    made = generate(lab.repo, [resolves(lab.root)["cpu"]], edits)
    command, pex, concurrent, *files = made["tools/locks/cpu.lock"].decode().splitlines()
    assert command.endswith("generate-lockfiles --resolve=cpu")
    assert (pex, concurrent) == ("[]", "True")
    assert {"data/BUILD", "more/x.in", "pants.toml", "tools/new/BUILD"} <= set(files)
    assert not {"data/huge.bin", "tools/locks/docs.in"} & set(files)
    assert lab.state() == before


def test_an_unknown_failure_shows_what_pants_said(lab, capfd):
    pants(lab, "print('13:34:55.82 [INFO] at work')\nsys.exit('a bad day')")
    with pytest.raises(ToolError, match="ended with 1: its own words are above"):
        generate(lab.repo, [resolves(lab.root)["cpu"]], {})
    assert "a bad day" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_kill_changes_nothing_and_leaves_nothing(lab, tmp_path, number):
    started, temporary = tmp_path / "started", tmp_path / "tmp"
    temporary.mkdir()
    pants(lab, f"pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(60)")
    before = lab.state()
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.requirements", "update", "cpu", "--root", str(lab.root)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
    )
    while not (started.exists() and started.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number and b"Traceback" not in said
    assert not list(temporary.iterdir()) and lab.state() == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
