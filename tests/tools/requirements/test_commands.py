"""Updates, additions and removals: whole, or nothing; locks from an index in memory."""

import hashlib
import zipfile

import pytest

from tests.tools.requirements.conftest import CPU, Lab
from tools.bundle.pack import JAX
from tools.common import transaction
from tools.common.errors import ToolError
from tools.common.files import File
from tools.requirements import commands, mapping, render

LOCKS = "tools/locks"
MAC = ("cp312-cp312-macosx_11_0_arm64",)
X86 = ("cp312-abi3-manylinux_2_28_x86_64",)


def refused(lab: Lab, match: str, verb, *args) -> None:
    before = lab.state()
    with pytest.raises(ToolError, match=match):
        verb(lab.repo, *args, make=lab.index.make)
    assert lab.state() == before


def test_an_update_writes_locks_alone_and_says_what_moved(lab):
    lab.index.put("middle", "2.0")
    done = commands.update(lab.repo, ["tpu", "gpu", "tpu"], make=lab.index.make)
    assert lab.index.made == [("gpu", "tpu")]
    assert done.written == (f"{LOCKS}/gpu.lock", f"{LOCKS}/tpu.lock")
    assert lab.git("diff", "--name-only").split() == list(done.written)
    assert lab.lock("tpu").version("middle") == "2.0"
    assert lab.lock("cpu").version("middle") == "1.0"
    assert f"{LOCKS}/tpu.lock: written\n" in (text := render.outcome(done))
    assert "  updated     middle 1.0 -> 2.0\n" in text


def test_an_update_that_changes_nothing_writes_nothing(lab):
    done = commands.update(lab.repo, ["cpu"], make=lab.index.make)
    assert done.written == () and lab.git("status", "--porcelain") == ""
    assert render.outcome(done) == f"{LOCKS}/cpu.lock: nothing changed\n"


def test_a_lock_that_is_missing_or_in_conflict_is_made_anew(lab):
    lab.write(f"{LOCKS}/cpu.lock", "<<<<<<< HEAD\n")
    (lab.root / LOCKS / "docs.lock").unlink()
    done = commands.update(lab.repo, ["cpu", "docs"], make=lab.index.make)
    assert lab.git("status", "--porcelain") == ""
    assert [change.old_sha256 for change in done.changes] == [None, None]


def test_accelerators_keep_one_jax(lab):
    lab.edit(f"{LOCKS}/cpu.in", "jax==1.0", "jax==2.0")
    lab.index.put("jax", "2.0")
    refused(lab, "it would be 2.0 in cpu, 1.0 in gpu, 1.0 in tpu", commands.update, ["cpu"])
    assert lab.index.made == []  # said at once
    for name in ("gpu", "tpu"):
        lab.edit(f"{LOCKS}/{name}.in", "==1.0", "==2.0")
    refused(lab, "it would be 2.0 in cpu, 2.0 in gpu, 1.0 in tpu", commands.update, ["cpu", "gpu"])
    commands.update(lab.repo, ["cpu", "gpu", "tpu"], make=lab.index.make)
    assert {lab.lock(name).version("jax") for name in ("cpu", "gpu", "tpu")} == {"2.0"}


def test_where_no_requirement_fixes_jax_the_new_locks_are_compared(lab):
    lab.edit(f"{LOCKS}/cpu.in", "jax==1.0", "jax")
    lab.index.put("jax", "2.0")
    refused(lab, "it would be 2.0 in cpu, 1.0 in gpu, 1.0 in tpu", commands.update, ["cpu"])
    assert lab.index.made == [("cpu",)]


def test_what_a_bundle_could_not_install_is_not_locked(lab):
    lab.index.put("middle", "2.0", tags=MAC)
    refused(lab, r"gpu\.lock: middle 2\.0 has no wheel for Linux", commands.update, ["gpu"])
    # What only tests need is installed by Pex, which can build it.
    lab.index.put("middle", "1.0")
    lab.index.put("pytest", "2.0", tags=MAC)
    commands.update(lab.repo, ["cpu"], make=lab.index.make)


def test_a_machine_that_bundles_lose_is_named(lab):
    lab.index.put("middle", "2.0", tags=X86)
    done = commands.update(lab.repo, ["cpu", "gpu"], make=lab.index.make)
    assert [note.split(":")[0] for note in done.notes[:2]] == ["cpu", "gpu"]
    assert "bundles run on x86_64 alone, no more on aarch64" in done.notes[0]


def test_versions_that_part_ways_are_named(lab):
    lab.index.put("middle", "2.0")
    lab.index.put("pytest", "2.0")
    done = commands.update(lab.repo, ["cpu"], make=lab.index.make)
    assert done.notes == (
        "middle is 2.0 in cpu, 1.0 in gpu, 1.0 in tpu",
        "variants find other versions on other accelerators: ./pants run locks -- update cpu gpu "
        "tpu brings them together",
    )
    assert commands.update(lab.repo, ["docs"], make=lab.index.make).notes == ()
    assert commands.update(lab.repo, ["gpu", "tpu"], make=lab.index.make).notes == ()


def test_what_a_killed_command_left_is_finished_first(lab, monkeypatch, capsys):
    change = transaction.Change("an earlier update")
    change.put("note", None, File(b"x", "file"))
    state = lab.repo.state()
    with monkeypatch.context() as patched:  # killed once the change holds, before its first step
        patched.setattr(transaction, "_finish", lambda *_: None)
        with transaction.locked(state):
            transaction.carry_out(lab.root, state, change)
    assert lab.run("add", "middle") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "finished what was interrupted: an earlier update"
    assert "middle is in" in said[1] and lab.read("note") == "x"


def test_a_file_edited_meanwhile_stops_all(lab):
    def make(repo, resolves, edits):
        made = lab.index.make(repo, resolves, edits)
        lab.write(f"{LOCKS}/gpu.in", lab.listing("gpu") + "zzz\n")
        return made

    lab.index.put("middle", "2.0")
    with pytest.raises(ToolError, match=r"gpu\.in: was changed meanwhile, nothing is done"):
        commands.update(lab.repo, ["cpu", "gpu"], make=make)
    assert lab.git("diff", "--name-only") == f"{LOCKS}/gpu.in"


def serve(lab: Lab, name: str, *modules: str) -> None:
    """Puts a wheel of these modules where the lock says it is."""
    path = lab.root.parent / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for module in modules:
            archive.writestr(f"{module}/__init__.py", "")
    lab.index.put(name, "1.0")
    (artifact,) = lab.index.entries[name.lower()]["artifacts"]
    artifact["url"] = path.as_uri()
    artifact["hash"] = hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_package_for_variants_goes_to_every_accelerator(lab):
    serve(lab, "Other-Name", "another", "tests")
    done = commands.add(lab.repo, "Other-Name>=1", make=lab.index.make)
    assert lab.index.made == [("cpu", "gpu", "tpu")]
    assert lab.listing("cpu") == CPU.format(jax=JAX["cpu"]).replace(
        "pytest", "Other-Name>=1\npytest"
    )
    build = lab.read(f"{LOCKS}/BUILD")
    for name in ("cpu", "gpu", "tpu"):
        assert "\nOther-Name>=1\n" in lab.listing(name)
        assert lab.lock(name).version("other-name") == "1.0"
        mapped = mapping.read(build, "BUILD", f"{name}.in")
        assert mapped.pop("Other-Name") == ["another"]
        assert mapped == ({} if name == "gpu" else {"Big-Name": ["big"]})
    assert sorted(lab.git("diff", "--name-only").split()) == list(done.written)
    assert "Other-Name: import another" in done.notes
    assert lab.listing("docs") == "mkdocs\n"


def test_a_package_for_tests_goes_to_the_cpu_alone(lab):
    serve(lab, "hypo", "hypo")
    done = commands.add(lab.repo, "hypo", "tests", make=lab.index.make)
    assert done.written == (f"{LOCKS}/cpu.in", f"{LOCKS}/cpu.lock")  # its module has its name
    commands.add(lab.repo, "hypo", "docs", make=lab.index.make)
    assert lab.listing("docs") == "hypo\nmkdocs\n"


def test_a_package_of_one_accelerator_goes_to_the_others_as_it_is_there(lab):
    lab.edit(f"{LOCKS}/cpu.in", "pytest\n", "pytest>=1\n")
    lab.edit(
        f"{LOCKS}/BUILD", '"Big-Name": ["big"],\n    },', '"pytest": ["_pytest", "pytest"],\n    },'
    )
    done = commands.add(lab.repo, "PyTest", make=lab.index.make)
    assert lab.index.made == [("gpu", "tpu")]
    assert lab.listing("gpu").endswith("middle\npytest>=1\n")
    # Known from another resolve: no wheel is looked into, which is on no host.
    assert mapping.read(lab.read(f"{LOCKS}/BUILD"), "BUILD", "tpu.in")["pytest"] == [
        "_pytest",
        "pytest",
    ]
    assert f"{LOCKS}/BUILD" in done.written


def test_a_wheel_that_cannot_be_had_is_left_to_the_user(lab):
    lab.index.put("far", "1.0")
    lab.index.entries["far"]["artifacts"][0]["url"] = (
        lab.root / "far-1.0-py3-none-any.whl"
    ).as_uri()
    done = commands.add(lab.repo, "far", make=lab.index.make)
    assert "cannot be downloaded" in done.notes[0]
    assert done.notes[0].endswith(f"write that into module_mapping in {LOCKS}/BUILD")
    assert "far\n" in lab.listing("tpu")


def test_what_cannot_be_added(lab):
    lab.index.put("apple", "1.0", tags=MAC)
    refused(
        lab,
        "gpu.lock: apple 1.0 has no wheel|cpu.lock: apple 1.0 has no wheel",
        commands.add,
        "apple",
    )
    refused(lab, "middle is in .*cpu.in, .*gpu.in, .*tpu.in already", commands.add, "MIDDLE>=3")
    refused(lab, "cpu.in asks for `pytest`, not for `pytest>=9`", commands.add, "pytest>=9")
    refused(lab, "is no requirement", commands.add, "a b")
    refused(lab, "no 'varaints'", commands.add, "a", "varaints")
    (lab.root / LOCKS / "docs.in").unlink()
    refused(lab, "docs.in is not there: tools/locks/BUILD says", commands.add, "a", "docs")


def test_a_failure_of_one_lock_leaves_all_as_it_was(lab):
    """A name that no index has: the lock that fails comes last."""

    def make(repo, resolves, edits):
        made = lab.index.make(repo, resolves[:2], {})
        raise ToolError(f"no package index has it: {sorted(made)}")

    before = lab.state()
    with pytest.raises(ToolError, match="cpu.lock.*gpu.lock"):
        commands.add(lab.repo, "nothing", make=make)
    assert lab.state() == before


def test_remove_is_add_backwards(lab):
    lab.commit()
    before = lab.state()
    serve(lab, "Other-Name", "another")
    commands.add(lab.repo, "Other-Name", make=lab.index.make)
    done = commands.remove(lab.repo, "other_name", make=lab.index.make)
    assert {n: s for n, s in lab.state().items() if "BUILD" not in n} == {
        n: s for n, s in before.items() if "BUILD" not in n
    }
    assert mapping.read(lab.read(f"{LOCKS}/BUILD"), "BUILD", "gpu.in") == {}
    assert [moved.kind for change in done.changes for moved in change.moved] == ["removed"] * 3


def test_what_is_still_used_is_not_removed(lab):
    lab.write("experiments/grug/base/model.py", "import jax\n\nfrom big.deep import thing\n")
    lab.write("tools/x/BUILD", 'f(dependencies=["tools/locks:cpu#Big-Name"])\n')
    lab.commit()
    refused(
        lab,
        r"(?s)model\.py:3: from big\.deep import thing\ntools/x/BUILD:1: .*\nthese need big-name",
        commands.remove,
        "Big-Name",
    )
    refused(lab, "numpy is in none of", commands.remove, "numpy")
    refused(lab, "these need jax: change them first", commands.remove, "jax")


def test_what_every_bundle_needs_is_not_removed(lab):
    refused(lab, "cpu.lock has no jax, which a bundle needs", commands.remove, "jax")


def test_a_package_that_another_resolve_asks_for_may_go_from_one(lab):
    lab.write("experiments/grug/base/model.py", "import middle\n")
    lab.write(f"{LOCKS}/docs.in", "middle\nmkdocs\n")
    lab.commit()
    commands.remove(lab.repo, "middle", "docs", make=lab.index.make)
    assert lab.listing("docs") == "mkdocs\n" and "middle\n" in lab.listing("cpu")


def test_a_package_that_others_need_stays_in_the_lock(lab):
    lab.index.put("pytest", "1.0", needs=["middle"])
    lab.write(f"{LOCKS}/cpu.lock", lab.index.lock(lab.listing("cpu")))
    done = commands.remove(lab.repo, "middle", make=lab.index.make)
    assert "middle stays in cpu: other packages need it" in done.notes
    assert lab.lock("gpu").version("middle") is None
    # Its comment goes with nobody: it is for people to judge.
    assert "# Slow, and why.\npytest\n" in lab.listing("cpu")
