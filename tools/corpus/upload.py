"""Builds a token store at a path, or at a URL: on this machine first, and then copied there."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.common.buckets import Bucket
from tools.common.errors import ToolError
from tools.common.paths import is_url
from tools.corpus.build import BuildResult, Settings, build, check_same, identity
from tools.corpus.default import default_cache_dir
from tools.corpus.documents import SPLITS
from tools.corpus.inputs import Plan, hash_files
from tools.corpus.reading import read_manifest
from tools.corpus.store import MANIFEST, TOKENIZER

_ELSEWHERE = "name a directory with room for the store in GRUG_CACHE"
_PARTS = {MANIFEST, TOKENIZER, "token_bytes", *SPLITS}


def build_at(plan: Plan, place: str, settings: Settings, **options: Any) -> BuildResult[str]:
    """Like `build`, at a path, s3://bucket/path or gs://bucket/path.

    Unfinished work for a bucket is in `builds` of the directory of stores (`default_cache_dir`),
    which has to have room for the store. A killed build or copy goes on there. The manifest is
    copied last.

    Raises:
        InputError, ToolError: as for `build`; the bucket does not exist or answer, denies access,
            or holds something else at that place.
    """
    if not is_url(place):
        return _named(place, build(plan, Path(place), settings, **options))
    bucket = Bucket(place)
    names = bucket.names()  # before the work: the bucket may not be there
    if foreign := next((name for name in names if name.partition("/")[0] not in _PARTS), None):
        raise ToolError(f"{place}: holds {foreign}, which no token store has; choose another --out")
    if MANIFEST in names:
        manifest = read_manifest(place)
        check_same(manifest, identity(hash_files(plan), settings), place)
        return BuildResult(place, manifest, already_there=True)
    digest = hashlib.sha256(bucket.place.encode()).hexdigest()
    stage = default_cache_dir() / "builds" / digest[:16]
    result = build(plan, stage, settings, elsewhere=_ELSEWHERE, **options)
    bucket.upload(stage, last=MANIFEST)
    shutil.rmtree(stage)
    return _named(place, replace(result, already_there=False))


def _named(place: str, result: BuildResult[Path]) -> BuildResult[str]:
    return BuildResult(
        place, result.manifest, result.already_there, result.resumed, result.messages
    )
