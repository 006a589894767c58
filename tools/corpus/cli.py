"""The command line: `python -m tools.corpus build | default | inspect`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from tools.common.errors import ToolError
from tools.common.paths import local_path, local_text, location
from tools.corpus.errors import InputError

# The help texts say what happens without the flag, instead of "(default: None)".
_PATH = tyro.conf.arg(metavar="PATH", help_behavior_hint="")
_TOKEN = tyro.conf.arg(metavar="TOKEN", help_behavior_hint="")
_INT = tyro.conf.arg(metavar="INT", help_behavior_hint="")


def _place[T](flag: str, convert: Callable[[str], T], text: str) -> T:
    """The place that an argument names, by a type of `tools.common.paths`.

    tyro would print its error as a box of ten lines.
    """
    try:
        return convert(text)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{flag} {error}") from None


@dataclass(frozen=True)
class Build:
    """Encode your own text into a token store.

    A .txt file is one document; so is a line of .jsonl or .ndjson, a value of .json and a row of
    .parquet. All but .parquet may be compressed (.gz, .zst). A directory stands for its files with
    these endings; a quoted glob such as 'src/**/*.py' takes any plain text. Memory stays flat. To
    resume after a kill, run the same command again.
    """

    inputs: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="INPUT...", help_behavior_hint=""),
    ]
    """Directories, files or quoted globs, read in this order."""
    out: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """Directory or URL (s3://, gs://) of the store; unfinished work is in OUT.partial."""
    tokenizer: Annotated[str | None, _PATH] = None
    """A Hugging Face tokenizer.json to use. Default: train a byte-level BPE on the input."""
    vocab_size: int = 4096
    """Entries of a trained vocabulary, including the document token and 256 bytes."""
    bos_token: Annotated[str | None, _TOKEN] = None
    """The special token of --tokenizer that starts every document, if it is not a known one."""
    text_field: str = "text"
    """The field of a JSON or Parquet record that holds the text."""
    heldout_fraction: float = 0.01
    """Fraction of documents to hold out, 0 to 1, chosen by the digests of their bytes."""
    sample_mib: int = 64
    """Most text to train a tokenizer on, in MiB; documents are chosen by their digests."""
    skip_bad: bool = False
    """Leave out records that can't be used, and count them by reason, instead of stopping."""
    restart: bool = False
    """Discard the unfinished work of an earlier build."""


@dataclass(frozen=True)
class Default:
    """Prepare the default corpus: the Python source of the installed jax, numpy and scipy."""

    cache_dir: Annotated[str | None, _PATH] = None
    """Directory of stores. Default: $GRUG_CACHE, else $XDG_CACHE_HOME/grug, else ~/.cache/grug."""
    max_documents: Annotated[int | None, _INT] = None
    """Number of documents to take, for trying things out. Default: all."""
    vocab_size: int = 4096
    """Entries of the vocabulary."""


@dataclass(frozen=True)
class Inspect:
    """Print what a token store holds, check it, or show one of its documents."""

    store: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]
    """A complete token store: its directory or URL (s3://, gs://)."""
    document: Annotated[int | None, _INT] = None
    """Print the text of this document, counted from 0."""
    split: Literal["train", "heldout"] = "train"
    """The split that --document counts in."""
    verify: bool = False
    """Read all of the store and check its digests, offsets and document starts."""


Command = (
    Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Default, tyro.conf.subcommand("default")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, 1 for an expected failure, or 2 for bad input or flags."""
    if os.environ.get("NO_COLOR"):  # tyro does not know it
        tyro._experimental_options["ansi_codes"] = False
    command = tyro.cli(
        Command,
        prog="python -m tools.corpus",
        description="Turn text into a token store (docs/reference/token-store.md).",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        if isinstance(command, Build):
            _build(command)
        elif isinstance(command, Default):
            _default(command)
        else:
            _inspect(command)
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _build(command: Build) -> None:
    from tools.corpus.build import Settings
    from tools.corpus.inputs import plan_inputs
    from tools.corpus.progress import terminal_progress
    from tools.corpus.upload import build_at

    out = _place("--out", location, command.out)
    inputs = [_place("INPUT", local_text, argument) for argument in command.inputs]
    tokenizer = command.tokenizer
    settings = Settings(
        tokenizer=None if tokenizer is None else _place("--tokenizer", local_path, tokenizer),
        bos_token=command.bos_token,
        vocab_size=command.vocab_size,
        sample_bytes=command.sample_mib << 20,
        heldout_fraction=command.heldout_fraction,
        text_field=command.text_field,
    )
    plan = plan_inputs(inputs)
    for note in plan.notes:
        print(note, file=sys.stderr)
    result = build_at(
        plan,
        out,
        settings,
        skip_bad=command.skip_bad,
        restart=command.restart,
        progress=terminal_progress(),
    )
    for message in result.messages:
        print(f"skipped {message}", file=sys.stderr)
    if result.already_there:
        print(f"{result.store}: already there")
    elif result.resumed:
        print(f"{result.store}: resumed and complete")
    print(summary(result.manifest), end="")


def _default(command: Default) -> None:
    from tools.corpus.default import prepare_default

    cache = command.cache_dir
    store = prepare_default(
        None if cache is None else _place("--cache-dir", local_path, cache),
        max_documents=command.max_documents,
        vocab_size=command.vocab_size,
    )
    print(store)


def _inspect(command: Inspect) -> None:
    from tools.corpus.reading import read_document, read_manifest, read_tokenizer_of, verify

    store = _place("STORE", location, command.store)
    if command.document is None:
        manifest = verify(store) if command.verify else read_manifest(store)
        print(summary(manifest), end="")
        if command.verify:
            print("verified: every digest, offset and document start agrees")
        return
    if command.verify:
        verify(store)
    tokens = read_document(store, command.split, command.document)
    tokenizer = read_tokenizer_of(store)
    text = tokenizer.decode(tokens[1:].tolist(), skip_special_tokens=False)
    if sys.stdout.isatty():  # a document must not drive the terminal
        text = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    sys.stdout.write(text)


def summary(manifest: dict[str, Any]) -> str:
    """A store's manifest in a few lines."""
    lines = [f"digest      {manifest['digest']}"]
    lines.append(f"vocabulary  {manifest['vocab_size']:,} entries, {manifest['dtype']} tokens")
    for name in ("train", "heldout"):
        split = manifest["splits"][name]
        ratio = split["bytes"] / max(split["tokens"], 1)
        lines.append(
            f"{name:<10}  {split['documents']:,} documents, {split['tokens']:,} tokens, "
            f"{split['bytes']:,} bytes, {ratio:.3f} bytes per token"
        )
    for source in manifest["sources"]:
        lines.append(
            f"source      {source['name']}: {source['documents']:,} documents, "
            f"{source['bytes']:,} bytes"
        )
    for reason, count in manifest["skipped"].items():
        lines.append(f"skipped     {reason}: {count:,}")
    splits = manifest["splits"].values()
    if inexact := sum(split.get("inexact_documents", 0) for split in splits):
        count = sum(split["documents"] for split in splits)
        lines.append(
            f"note        the tokens of {inexact:,} of {count:,} documents do not spell their "
            "text byte for byte (a normalizer, a prefix or unknown characters); bits per byte "
            "count the bytes of the text"
        )
    if not manifest["splits"]["heldout"]["documents"]:
        lines.append("note        nothing is held out: pass a larger --heldout-fraction")
    return "\n".join(lines) + "\n"
