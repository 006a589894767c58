"""No setting of pip, uv or Python but those of mirrors reaches what run.py installs and starts."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.tools.bundle.conftest import PYTHON, STAND_IN, VERSION, starts
from tests.tools.bundle.machine import DEAD, PIP_SETTINGS, UV_FILES, UV_SETTINGS
from tools.bundle import run as worker


@pytest.mark.parametrize("name", PIP_SETTINGS)
def test_pips_variables(machine, thin, index, name):
    variable = "PIP_" + name.upper().replace("-", "_")
    env = {variable: PIP_SETTINGS[name].format(root=machine.root)}
    done = starts(machine, thin, PIP_INDEX_URL=index.as_uri(), **env)
    assert "installing with pip..." in done.stderr


@pytest.mark.parametrize(
    "level, name", [("site", name) for name in PIP_SETTINGS] + [("user", "constraint")]
)
def test_pips_files(machine, thin, index, level, name):
    value = PIP_SETTINGS[name].format(root=machine.root)
    machine.configure("pip", f"[global]\n{name} = {value}\nindex-url = {index.as_uri()}\n", level)
    starts(machine, thin)


@pytest.mark.parametrize("name", ["dry-run", "require-virtualenv", "root"])
def test_pips_variables_where_it_fetches_uv(machine, make, uv, name):
    directory, lock = uv(STAND_IN)
    variable = "PIP_" + name.upper().replace("-", "_")
    env = {variable: PIP_SETTINGS[name].format(root=machine.root)}
    starts(machine, make(directory, tools=lock), **env)


def test_uvs_variables(machine, thin, index, stand_in):
    """All at once: the stand-in names those that it is told of. One by one: tests/slow/bundle."""
    env = {f"UV_{name}": text.format(root=machine.root) for name, text in UV_SETTINGS.items()}
    starts(machine, thin, GRUG_UV=stand_in, UV_DEFAULT_INDEX=index.as_uri(), **env)


@pytest.mark.parametrize("name", ["no toml", "prefix", "unknown"])
def test_uvs_files(machine, thin, index, stand_in, name):
    machine.configure("uv", UV_FILES[name].format(root=machine.root))
    done = starts(machine, thin, GRUG_UV=stand_in, UV_DEFAULT_INDEX=index.as_uri())
    assert ("uv.toml are left out" in done.stderr) == (name == "no toml")


@pytest.mark.parametrize("values", ["index-url = 3\n", "pip = 3\n", 'find-links = "x"\n'])
def test_values_of_the_wrong_kind_stop_nothing(machine, thin, index, values):
    machine.configure("uv", values)
    machine.configure("pip", "[global\n", "site")
    done = starts(machine, thin, PIP_INDEX_URL=index.as_uri())
    assert "pip's settings in" in done.stderr


def test_a_broken_file_that_is_named(machine, thin, index, stand_in):
    broken = machine.root / "broken"
    broken.write_text("[\n")
    env = {"UV_CONFIG_FILE": str(broken), "PIP_CONFIG_FILE": str(broken)}
    env["PIP_INDEX_URL"] = index.as_uri()
    done = starts(machine, thin, GRUG_UV=stand_in, **env)
    assert done.stderr.count(f"settings in {broken} are left out: ") == 2


FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONWARNINGS")


@pytest.mark.parametrize("name", FOREIGN)
def test_pythons_variables(machine, thin, index, installer, tmp_path, name):
    """A directory of other packages: as PYTHONHOME it has run.py's own Python fail, without -E."""
    for module in ("jax", "pip", "platform", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text(f"raise SystemExit('a foreign {module}')\n")
    env = {name: "error" if name == "PYTHONWARNINGS" else str(tmp_path)}
    command = [PYTHON, *(["-E"] if name != "PYTHONWARNINGS" else []), *thin.command()[1:]]
    done = machine.run(command, PIP_INDEX_URL=index.as_uri(), **env, **installer)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jax"].startswith(str(machine.venvs))
    assert "not with uv" not in done.stderr
    assert ("PYTHONPATH is not handed on" in done.stderr) == (name == "PYTHONPATH")


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


LISTING = [PYTHON, "-I", "-m", "pip", "config", "list"]


def test_files_are_weighed_as_pip_weighs_them(machine, monkeypatch):
    """Each setting is said at another set of levels; pip itself tells which holds."""
    texts = {"site": "", "legacy": "", "user": ""}
    for number in range(1, 8):
        for bit, level in enumerate(texts):
            if number >> bit & 1:
                texts[level] += f"Name_{number} = {level}\n"
    for level, text in texts.items():
        machine.configure("pip", f"[global]\n{text}[install]\nsome-list =\n  a\n  b\n", level)
    (machine.root / "named").write_text("[global]\nname-1 = named\n--name-9 = named\n")
    for named in (
        {},
        {"PIP_CONFIG_FILE": str(machine.root / "named")},
        {"PIP_CONFIG_FILE": "none"},
    ):
        said = machine.run(LISTING, PIP_NAME_2="variable", PIP_NAME_3="", **named).stdout
        expected = {}
        for line in sorted(said.splitlines(), key=lambda line: line.startswith(":env:")):
            key, _, value = line.partition("=")
            if value != "''":
                expected[key.rpartition(".")[2]] = value
        with monkeypatch.context() as here:
            for name in list(worker.os.environ):
                here.delenv(name)
            env = machine.environment(PIP_NAME_2="variable", PIP_NAME_3="", **named)
            for name, value in env.items():
                here.setenv(name, value)
            here.setattr(worker.sys, "prefix", worker.sys.base_prefix)
            values = worker._pip_values()
        assert {name: repr(value) for name, value in values.items()} == expected
        assert len(expected) > 7


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
    minor, machine = "{}.{}".format(*worker.sys.version_info), worker.platform.machine()
    here = f'python_version == "{minor}" and platform_machine == "{machine}"'
    path = tmp_path / "requirements.txt"
    path.write_text(REQUIREMENTS.replace("{here}", here))
    assert worker.pinned(str(path)) == {"everywhere": VERSION, "here-too": "3"}
