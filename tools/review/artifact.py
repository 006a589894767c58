"""What the unprivileged workflow hands over, written and, as hostile data, read.

    manifest.json       {"schema_version": 1, "reports": ["NAME", ...]}, names sorted
    summary.md          what `./pants diff --diff-format=markdown` printed
    reports/NAME.html   the page of each variant

It holds no pull-request number: whom it concerns, GitHub says.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from tools.common.errors import ToolError
from tools.common.files import MIB, read_text
from tools.common.jsonio import parse_json

SCHEMA_VERSION = 1
# What the workflow calls its upload.
ARTIFACT = "variant-reports"

MAX_ZIP = 32 * MIB
MAX_EXPANDED = 256 * MIB
MAX_REPORTS = 256
MAX_PAGE = 16 * MIB
MAX_SUMMARY = 4 * MIB
MAX_MANIFEST = MIB // 16

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_ENTRY = re.compile(rf"manifest\.json|summary\.md|reports/{_NAME.pattern}\.html")
_LIMITS = {"manifest.json": MAX_MANIFEST, "summary.md": MAX_SUMMARY}
# What begins an entry of a zip file's list of contents.
_LISTED = b"PK\x01\x02"


@dataclass(frozen=True)
class Reports:
    """What was handed over: the variants' names, sorted, and the summary of all as Markdown."""

    names: tuple[str, ...]
    summary: str


def pack(summary: Path, pages: Path, out: Path) -> list[str]:
    """Writes `out`, whole or not at all, and returns the names of the variants in it.

    Args:
        summary: Markdown, empty if no variant changed.
        pages: directory of NAME/index.html; need not exist if the summary is empty.
        out: directory that does not exist yet.

    Raises:
        ToolError: something is missing, too large, or in the way.
    """
    if out.exists():
        raise ToolError(f"{out} exists: remove it, or choose another --out")
    said = read_text(summary, MAX_SUMMARY)
    found = {page.parent.name: page for page in sorted(pages.glob("*/index.html"))}
    if bool(said.strip()) != bool(found):
        raise ToolError(f"{summary} and {pages} disagree: build both from one state of the sources")
    if strange := [name for name in found if not _NAME.fullmatch(name)]:
        raise ToolError(f"{pages}/{strange[0]}: a variant's name has letters, digits, _ and -")
    if len(found) > MAX_REPORTS:
        raise ToolError(f"{pages}: {len(found)} reports, {MAX_REPORTS} at most can be handed over")
    texts = {name: read_text(page, MAX_PAGE) for name, page in found.items()}
    manifest = {"schema_version": SCHEMA_VERSION, "reports": sorted(found)}
    made = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        (made / "reports").mkdir(parents=True)
        (made / "manifest.json").write_text(json.dumps(manifest, sort_keys=True) + "\n")
        (made / "summary.md").write_text(said, encoding="utf-8", newline="")
        for name, page in texts.items():
            (made / f"reports/{name}.html").write_text(page, encoding="utf-8", newline="")
        os.replace(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return sorted(found)


def read(data: bytes) -> Reports:
    """The reports in a zip file that anybody may have written. Nothing is unpacked to disk.

    Raises:
        ToolError: it is not of the form above, or larger than its bounds.
    """
    if len(data) > MAX_ZIP:
        raise ToolError(f"the artifact has {len(data):,} bytes, more than {MAX_ZIP:,}")
    if data.count(_LISTED) > MAX_REPORTS + len(_LIMITS):  # before anything is made of each
        raise ToolError(f"the artifact has more than {MAX_REPORTS + len(_LIMITS)} entries")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check(archive.infolist())
            manifest, summary = (_text(archive, name) for name in _LIMITS)
            names = _names(manifest)
            pages = [n for n in archive.namelist() if n not in _LIMITS]
    # An archive may also claim a newer version, a wrong checksum, or a place outside of the file.
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        zlib.error,
        ValueError,
        EOFError,
        OSError,
    ) as e:
        raise ToolError(f"the artifact is no usable zip file: {str(e)[:200]!r}") from e
    if sorted(pages) != [f"reports/{name}.html" for name in names]:
        raise ToolError("the artifact's pages are not those that its manifest lists")
    if bool(names) != bool(summary.strip()):
        raise ToolError("the artifact's summary and manifest disagree")
    return Reports(names, summary)


def _check(entries: list[zipfile.ZipInfo]) -> None:
    """Names, types and declared sizes. One that declares too little is cut when it is read."""
    seen = set()
    for entry in entries:
        # `filename` ends at a zero byte and has had its separators replaced.
        name = entry.orig_filename
        shown = repr(name[:100])
        if not _ENTRY.fullmatch(name) or name != entry.filename:
            raise ToolError(f"the artifact has an entry {shown}, which no report has")
        if name in seen:
            raise ToolError(f"the artifact has two entries {shown}")
        seen.add(name)
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ToolError(f"the artifact's {shown} is no plain file")
        if entry.flag_bits & 1:
            raise ToolError(f"the artifact's {shown} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ToolError(f"the artifact's {shown} is compressed in an unknown way")
        limit = _LIMITS.get(name, MAX_PAGE)
        if entry.file_size > limit:
            raise ToolError(f"the artifact's {shown} has more than {limit:,} bytes")
    if missing := sorted(_LIMITS.keys() - seen):
        raise ToolError(f"the artifact has no {missing[0]}")
    if sum(entry.file_size for entry in entries) > MAX_EXPANDED:
        raise ToolError(f"the artifact unpacks to more than {MAX_EXPANDED:,} bytes")


def _text(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as file:
        data = file.read(_LIMITS[name] + 1)
    if len(data) > _LIMITS[name]:
        raise ToolError(f"the artifact's {name} has more than {_LIMITS[name]:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"the artifact's {name} is not UTF-8") from error


def _names(manifest: str) -> tuple[str, ...]:
    try:
        found = parse_json(manifest, "manifest.json")
    except ToolError as error:
        raise ToolError(f"the artifact's {error}") from error
    if not isinstance(found, dict):
        raise ToolError("the artifact's manifest.json is no object")
    version = found.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        remedy = "rebase the pull request, so that both sides are of one version"
        raise ToolError(
            f"the artifact has schema_version {str(version)[:20]!r}, not {SCHEMA_VERSION}: {remedy}"
        )
    names = found.get("reports")
    if found.keys() != {"schema_version", "reports"} or not isinstance(names, list):
        raise ToolError("the artifact's manifest.json has not the keys schema_version, reports")
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise ToolError("the artifact's manifest.json lists what is no variant's name")
    if names != sorted(set(names)):
        raise ToolError("the artifact's manifest.json lists names out of order, or twice")
    return tuple(names)
