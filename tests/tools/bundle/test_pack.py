"""The bytes of a bundle: what they follow from, and what is refused."""

import ast
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tools.bundle.flags import check
from tools.bundle.lock import Lock, Target
from tools.bundle.manifest import Pythons, identity, read_manifest
from tools.bundle.pack import application, bundle, tarball, worker_files, write
from tools.bundle.topology import Topology
from tools.common.errors import ToolError

ROOT = Path(__file__).parents[3]


def test_the_manifest_names_every_file_and_itself(contents):
    files = bundle(contents)
    manifest = json.loads(files.pop("bundle.json"))
    assert set(manifest["files"]) == set(files)
    for name, data in files.items():
        assert manifest["files"][name]["sha256"] == hashlib.sha256(data).hexdigest()
    assert manifest.pop("id") == identity(manifest)
    assert manifest["git"] == {"commit": "0" * 40, "dirty": False}
    assert manifest["versions"]["jaxlib"] == "0.12.0.1"
    assert manifest["python"] == {"minimum": "3.12", "below": "3.15"}


def test_the_parts_are_the_workspaces_own(contents):
    """All of tools/bundle/worker, and what run.py imports: only these and Python's library."""
    files = worker_files()
    assert files.items() <= bundle(contents).items()
    worker = {path.relative_to(ROOT) for path in (ROOT / "tools/bundle/worker").glob("*.py")}
    assert {f"parts/{path}" for path in worker} <= set(files)
    needed = {"run.py"}
    for name, data in files.items():
        for module in imported(data):
            part = f"parts/{module.replace('.', '/')}.py"
            needed.add(part)
            own = part in files
            assert own or module.split(".")[0] in sys.stdlib_module_names, (name, module)
    assert set(files) <= needed


def imported(source: bytes) -> Iterator[str]:
    """The modules that Python source imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level
            directory = ROOT / node.module.replace(".", "/")
            if directory.is_dir():  # a package of ours, which holds nothing itself
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("name", worker_files())
def test_an_old_python_reads_the_files_far_enough_to_say_so(name):
    ast.parse(worker_files()[name], feature_version=(3, 7))


def test_an_older_bundles_manifest_is_read(contents, tmp_path):
    files = bundle(contents)
    body = json.loads(files["bundle.json"])
    body["files"] = {n: e for n, e in body["files"].items() if not n.startswith("parts/")}
    for version, known in ((1, True), (2, True), (3, False)):
        (tmp_path / "bundle.json").write_text(json.dumps({**body, "schema_version": version}))
        if known:
            assert read_manifest(tmp_path)["variant"] == "small"
            continue
        with pytest.raises(ToolError, match="another schema version than 1 or 2: pack it anew"):
            read_manifest(tmp_path)
    (tmp_path / "bundle.json").write_text("[")
    with pytest.raises(ToolError, match="name a bundle's directory"):
        read_manifest(tmp_path)


def packed_in(files, name: str) -> bytes:
    into = io.BytesIO()
    tarball(files, name, into)
    return into.getvalue()


def test_wheels_go_along_and_are_named_by_their_worker(contents, tmp_path):
    wheel, directory = tmp_path / "a.whl", tmp_path / "x-cpu"
    wheel.write_bytes(os.urandom(3000))
    files = bundle(replace(contents, wheels=Target("3.12", "x86_64")))
    manifest = json.loads(files["bundle.json"])
    assert manifest["wheels"] == {"python": "3.12", "machine": "x86_64"}
    assert manifest["id"] != json.loads(bundle(contents)["bundle.json"])["id"]
    write({**files, "wheels/a.whl": wheel}, directory)
    assert (directory / "wheels/a.whl").read_bytes() == wheel.read_bytes()
    with tarfile.open(f"{directory}.tar.gz") as archive:
        inside = archive.extractfile("x-cpu/wheels/a.whl")
        assert inside and inside.read() == wheel.read_bytes()
        assert archive.getmember("x-cpu/wheels/a.whl").mtime == 0


def test_uv_is_pinned_for_workers_that_have_none(contents):
    tools = Lock.parse((ROOT / "tools/locks/tools.lock").read_text(), "tools.lock")
    files = bundle(replace(contents, tools=tools))
    pin, *hashes = files["installer.txt"].decode().split(" \\\n")
    assert pin == f"uv=={tools.version('uv')}"
    assert all(line.startswith("    --hash=sha256:") for line in hashes)
    assert "installer.txt" in json.loads(files["bundle.json"])["files"]
    assert "installer.txt" not in bundle(contents)


def test_one_changed_source_changes_the_id(contents):
    first = json.loads(bundle(contents)["bundle.json"])
    sources = {name: data + b"#" for name, data in contents.sources.items()}
    second = json.loads(bundle(replace(contents, sources=sources))["bundle.json"])
    assert first["id"] != second["id"]


def test_the_same_bytes_wherever_and_whenever(contents, tmp_path):
    # Another process, directory, time zone, umask and hash seed.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from tools.bundle.pack import application, tarball;"
        "import hashlib, io; into = io.BytesIO();"
        "app = application({'b.py': b'2', 'a.py': b'1'}, 'a');"
        "tarball({'z': app, 'run.py': b'x'}, 'n', into);"
        "print(hashlib.sha256(into.getvalue()).hexdigest())"
    )
    told = set()
    for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        where = tmp_path / seed
        where.mkdir(mode=0o700)
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        command = [sys.executable, "-c", code, str(ROOT)]
        done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True)
        told.add(done.stdout)
    app = application({"a.py": b"1", "b.py": b"2"}, "a")
    packed = packed_in({"run.py": b"x", "z": app}, "n")
    assert told == {hashlib.sha256(packed).hexdigest() + "\n"}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        modes = {member.name: (member.mode, member.mtime) for member in archive}
    assert modes == {"n/run.py": (0o755, 0), "n/z": (0o644, 0)}


def test_the_application_runs_by_itself_and_on_the_path(tmp_path):
    sources = {"pkg/launch.py": b"import sys\nprint(__name__, sys.argv[1:])\n"}
    path = tmp_path / "app.pex"
    path.write_bytes(application(sources, "pkg.launch"))
    assert set(zipfile.ZipFile(path).namelist()) == {"__main__.py", "pkg/", "pkg/launch.py"}
    alone = [sys.executable, str(path), "x"]
    by_path = [sys.executable, "-m", "pkg.launch", "x"]
    for command in (alone, by_path):
        env = {**os.environ, "PYTHONPATH": str(path)}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.stdout == "__main__ ['x']\n", done.stderr


def test_written_whole_or_not_at_all(tmp_path):
    directory = tmp_path / "dist/x-cpu"
    write({"run.py": b"1", "launch/a": b"2"}, directory)
    write({"run.py": b"3"}, directory)
    assert [p.name for p in sorted(directory.parent.iterdir())] == ["x-cpu", "x-cpu.tar.gz"]
    assert [p.name for p in directory.iterdir()] == ["run.py"]
    with pytest.raises(ToolError):
        write({"run.py": b"4", "run.py/below": b"5"}, directory)
    assert (directory / "run.py").read_bytes() == b"3"
    assert [p.name for p in sorted(directory.parent.iterdir())] == ["x-cpu", "x-cpu.tar.gz"]


@pytest.mark.parametrize(
    ("variable", "value", "version", "said"),
    [
        (
            "XLA_FLAGS",
            "--xla_gpu_graph_level=0",
            "0.12.0.1",
            "jaxlib 0.12.0.1 aborts on --xla_gpu_gr",
        ),
        ("XLA_FLAGS", "--xla_gpu_new=1", "0.12.0.1", "--xla_gpu_new was never tried with jaxlib"),
        ("XLA_FLAGS", "--xla_gpu_autotune_level=4", "9.9", "was never tried with jaxlib 9.9"),
        ("XLA_FLAGS", "autotune", "0.12.0.1", "'autotune' is no flag: write --NAME=VALUE"),
        ("LIBTPU_INIT_ARGS", "--xla_tpu_no_such_flag=1", "0.0.50.1", "libtpu 0.0.50.1 aborts on"),
        ("LIBTPU_INIT_ARGS", "--xla_tpu_x=1", None, "the lock has no libtpu that would read it"),
    ],
)
def test_flags_that_would_abort_are_refused(variable, value, version, said):
    with pytest.raises(ToolError, match=said):
        check(variable, value, version)


@pytest.mark.parametrize("accelerator", ["cpu", "gpu", "tpu"])
def test_what_each_bundle_sets_is_known_to_its_lock(contents, accelerator):
    path = ROOT / f"tools/locks/{accelerator}.lock"
    topology = Topology.parse(
        accelerator, {"cpu": "1", "gpu": "8xh100", "tpu": "v5e:4x4"}[accelerator]
    )
    lock = Lock.parse(path.read_text(), path.name)
    changed = replace(contents, accelerator=accelerator, lock=lock, topology=topology, env=None)
    files = bundle(changed)
    assert len(packed_in(files, "x")) < 2**20
    assert files["app.pex"] == bundle(contents)["app.pex"]


@pytest.mark.parametrize("cuda", [12, 13])
def test_a_lock_chooses_the_cuda_of_its_gpus(contents, cuda):
    named = f"jax-cuda{cuda}-plugin"
    entries = [dict(entry) for entry in contents.lock.distributions.values()]
    plugin = {**entries[0], "project_name": named, "requires_dists": []}
    needs = [f"jax-cuda{cuda}-plugin; extra == 'cuda{cuda}'"]
    entries = [{**e, "requires_dists": needs} if e["project_name"] == "jax" else e for e in entries]
    text = json.dumps({"locked_resolves": [{"locked_requirements": [*entries, plugin]}]})
    topology = Topology.parse("gpu", "8xh100")
    lock = Lock.parse(text, "own.lock")
    files = bundle(replace(contents, accelerator="gpu", lock=lock, topology=topology, env={}))
    assert f"\n{named}==".encode() in files["requirements.txt"]


def test_a_flag_of_the_table_really_aborts_or_really_starts():
    from tools.bundle.flags import accepted

    assert not accepted("XLA_FLAGS", "xla_gpu_graph_level=0")
    assert accepted("XLA_FLAGS", "xla_gpu_autotune_level=4")
    with pytest.raises(ToolError, match="level=high: the value is of the wrong kind"):
        accepted("XLA_FLAGS", "xla_gpu_autotune_level=high")


def test_interpreter_constraints():
    for text in ("CPython>=3.12,<3.15", "CPython<3.15,>=3.12"):
        assert Pythons.parse(text).minors() == ["3.12", "3.13", "3.14"]
    assert Pythons.parse("CPython==3.12.*").minors() == ["3.12"]
    with pytest.raises(ToolError, match="write CPython>=3.A,<3.B"):
        Pythons.parse("CPython>=3.12")


@pytest.mark.parametrize(
    ("accelerator", "text", "nodes", "devices", "slices"),
    [
        ("cpu", "4", 4, 1, 1),
        ("gpu", "8xh100", 1, 8, 1),
        ("gpu", "2x8xh100", 2, 8, 1),
        ("tpu", "v5e:2x4", 1, 8, 1),
        ("tpu", "v5e:4x4", 4, 4, 1),
        ("tpu", "2xv5p:2x2x2", 4, 4, 2),
    ],
)
def test_topologies(accelerator, text, nodes, devices, slices):
    found = Topology.parse(accelerator, text)
    assert (found.nodes, found.devices_per_node, found.slices) == (nodes, devices, slices)


@pytest.mark.parametrize(
    ("accelerator", "text"),
    [("gpu", "v5e:4x4"), ("cpu", "0"), ("tpu", "v9:2x2"), ("tpu", "v5p:4x4"), ("gpu", "8")],
)
def test_topologies_that_are_none(accelerator, text):
    with pytest.raises(ToolError):
        Topology.parse(accelerator, text)
