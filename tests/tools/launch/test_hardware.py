"""The environment of another resolve, made of real wheels of one file each."""

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.launch.hardware import check_imports, python_for, requirements

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A workspace whose tpu lock holds two packages, one of them for another system."""
    wheels, locks = tmp_path / "wheels", tmp_path / "root/tools/locks"
    wheels.mkdir()
    locks.mkdir(parents=True)
    wheel = wheels / "libtpu-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("libtpu.py", "HERE = True\n")
        archive.writestr("libtpu-1.0.dist-info/METADATA", "Name: libtpu\nVersion: 1.0\n")
        archive.writestr("libtpu-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("libtpu-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    url = f"https://files.example.org/{wheel.name}"
    entry = {
        "project_name": "libtpu",
        "version": "1.0",
        "requires_dists": ["elsewhere; sys_platform == 'win32'"],
        "artifacts": [{"algorithm": "sha256", "hash": digest, "url": url}],
    }
    lock = {"locked_resolves": [{"locked_requirements": [entry]}], "requirements": ["libtpu"]}
    (locks / "tpu.lock").write_text(f"// a header of Pants\n{json.dumps(lock)}")
    monkeypatch.setenv("GRUG_VENVS", str(tmp_path / "venvs"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    # A worker's Python: that of the tests may be an environment without pip.
    base = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    monkeypatch.setattr(sys, "executable", str(base))
    return tmp_path / "root"


def test_makes_an_environment_of_the_lock_once(root, capfd):
    python = python_for("v5e:4x4", root)
    subprocess.run([python, "-c", "import libtpu; assert libtpu.HERE"], check=True)
    told = capfd.readouterr().err
    assert told.startswith("launch: v5e:4x4 needs the compiler of tools/locks/tpu.lock")
    assert python_for("2xv6e:4x4", root) == python
    assert not capfd.readouterr().err


def test_another_lock_is_another_environment(root):
    python = python_for("v5e:4x4", root)
    lock = root / "tools/locks/tpu.lock"
    lock.write_text(lock.read_text().replace("// a header", "// another header"))
    assert python_for("v5e:4x4", root) == python
    lock.write_text(lock.read_text().replace('"hash": "', '"hash": "00'))
    with pytest.raises(ToolError, match="could not be installed"):
        python_for("v5e:4x4", root)
    assert len(list((root.parent / "venvs").glob("plan-tpu-*/bin"))) == 1


def test_an_import_that_the_environment_lacks_is_one_line(tmp_path):
    python = Path(sys.executable)
    (tmp_path / "grug/v").mkdir(parents=True)
    for name, text in {
        "model.py": "import json\nimport packaging.version\n",
        "runlog.py": "def log():\n    import an_optional_service\n",
        "test_model.py": "import only_tests_need_it\n",
        "train.py": "from experiments.grug.v import model\nfrom not_there.deep import x\n",
    }.items():
        (tmp_path / "grug" / "v" / name).write_text(text)
    with pytest.raises(ToolError) as caught:
        check_imports(python, tmp_path, "grug/v", "v5e:4x4")
    assert str(caught.value) == (
        "grug/v/train.py:2: from not_there.deep import x: v5e:4x4 needs it in tools/locks/tpu.in "
        "too: ./pants run locks -- add not_there"
    )
    (tmp_path / "grug/v/train.py").unlink()
    check_imports(python, tmp_path, "grug/v", "8xh100")
    (tmp_path / "grug/v/plumbing").mkdir()
    (tmp_path / "grug/v/plumbing/data.py").write_text("from .. import model\nimport not_there\n")
    with pytest.raises(ToolError, match=r"^grug/v/plumbing/data\.py:2: import not_there: "):
        check_imports(python, tmp_path, "grug/v", "8xh100")


def test_a_home_that_cannot_be_is_one_line(root, monkeypatch):
    monkeypatch.setenv("GRUG_VENVS", str(root / "tools/locks/tpu.lock"))
    with pytest.raises(ToolError, match=r"tpu\.lock: File exists: name a directory"):
        python_for("v5e:4x4", root)


def test_a_lock_that_is_not_there_is_one_line(root):
    with pytest.raises(ToolError, match=r"gpu\.lock cannot be read"):
        python_for("8xh100", root)


@pytest.mark.parametrize("accelerator, package", [("tpu", "libtpu"), ("gpu", "jax-cuda13-plugin")])
def test_the_locks_hold_the_compilers(accelerator, package):
    text = requirements(ROOT / f"tools/locks/{accelerator}.lock")
    assert f"\n{package}==" in text and "\njax==" in text and "--hash=sha256:" in text
