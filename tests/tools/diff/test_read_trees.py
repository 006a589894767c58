"""Where trees come from, and the command line around it."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.common.errors import ToolError
from tools.diff import __main__ as cli
from tools.diff import closest, read_trees, sizes
from tools.diff.buckets import BUCKETS, parse

FILES = {"model.py": "a = 1\n", "sub/data.py": "b = 2\n", "odd\nname.txt": "c\n"}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository whose second commit deletes experiments/grug/gone."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    git("init", "-q")
    for path, text in FILES.items():
        write(tmp_path / "experiments/grug/gone" / path, text)
    write(tmp_path / "experiments/grug/base/model.py", "a = 1\n")
    (tmp_path / "experiments/grug/gone/link").symlink_to("model.py")
    (tmp_path / "experiments/grug/gone/sub/data.py").chmod(0o755)
    git("add", "-A")
    commit("one")
    git("rm", "-q", "-r", "experiments/grug/gone")
    commit("two")
    return tmp_path


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def commit(message):
    git("-c", "user.name=n", "-c", "user.email=e@example", "commit", "-q", "-m", message)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_deleted_directory_is_read_from_a_commit(repository):
    source = read_trees.read("HEAD~1:experiments/grug/gone/")
    assert source.name == "experiments/grug/gone"
    assert {path: file.content.decode() for path, file in source.tree.items()} == {
        **FILES,
        "link": "model.py",
    }
    assert source.tree["link"].mode == "link" and source.tree["sub/data.py"].mode == "executable"


def test_git_and_directory_agree(repository):
    git("checkout", "-q", "HEAD~1")
    write(repository / "experiments/grug/gone/__pycache__/model.cpython-313.pyc", "x")
    assert read_trees.read("experiments/grug/gone") == read_trees.read("HEAD:experiments/grug/gone")


def test_all_that_a_commit_has_is_read(repository):
    places = ("__pycache__/model.cpython-313.pyc", "sub/__init__.pyc", ".hypothesis/a")
    for path in places:
        write(repository / "experiments/grug/base" / path, "x")
    git("add", "-A", "-f")
    commit("three")
    tree = read_trees.read("HEAD:experiments/grug/base").tree
    assert set(tree) == {"model.py", *places}


def test_a_git_directory_elsewhere(repository, monkeypatch):
    monkeypatch.chdir("/")
    source = read_trees.read("HEAD~1:experiments/grug/gone", str(repository / ".git"))
    assert source.tree["model.py"].content == b"a = 1\n"


def test_a_single_file(repository):
    assert list(read_trees.read("HEAD~1:experiments/grug/gone/model.py").tree) == ["model.py"]
    assert list(read_trees.read("experiments/grug/base/model.py").tree) == ["model.py"]


@pytest.mark.parametrize(
    "given, message",
    [
        ("nowhere", "no such file or directory; for one that was deleted write COMMIT:nowhere"),
        ("v9:experiments", "git knows no commit 'v9'"),
        ("HEAD:experiments/grug/gone", "the commit has no such path; `git log --all --"),
        ("--upload-pack=x:y", "is no commit"),
        (":x", "is no commit"),
    ],
)
def test_what_is_missing_is_one_line_with_a_remedy(repository, given, message, capsys):
    with pytest.raises(ToolError, match="^[^\n]+$") as error:
        read_trees.read(given)
    assert message in str(error.value)
    assert cli.main(["--", given, "experiments/grug/base"]) == 1
    assert message in capsys.readouterr().err


def test_no_absolute_path_is_shown(repository, tmp_path):
    old, new = tmp_path / "experiments/grug/base", tmp_path / "out"
    write(new / "model.py", "a = 2\n")
    for form in ("html", "json", "markdown"):
        assert cli.main([str(old), str(new), "--format", form, "--out", "report"]) == 0
        text = Path("report").read_text()
        assert "experiments/grug/base" in text and str(tmp_path) not in text


def test_the_command_line_writes_what_it_is_told(repository):
    write(repository / "sizes.json", '{"old": {"parameters": 5}, "new": {"error": "why"}}')
    command = ["HEAD~1:experiments/grug/gone", "experiments/grug/base", "--format", "json"]
    command += ["--old-label", "A", "--new-label", "B", "--old-commit", "c0", "--new-commit", "c1"]
    assert cli.main([*command, "--found", "--sizes", "sizes.json", "--out", "r.json"]) == 0
    report = json.loads(Path("r.json").read_text())
    assert report["old"] == {"label": "A", "commit": "c0"}
    assert report["new"] == {"label": "B", "commit": "c1"}
    assert report["origin_found"] is True
    assert report["sizes"]["old"]["parameters"] == 5 and report["sizes"]["new"]["error"] == "why"


@pytest.mark.parametrize(
    "option, content, message",
    [
        ("--sizes", "[]", "holds no sizes"),
        ("--sizes", '{"old": {"parameters": "5"}, "new": {}}', "holds no sizes"),
        ("--sizes", None, "No such file"),
        ("--buckets", "{", "is no JSON"),
        ("--buckets", '{"schema_version": 2}', "schema_version must be 1"),
        ("--buckets", '{"schema_version": 1, "files": {"a": {"default": "x"}}}', "unknown bucket"),
        ("--buckets", '{"schema_version": 1, "files": {"a": []}}', "write {"),
    ],
)
def test_bad_inputs_are_one_line(repository, option, content, message, capsys):
    if content is not None:
        write(repository / "in.json", content)
    base = "experiments/grug/base"
    assert cli.main([base, base, option, "in.json"]) == 1
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_an_output_that_cannot_be_written_is_one_line(repository, capsys):
    base = "experiments/grug/base"
    assert cli.main([base, base, "--out", "nowhere/x.html"]) == 1
    assert "choose another --out" in capsys.readouterr().err


def test_closest(repository, capsys):
    for name, text in (("near", "a = 1\nb = 2\n"), ("far", "x\ny\nz\n")):
        write(repository / f"experiments/grug/{name}/model.py", text)
    write(repository / "experiments/grug/new/model.py", "a = 1\nb = 3\n")
    command = ["experiments/grug/new", "experiments/grug/far", "experiments/grug/near"]
    assert closest.main([*command, "HEAD~1:experiments/grug/gone"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["closest"] == "experiments/grug/near"
    assert answer["candidates"][0] == {"name": "experiments/grug/near", "added": 1, "deleted": 1}
    assert closest.main(["nowhere", "experiments/grug/far"]) == 1


# -- sizes ------------------------------------------------------------------------------------

PLAN = '{"parameters": 3413760, "active_parameters": 1000, "flops_per_token": 1.52e7, "mesh": {}}'


def test_a_plan_is_read():
    size = sizes.read_plan(PLAN, "tiny")
    assert (size.parameters, size.active_parameters) == (3413760, 1000)
    assert size.flops_per_token == 1.52e7 and not size.error
    assert sizes.read_plan(PLAN.replace("1000", "3413760"), "").active_parameters is None
    for text in ("nothing", "{}", "[]", '{"parameters": 1, "active_parameters": 1}'):
        assert "is not the JSON of one" in sizes.read_plan(text, "tiny").error


@pytest.mark.parametrize(
    "source, message",
    [
        (f"import sys\nassert sys.argv[-2:] == ['--plan', '--json']\nprint({PLAN!r})", None),
        ("import tools.diff", "ModuleNotFoundError"),
        ("raise ValueError('no\\ngood')", "good"),
        ("import time; time.sleep(60)", "took more than 5 s"),
        (None, "has no launch.py"),
    ],
    ids=["fine", "other trees are out of reach", "fails", "hangs", "no launch"],
)
def test_a_plan_is_run_in_its_own_tree(tmp_path, monkeypatch, capsys, source, message):
    directory = tmp_path / "experiments/grug/some"
    directory.mkdir(parents=True)
    if source:
        write(directory / "launch.py", source)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    code = sizes.main([str(directory), "--timeout", "5"])
    answer = json.loads(capsys.readouterr().out)
    if message:
        assert code == 1 and message in answer["error"] and "\n" not in answer["error"]
    else:
        assert code == 0 and answer["parameters"] == 3413760 and "error" not in answer


JAX = """\
class config:
    values = {"x64": False}
    update = staticmethod(values.__setitem__)
"""
PRINTS = """\
import os, sys
import jax, textwrap
def main(argv):
    assert argv == ["--preset", "tiny", "--plan", "--json"]
    {does}
    print('{{"parameters": %d, "active_parameters": 1, "flops_per_token": 1}}' % ({number}))
    return 0
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
HARMS = {
    "fails": "raise ValueError('no good')",
    "ends": "os._exit(3)",
    "hangs": "import time; time.sleep(60)",
    "exits": "sys.exit('no more')",
    "speaks": "os.write(1, b'hello')",
    "patches": "textwrap.dedent = lambda text: 'x' * 100",
    "sets": "os.environ['HARM'] = '1'; sys.path.insert(0, '/nowhere')",
    "shadows": "m = sys.modules['experiments.grug.z_last.model'] = type(os)('m'); m.NUMBER = 1",
    "configures": "jax.config.update('x64', True)",
    "lingers": "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start()",
}


@pytest.mark.parametrize("harm", HARMS)
def test_plans_that_run_together_do_not_meet(tmp_path, monkeypatch, harm):
    """Each has the answer of a process of its own, whatever the one before it does."""
    clean = "7 + len(textwrap.dedent('a')) + ('HARM' in os.environ) + ('/nowhere' in sys.path)"
    clean += " + jax.config.values['x64']"
    write(tmp_path / "jax.py", JAX)
    model = "from .model import NUMBER\n" + PRINTS.format(does="pass", number=f"NUMBER + {clean}")
    sources = {
        "a_first": PRINTS.format(does="pass", number=clean),
        "harm": PRINTS.format(does=HARMS[harm], number="5"),
        "y_next": PRINTS.format(does="pass", number=clean),
        "z_last": model,
    }
    for name, source in sources.items():
        write(tmp_path / f"experiments/grug/{name}/launch.py", source)
    write(tmp_path / "experiments/grug/z_last/model.py", "NUMBER = 100\n")
    (tmp_path / "experiments/grug/empty").mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    is_slow = harm in ("hangs", "lingers")  # what waits must not take long; the rest may be busy
    monkeypatch.setattr(sizes, "PATIENCE", 3.0 if is_slow else 60.0)
    directories = [tmp_path / f"experiments/grug/{name}" for name in (*sources, "empty")]
    first, harmed, following, last, empty = sizes.measure_together(
        directories, "tiny", 8.0 if is_slow else 60.0
    )
    assert (first.parameters, following.parameters, last.parameters) == (8, 8, 108)
    assert "has no launch.py" in empty.error
    said = {"fails": "no good", "ends": "exit code 3", "hangs": "more than 8 s", "exits": "no more"}
    if harm in said:
        assert said[harm] in harmed.error
    elif harm not in ("speaks", "lingers"):
        assert harmed.parameters == 5


def test_a_worker_may_have_ended_before_it_is_asked(tmp_path, monkeypatch):
    write(tmp_path / "jax.py", JAX)
    for name, does in {"a": HARMS["patches"], "b": "pass", "c": "pass"}.items():
        # It is the first that imports textwrap.
        number = "5" if name == "a" else "4 + len(textwrap.dedent('a'))"
        source = PRINTS.format(does=does, number=number)
        write(tmp_path / f"experiments/grug/{name}/launch.py", source)
    ask = sizes._ask

    def ask_late(worker, module, patience):
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(timeout=1)
        return ask(worker, module, patience)

    monkeypatch.setattr(sizes, "_ask", ask_late)
    all_sizes = sizes.measure_together([tmp_path / f"experiments/grug/{name}" for name in "abc"])
    assert [size.parameters for size in all_sizes] == [5, 5, 5]


def test_plans_of_one_tree_share_a_process(tmp_path, capsys):
    number = "os.getpid()"
    write(tmp_path / "jax.py", JAX)
    for name in "abc":
        source = PRINTS.format(does="pass", number=number)
        write(tmp_path / f"experiments/grug/{name}/launch.py", source)
    directories = [str(tmp_path / f"experiments/grug/{name}") for name in "abc"]
    assert sizes.main(["--together", *directories]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert len({answer["parameters"] for answer in answers.values()}) == 1
    assert list(answers) == directories
    with pytest.raises(SystemExit):
        sizes.main(directories)
    assert "give --together" in capsys.readouterr().err


# -- the declared map -------------------------------------------------------------------------


def test_only_known_buckets_are_declared():
    text = '{"schema_version": 1, "files": {"a": {"default": "loss kernel", "names": {}}}}'
    assert parse(text, "x")["a"].default in BUCKETS
