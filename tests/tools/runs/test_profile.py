"""Where the time of traced steps went: traces written by hand, and damaged ones."""

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.runs.xspace import Instruction, Plane, program, space, steps
from tools.common.errors import ToolError
from tools.runs import profile, trace
from tools.runs.op_names import BACKWARD, FORWARD, NEITHER, RECOMPUTED, Part, parts

ATTENTION = "jit(step)/jvp(attention)/mul"
MLP = "jit(step)/transpose(jvp(mlp))/bsd,df->bsf/dot_general"
PROGRAM = program(
    {
        "main": [
            Instruction("fusion.1", ATTENTION),
            Instruction("fusion.2", MLP),
            Instruction("while.3", "jit(step)/jvp(attention)/while", "while", calls=["body"]),
            Instruction("copy.4"),
        ],
        "body": [Instruction("fusion.5", "jit(step)/optimizer/add")],
    }
)
METADATA = Plane("/host:metadata", {}, {"jit_step(7)": PROGRAM})


@pytest.fixture
def run_dir(tmp_path):
    """`run_dir(bytes)`: the directory of a run with that trace of steps 3 and 4."""

    def write(data: bytes, name: str = "steps-00000003-00000004") -> Path:
        folder = tmp_path / "run" / profile.FOLDER / name
        folder.mkdir(parents=True)
        (folder / "process-0.xplane.pb").write_bytes(data)
        return tmp_path / "run"

    return write


def table(text: str) -> dict[str, list[str]]:
    """The columns of each row by its name; of what both tables have, the first one's."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"( *\S.*?)  +(\S.*)", line):
            rows.setdefault(match[1], re.split(r" +", match[2]))
    return rows


@pytest.mark.parametrize(
    "name, expected",
    [
        ("jit(step)/optimizer/muon/mul", [(("optimizer", "muon"), NEITHER)]),
        ("jit(step)/jvp(attention)/scores/dot_general", [(("attention", "scores"), FORWARD)]),
        ("jit(step)/jvp(attention/rotary)/cos", [(("attention", "rotary"), FORWARD)]),
        ("jit(step)/transpose(jvp(mlp))/mul", [(("mlp",), BACKWARD)]),
        (
            "jit(step)/transpose(jvp())/while/body/closed_call/checkpoint/rematted_computation/mlp/max",
            [(("mlp",), RECOMPUTED)],
        ),
        (
            "jit(step)/jvp(loss)/shard_map/while/body/eval_jaxpr/transpose(jvp(jit(_where)))/mul",
            [(("loss",), FORWARD)],  # computed while the loss is
        ),
        (
            "jit(step)/transpose(jvp())/attention/scores/transpose(attention/scores)/jvp()/mul",
            [(("attention", "scores"), BACKWARD)],  # a gradient written by hand
        ),
        ("jit(step)/jvp()/mlp/mlp/jit(relu)/max", [(("mlp",), FORWARD)]),
        (
            "jit(step)/jvp(a)/vmap(BTNH,BSNH->BNTS)/dot_general;jit(step)/transpose(jvp(b))/add",
            [(("a", "BTNH,BSNH->BNTS"), FORWARD), (("b",), BACKWARD)],
        ),
        (
            "jit(step)/(optimizer/clip/reduce_sum:transpose(jvp(norm))/reduce_sum)",
            [(("optimizer", "clip"), NEITHER), (("norm",), BACKWARD)],
        ),
        # A fragment that a compiler left of another name says nothing.
        ("jit(step)/jvp(a)/add;checkpoint/vmap()/mul", [(("a",), FORWARD)]),
        ("jit(step)/add", [((), NEITHER)]),
        ("reduce_sum", [((), NEITHER)]),
        ("", [((), NEITHER)]),
    ],
)
def test_names_of_operations(name, expected):
    assert parts(name) == [Part(*one) for one in expected]


@pytest.mark.parametrize(
    "name", ["(" * 5000, "a(" * 5000 + ")" * 5000, ")(", "/" * 99, ";:;", "((:)"]
)
def test_no_name_is_too_strange(name):
    assert all(isinstance(part, Part) for part in parts(name))


def test_a_tpu(run_dir):
    """A loop lasts as long as what it runs; transfers beside it are no work of the chip."""
    ops = [
        ("%fusion.1 = bf16[8]{0} fusion(bf16[8]{0} %p), kind=kLoop", 100, 300, {}),
        ("while.3", 400, 400, {}),
        ("fusion.5", 450, 100, {}),
        ("fusion.2", 900, 50, {}),
        ("fusion.2", 5000, 50, {}),  # after the steps
    ]
    lines = {"XLA Ops": ops, "Async XLA Ops": [("copy.4", 0, 1000, {})], "Steps": [("3", 0, 9, {})]}
    data = space(METADATA, Plane("/device:TPU:0", lines), steps(3, 2, 1000))
    text = profile.report(run_dir(data), "", 2)
    rows = table(text)
    assert "steps 3 to 4, 0.0 ms each" in text and "tpu" in rows
    assert rows["attention"][1:] == ["30.0%", "0.0"]
    assert rows["optimizer"][1:] == ["10.0%"]
    assert rows["mlp"][1:] == ["5.0%", "0.0"]
    assert rows["idle"][1:] == ["55.0%"] and rows["total"][1:] == ["100.0%"]


def gpu(number: int, *streams: list[tuple[str, float, float]]) -> Plane:
    """A GPU whose streams run kernels: (instruction, start, duration)."""
    stats = {"hlo_module": "jit_step", "program_id": 7}
    lines: dict = {"XLA Modules": [("jit_step", 0, 1000, {})]}
    for stream, kernels in enumerate(streams):
        lines[f"Stream #{stream}(Compute)"] = [
            (f"kernel_{op}", start, time, {**stats, "hlo_op": op}) for op, start, time in kernels
        ]
    return Plane(f"/device:GPU:{number}", lines)


def test_gpus_share_an_instant_among_streams_and_give_their_mean(run_dir):
    first = gpu(0, [("fusion.1", 0, 400)], [("fusion.2", 200, 400)])
    second = gpu(1, [("fusion.1", 0, 1000)])
    text = profile.report(run_dir(space(METADATA, first, second, steps(3, 2, 1000))), "", 1)
    rows = table(text)
    assert "2 gpu devices, their mean" in rows
    assert rows["attention"][1] == "65.0%"  # (200 + 200 / 2) and 1000 of 1000
    assert rows["mlp"][1] == "15.0%"
    assert rows["idle"][1] == "20.0%"


def test_a_kernel_of_a_gpu_without_an_instruction_is_known_by_its_name(run_dir):
    kernels = [("fusion_2", 0, 300, {}), ("nobodys_kernel", 300, 100, {})]
    plane = Plane("/device:GPU:0", {"Stream #20(Kernel)": kernels})
    rows = table(profile.report(run_dir(space(METADATA, plane, steps(3, 2, 1000))), "", 1))
    assert rows["mlp"][1] == "30.0%" and rows["other"][1] == "10.0%"


def record(number: int, at: float) -> tuple:
    return ("ThreadpoolListener::Record", at, 0, {"_p": number})


def region(number: int, start: float, end: float) -> list[tuple]:
    begins = ("ThreadpoolListener::StartRegion", start, 0, {"_c": number})
    return [begins, ("ThreadpoolListener::StopRegion", end, 0, {"_c": number})]


def cpu(**threads: list[tuple]) -> Plane:
    host = steps(3, 2, 1000, loading=(10, 90), waiting=(200, 700))
    return Plane("/host:CPU", {**host.lines, **threads})


def op(name: str, start: float, duration: float, device: int = 0) -> tuple:
    stats = {"hlo_op": name, "hlo_module": "jit_step", "program_id": "7", "device_ordinal": device}
    return (name, start, duration, stats)


def test_threads_of_a_cpu_take_parts_of_each_others_operations(run_dir):
    one = [op("fusion.1", 0, 500), record(1, 100), ("end: fusion.1", 500, 1, {})]
    # The second part is recorded by the first one.
    other = [*region(1, 200, 400), record(2, 300), *region(2, 600, 800), *region(9, 800, 1000)]
    text = profile.report(run_dir(space(METADATA, cpu(one=one, other=other))), "", 1)
    rows = table(text)
    assert rows["attention"][1] == "70.0%" and rows["idle"][1] == "30.0%"
    assert rows["loading"] == ["0.0", "9.0%"] and rows["waiting"][1] == "70.0%"
    assert rows["dispatching"][1] == "0.5%"  # 5 ns; the second step's are within the waiting


def test_virtual_devices_of_a_cpu_are_told_apart(run_dir):
    both = [op("fusion.1", 0, 500, 0), op("fusion.1", 0, 300, 1)]
    threads = {"one": both[:1], "other": both[1:]}
    rows = table(profile.report(run_dir(space(METADATA, cpu(**threads))), "", 1))
    assert "2 cpu devices, their mean" in rows and rows["attention"][1] == "40.0%"


def test_who_recorded_whom_may_run_in_a_circle(run_dir):
    ops = [op("fusion.1", 0, 100)]
    thread = [*region(1, 200, 400), record(2, 300), *region(2, 500, 600), record(1, 550)]
    text = profile.report(run_dir(space(METADATA, cpu(one=[*ops, *thread]))), "", 1)
    assert table(text)["attention"][1] == "10.0%"


def test_instructions_without_a_name_of_their_own():
    """A fusion is named by its products, else by itself; what a pass made, by what it reads."""
    found = trace.read_programs(
        space(
            Plane(
                "/host:metadata",
                {},
                {
                    "jit_step(1)": program(
                        {
                            "fused": [
                                Instruction("dot.1", MLP, "dot"),
                                Instruction("add.2", "add"),
                            ],
                            "plain": [Instruction("mul.3", ATTENTION, "multiply")],
                            "main": [
                                Instruction("fusion.4", ATTENTION, calls=["fused"]),
                                Instruction("fusion.5", "", calls=["plain"]),
                                Instruction("fusion.6", "", reads=["fusion.5", "fusion.4"]),
                                Instruction("copy.7", "", "copy", reads=["fusion.5"]),
                                Instruction("constant.8", "", "constant"),
                                Instruction("call.9", ATTENTION, "call", calls=["plain"]),
                            ],
                        }
                    )
                },
            )
        )
    )
    names = found["jit_step(1)"].names
    assert names["fusion.4"] == MLP and names["fusion.5"] == names["copy.7"] == ATTENTION
    assert names["fusion.6"] == MLP  # what reads of the backward pass is of it
    assert names["constant.8"] == "" and names["call.9"] is None


def test_shares_of_an_operation_of_several_scopes_add_up(run_dir):
    several = "jit(step)/(optimizer/clip/add:transpose(jvp(norm))/add:optimizer/clip/add)"
    metadata = Plane(
        "/host:metadata",
        {},
        {"jit_step(7)": program({"main": [Instruction("all-reduce", several)]})},
    )
    data = space(metadata, cpu(one=[op("all-reduce", 0, 900)]))
    rows = table(profile.report(run_dir(data), "", 2))
    assert rows["optimizer"][1] == rows["  clip"][1] == "60.0%" and rows["norm"][1] == "30.0%"


DAMAGED = "is no trace, or a damaged one: trace the run again"


def whole() -> bytes:
    return space(METADATA, cpu(one=[op("fusion.1", 0, 500)]))


@pytest.mark.parametrize(
    "data, why",
    [
        (b"no trace at all", DAMAGED),
        (b"\xff" * 100, DAMAGED),
        (whole()[:-3], DAMAGED),
        (b"", "no steps of a run are in it"),
        (
            space(Plane("/host:CPU", {"python": [("other", 0, 9, {})]})),
            "no steps of a run are in it",
        ),
        (space(METADATA, cpu()), "no operation of a device is in it"),
        (space(cpu(one=[op("fusion.1", 0, 5)])), "the programs that ran are not in it"),
        (
            space(Plane("/host:metadata", {}, {"jit_step(7)": b"\xff\xff"}), cpu()),
            DAMAGED,
        ),
        (
            space(Plane("/host:metadata", {}, {"jit_step(7)": b"\x08\x01"}), cpu()),
            DAMAGED,
        ),
    ],
)
def test_what_is_no_trace_of_a_run_gets_one_line(run_dir, data, why):
    directory = run_dir(data)
    with pytest.raises(ToolError) as raised:
        profile.report(directory, "", 2)
    assert why in str(raised.value) and "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{directory}/profile/")


def test_a_damaged_trace_is_read_or_refused(run_dir, monkeypatch):
    """Whatever bytes have changed: no crash."""
    draw, data = random.Random(0), whole()
    directory = run_dir(data)
    (path,) = directory.rglob("*.pb")
    outcomes = set()
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            profile.report(directory, "", 2)
            outcomes.add("read")
        except ToolError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_damaged_programs_are_read_or_refused():
    """Whatever field of theirs is gone or of another kind."""
    draw, data = random.Random(1), whole()
    outcomes = set()
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        try:
            trace.read_programs(bytes(changed))
            outcomes.add("read")
        except ValueError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_which_trace_is_read(run_dir):
    data = whole()
    directory = run_dir(data)
    run_dir(data, "steps-00000010-00000010")
    (directory / profile.FOLDER / "steps-odd").mkdir()
    assert profile.find(directory, "3:2").parent.name == "steps-00000003-00000004"
    assert profile.find(directory, "10:1").parent.name == "steps-00000010-00000010"
    with pytest.raises(ToolError, match="has no trace of 4:2: give one of 3:2, 10:1, steps-odd"):
        profile.find(directory, "4:2")
    with pytest.raises(ToolError, match="steps-odd/process-0.xplane.pb: is not there"):
        profile.find(directory, "")


def test_a_run_without_a_trace_names_the_flag(tmp_path):
    with pytest.raises(ToolError, match="no trace is there: run with --profile START:STEPS"):
        profile.report(tmp_path, "", 2)


def test_too_large_a_trace_is_not_read(run_dir, monkeypatch):
    monkeypatch.setattr(trace, "MAX_TRACE", 10)
    with pytest.raises(ToolError, match="holds 0 MiB, this reads 0"):
        profile.report(run_dir(whole()), "", 2)


def test_the_command_says_why_in_one_line_and_fails(run_dir):
    """XLA's own reader says nothing of its own beside it."""
    data = bytearray(whole())
    data[data.index(b"fusion.1")] = 0xFF  # no UTF-8
    command = [sys.executable, "-m", profile.__name__, str(run_dir(bytes(data)))]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and DAMAGED in done.stderr
