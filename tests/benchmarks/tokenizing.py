"""Tokenises a text again and again: our way to a token store, or the tokenizers library alone.

python -m tests.benchmarks.tokenizing JOB ours|direct CORES; JOB holds text.jsonl, tokenizer.json.
"""

import json
import os
import shutil
import sys

from tokenizers import Tokenizer

from tests.benchmarks.worker import Job, Step, serve
from tools.corpus.build import Settings, build
from tools.corpus.inputs import plan_inputs

BATCH_BYTES = 4 << 20  # encodings take about 40 times their text


def ours(job: Job) -> Step:
    """A whole build: files hashed, read and checked, tokens written and synced to disk."""
    out = job.directory / f"store-{os.getpid()}"
    settings = Settings(tokenizer=job.directory / "tokenizer.json")

    def step(index: int) -> tuple[float, float]:
        shutil.rmtree(out, ignore_errors=True)
        manifest = build(plan_inputs([job.directory / "text.jsonl"]), out, settings).manifest
        return sum(split["tokens"] for split in manifest["splits"].values()), 0.0

    return step


def direct(job: Job) -> Step:
    """Texts in memory to encodings in memory, and nothing else."""
    batches: list[list[str]] = [[]]
    size = 0
    with open(job.directory / "text.jsonl") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            if size + len(text) > BATCH_BYTES:
                batches.append([])
                size = 0
            batches[-1].append(text)
            size += len(text)

    def step(index: int) -> tuple[float, float]:
        # Anew, as in ours: it remembers the words it has met, and a text is tokenised once.
        tokenizer = Tokenizer.from_file(str(job.directory / "tokenizer.json"))
        encoded = (tokenizer.encode_batch_fast(b, add_special_tokens=False) for b in batches)
        return sum(len(one) for batch in encoded for one in batch), 0.0

    return step


if __name__ == "__main__":
    # Before the library starts its threads, one a core.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[3])])
    serve({"ours": ours, "direct": direct}[sys.argv[2]], {})
