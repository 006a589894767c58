"""What is handed over: written whole or not at all, and read as if an enemy had written it."""

import json
import stat
import struct
import zipfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.review.conftest import SUMMARY, handed_over, zipped
from tools.common.errors import ToolError
from tools.review import __main__ as command
from tools.review import artifact

MANIFEST = '{"reports": ["moe"], "schema_version": 1}\n'
GOOD = {"manifest.json": MANIFEST, "summary.md": SUMMARY, "reports/moe.html": "<!doctype html>"}


@pytest.fixture
def built(tmp_path):
    """What `./pants diff` leaves: a page for each variant, and the summary of both."""
    for name in ("moe", "relu"):
        page = tmp_path / f"pages/{name}/index.html"
        page.parent.mkdir(parents=True)
        page.write_text(f"<!doctype html>é {name}")
    (tmp_path / "summary.md").write_text(SUMMARY)
    return tmp_path


def pack(root):
    return artifact.pack(root / "summary.md", root / "pages", root / "out")


def test_what_is_packed_is_what_is_read(built):
    assert pack(built) == ["moe", "relu"]
    out = built / "out"
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert files["reports/relu.html"].decode() == "<!doctype html>é relu"
    assert artifact.read(zipped(files)) == artifact.Reports(("moe", "relu"), SUMMARY)


def test_nothing_to_show_is_packed_too(tmp_path, capsys):
    (tmp_path / "none.md").write_text("\n")
    flags = ["--summary", f"{tmp_path}/none.md", "--pages", f"{tmp_path}/x", "--out"]
    assert command.main(["pack", *flags, f"{tmp_path}/a/out"]) == 0
    assert "0 reports" in capsys.readouterr().out
    assert json.loads((tmp_path / "a/out/manifest.json").read_text())["reports"] == []


def test_faults_of_packing_leave_nothing(built):
    for path, content, said in [
        ("summary.md", "", "disagree: build both"),
        ("summary.md", b"\xff", "is not UTF-8"),
        ("pages/relu/index.html", b"\xff", "is not UTF-8"),
        ("pages/a b/index.html", "x", "letters, digits, _ and -"),
    ]:
        place = built / path
        before = place.read_bytes() if place.exists() else None
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ToolError, match=said):
            pack(built)
        assert not list(built.glob("*out*"))
        if before is None:
            place.unlink()
        else:
            place.write_bytes(before)
    pack(built)
    with pytest.raises(ToolError, match="out exists: remove it"):
        pack(built)


def entry(name="reports/moe.html", data=b"x", **fields):
    """A good artifact but for one entry, which is as it is told to be."""
    info = zipfile.ZipInfo("reports/placeholder")
    written = BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for other, content in GOOD.items():
            if other != name:
                archive.writestr(other, content)
        info.filename = name  # as it is: the constructor would change it
        for key, value in fields.items():
            setattr(info, key, value)
        archive.writestr(info, data)
    return written.getvalue()


def refused(data, said):
    with pytest.raises(ToolError, match=said) as caught:
        artifact.read(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_the_helper_makes_an_artifact_that_is_read():
    assert artifact.read(entry()).names == ("moe",)
    assert artifact.read(zipped(GOOD)) == artifact.Reports(("moe",), SUMMARY)


HOSTILE_NAMES = [
    "../../etc/passwd",
    "reports/../../moe.html",
    "reports/..",
    "/etc/passwd",
    "/reports/moe.html",
    "C:\\Windows\\moe.html",
    "C:reports/moe.html",
    "reports\\moe.html",
    "\\\\host\\share\\moe.html",
    "reports//moe.html",
    "./reports/moe.html",
    "reports/moe.html/",
    "reports/moe.html\n",
    "reports/.html",
    "reports/-x.html",
    "reports/mo\u0435.html",
    "REPORTS/moe.html",
    "reports/moe.HTML",
    "reports/moe.html ",
    "reports/a/b.html",
    "reports/",
    "",
    ".git/config",
    "summary.md.html",
    "reports/" + "x" * 200 + ".html",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_that_no_report_has_are_refused(name):
    refused(entry(name), "which no report has")


def test_a_name_that_ends_at_a_zero_byte_is_refused():
    data = entry("reports/moe.html-hidden").replace(b"html-hidden", b"html\0hidden")
    refused(data, "which no report has")


@given(st.text(max_size=40) | st.from_regex(r"(\.\./|/|C:|\\|reports/|\x00|moe|\.html){1,6}"))
def test_any_other_name_is_refused(name):
    name = name.encode("utf-8", "replace").decode()
    if name in GOOD or artifact._ENTRY.fullmatch(name):
        return
    with pytest.raises(ToolError):
        artifact.read(entry(name))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(kind):
    attributes = (kind | 0o777) << 16
    refused(entry(data=b"/etc/passwd", external_attr=attributes), "is no plain file")


def test_plain_files_with_a_mode_are_read():
    assert artifact.read(entry(external_attr=(stat.S_IFREG | 0o755) << 16)).names == ("moe",)


def test_two_entries_of_one_name_are_refused():
    data = zipped({**GOOD, "reports/mo2.html": "x"}).replace(b"mo2.html", b"moe.html")
    refused(data, "two entries 'reports/moe.html'")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method):
    refused(entry(compress_type=method), "compressed in an unknown way")


def test_encryption_is_refused():
    data = bytearray(zipped(GOOD))
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    refused(bytes(data), "is encrypted")


def test_too_many_entries_are_refused_before_they_are_read():
    many = {f"reports/a{at}.html": "" for at in range(300)}
    refused(zipped({**GOOD, **many}), "more than 258 entries")


@pytest.mark.parametrize(
    "name, limit",
    [("manifest.json", "65,536"), ("summary.md", "4,194,304"), ("reports/moe.html", "16,777,216")],
)
def test_a_bomb_is_refused_by_what_it_declares(name, limit):
    bomb = zipped({**GOOD, name: b" " * (17 * 2**20)})
    assert len(bomb) < 20_000
    refused(bomb, f"'{name}' has more than {limit} bytes")


def test_a_bomb_of_many_is_refused():
    pages = {f"reports/a{at}.html": b" " * (16 * 2**20) for at in range(2)}
    data = bytearray(zipped({**GOOD, **pages}))
    many = {f"reports/a{at:03}.html": b"x" for at in range(20)}
    data = bytearray(zipped({**GOOD, **many}))
    at = 0
    while (at := data.find(b"PK\x01\x02", at + 1)) > 0:
        if b"reports/a" in data[at : at + 80]:
            struct.pack_into("<I", data, at + 24, 16 * 2**20)
    refused(bytes(data), "unpacks to more than 268,435,456 bytes")


def test_a_bomb_that_declares_little_is_cut():
    data = bytearray(zipped({**GOOD, "summary.md": b" " * 2**22}))
    at = data.index(b"summary.md", data.index(b"PK\x01\x02")) - 46
    struct.pack_into("<I", data, at + 24, 10)
    refused(bytes(data), "no usable zip file|disagree")


def test_more_bytes_than_a_download_may_have_are_refused(monkeypatch):
    monkeypatch.setattr(artifact, "MAX_ZIP", 100)
    refused(zipped(GOOD), "more than 100")


@pytest.mark.parametrize(
    "manifest, said",
    [
        (MANIFEST.replace("1", "2"), "schema_version '2', not 1: rebase"),
        (MANIFEST.replace("1", "true"), "schema_version 'True'"),
        (MANIFEST.replace("1", "1.5"), "schema_version '1.5'"),
        ("{}", "schema_version 'None'"),
        ("[]", "is no object"),
        ("[" * 60_000, "no usable JSON"),
        ('{"schema_version": NaN}', "no usable JSON"),
        ("9" * 60_000, "no usable JSON"),
        (b"\xff", "is not UTF-8"),
        (MANIFEST.replace("}", ', "pull_request": 1}'), "has not the keys"),
        (MANIFEST.replace('["moe"]', "7"), "has not the keys"),
        (MANIFEST.replace('"moe"', '"../moe"'), "no variant's name"),
        (MANIFEST.replace('"moe"', "7"), "no variant's name"),
        (MANIFEST.replace('"moe"', '"moe", "moe"'), "out of order, or twice"),
        (MANIFEST.replace('"moe"', '"moe", "relu"'), "pages are not those"),
        (MANIFEST.replace('"moe"', ""), "pages are not those"),
    ],
)
def test_manifests_that_are_not_ours_are_refused(manifest, said):
    refused(zipped({**GOOD, "manifest.json": manifest}), said)


def test_a_summary_that_is_not_text_is_refused():
    refused(zipped({**GOOD, "summary.md": b"\xff\xfe"}), "summary.md is not UTF-8")
    refused(zipped({**GOOD, "summary.md": " \n"}), "summary and manifest disagree")


def test_an_artifact_without_its_parts_is_refused():
    refused(zipped({"summary.md": "x"}), "no manifest.json")
    refused(zipped({"manifest.json": MANIFEST}), "no summary.md")
    refused(b"", "no usable zip")
    refused(b"PK\x05\x06" + b"\0" * 18, "no manifest.json")


@given(st.data())
def test_damage_is_said_in_one_line(data):
    """Bytes changed anywhere: refused, or read as it was; nothing else comes out."""
    damaged = bytearray(handed_over())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    refusal = ""
    try:
        assert artifact.read(bytes(damaged)).names == ("moe",)
    except ToolError as error:
        refusal = str(error)
    assert "\n" not in refusal
