"""No setting of pip, uv or Python but those of mirrors reaches what run.py installs and starts."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.bundle.conftest import PYTHON, STAND_IN, VERSION, starts
from tests.tools.bundle.machine import DEAD, PIP_SETTINGS, UV_FILES, UV_SETTINGS
from tools.bundle.worker.installed import pinned


def pips(machine, *names: str) -> dict[str, str]:
    """pip's settings by name: all that change what is installed, or these."""
    return {name: PIP_SETTINGS[name].format(root=machine.root) for name in names or PIP_SETTINGS}


def variables(settings: dict[str, str]) -> dict[str, str]:
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}


# All at once: each alone would end an installation or lead it elsewhere.
def test_pips_variables(machine, thin, index):
    done = starts(machine, thin, PIP_INDEX_URL=index.as_uri(), **variables(pips(machine)))
    assert "installing with pip..." in done.stderr


@pytest.mark.parametrize("level", ["site", "user"])
def test_pips_files(machine, thin, index, level):
    lines = "".join(f"{name} = {value}\n" for name, value in pips(machine).items())
    machine.configure("pip", f"[global]\n{lines}index-url = {index.as_uri()}\n", level)
    starts(machine, thin)


def test_pips_variables_where_it_fetches_uv(machine, make, uv):
    directory, lock = uv(STAND_IN)
    starts(machine, make(directory, tools=lock), **variables(pips(machine)))


def test_uvs_variables(machine, thin, index, stand_in):
    """All at once: the stand-in names those that it is told of. One by one: tests/slow/bundle."""
    env = {f"UV_{name}": text.format(root=machine.root) for name, text in UV_SETTINGS.items()}
    starts(machine, thin, GRUG_UV=stand_in, UV_DEFAULT_INDEX=index.as_uri(), **env)


@pytest.mark.parametrize("name", ["no toml", "prefix"])
def test_uvs_files(machine, thin, index, stand_in, name):
    more = UV_FILES["unknown"] if name == "prefix" else ""
    machine.configure("uv", more + UV_FILES[name].format(root=machine.root))
    machine.configure("pip", "[global\n" if name == "no toml" else "", "site")
    done = starts(machine, thin, GRUG_UV=stand_in, UV_DEFAULT_INDEX=index.as_uri())
    assert done.stderr.count("are left out: ") == (2 if name == "no toml" else 0)


FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE")


@pytest.mark.parametrize("names", [FOREIGN, ("PYTHONWARNINGS",)], ids=["places", "warnings"])
def test_pythons_variables(machine, thin, index, installer, tmp_path, names):
    """A directory of other packages: as PYTHONHOME it has run.py's own Python fail, without -E."""
    for module in ("jax", "pip", "platform", "sitecustomize", "tools"):
        (tmp_path / f"{module}.py").write_text(f"raise SystemExit('a foreign {module}')\n")
    env = {name: "error" if name == "PYTHONWARNINGS" else str(tmp_path) for name in names}
    command = [PYTHON, *(["-E"] if names == FOREIGN else []), *thin.command()[1:]]
    done = machine.run(command, PIP_INDEX_URL=index.as_uri(), **env, **installer)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jax"].startswith(str(machine.venvs))
    assert "not with uv" not in done.stderr
    assert ("PYTHONPATH is not handed on" in done.stderr) == (names == FOREIGN)


def test_the_users_site_and_the_working_directory(machine, thin, index, installer):
    minor = Path(PYTHON).name
    site = machine.root / f"home/.local/lib/{minor}/site-packages"
    site.mkdir(parents=True)
    for place in (site, machine.root):
        for module in ("jax", "jaxlib", "pip", "usercustomize"):
            (place / f"{module}.py").write_text("raise SystemExit('foreign')\n")
    (machine.root / "pyproject.toml").write_text("[\n")
    (site / "usercustomize.py").write_text("import sys; sys.foreign = True\n")
    command = [PYTHON, "-s", *thin.command()[1:]]
    done = machine.run(command, PIP_INDEX_URL=index.as_uri(), **installer)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jax"].startswith(str(machine.venvs))
    assert "not with uv" not in done.stderr


PROBE = """
import json, subprocess, sys
child = "import json, sys; print(json.dumps([sys.path, sys.flags.no_user_site]))"
told = subprocess.run([sys.executable, "-P", "-c", child], capture_output=True, check=True).stdout
print(json.dumps({"path": sys.path, "safe": sys.flags.safe_path, "child": json.loads(told)}))
"""


def test_what_the_program_and_its_children_import_from(machine, make, tmp_path):
    bundle = make(sources={"experiments/small/launch.py": PROBE.encode()})
    (tmp_path / "other").mkdir()
    done = machine.run(bundle.command(), PYTHONPATH=str(tmp_path / "other"))
    told = json.loads(done.stdout)
    app, *library, site = told["path"]
    assert Path(app).parent == machine.venvs and app == told["child"][0][0]
    assert Path(site).is_relative_to(machine.venvs)
    assert not [path for path in library if str(tmp_path) in path]
    assert told["safe"] and told["child"][1]


def test_a_python_of_its_own_has_its_own_pip_conf(machine, thin, index, tmp_path):
    """The level that pip calls site: of one virtual environment, which here has no pip itself."""
    own = tmp_path / "own"
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", own], check=True)
    (own / "pip.conf").write_text(f"[global]\nindex-url = {index.as_uri()}\n")
    machine.configure("pip", f"[global]\nindex-url = {DEAD}\n")
    done = machine.run([str(own / "bin/python"), *thin.command()[1:]])
    assert done.returncode == 0, done.stderr


REQUIREMENTS = f"""\
everywhere=={VERSION} \\
    --hash=sha256:00
Other_Name==2 ; python_version == "3.98" and platform_machine == "x86_64" \\
    --hash=sha256:00 \\
    --hash=sha256:01
Here.too==3 ; python_version == "3.98" and platform_machine == "vax" or {{here}} \\
    --hash=sha256:00
"""


def test_what_is_locked_for_this_machine(tmp_path):
    minor, machine = "{}.{}".format(*sys.version_info), platform.machine()
    here = f'python_version == "{minor}" and platform_machine == "{machine}"'
    path = tmp_path / "requirements.txt"
    path.write_text(REQUIREMENTS.replace("{here}", here))
    assert pinned(str(path)) == {"everywhere": VERSION, "here-too": "3"}
