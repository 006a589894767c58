"""Traces of a run's steps by JAX's profiler: `--profile START:STEPS`, and names in them.

    RUN/profile/plugins/profile/steps-FIRST-LAST/
      process-N.xplane.pb        for TensorBoard and XProf
      process-N.trace.json.gz    for ui.perfetto.dev

`./pants run tools/runs:profile -- RUN` prints where the time went, from the first of these.
"""

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import optax

from .storage import Folder
from .terminal import optional, tell

KINDS = (".xplane.pb", ".trace.json.gz")  # what JAX writes; its names begin with the host's
CACHE_KEY = "jax_compilation_cache_include_metadata_in_key"
STEPS = "run/steps"  # the event that spans the traced steps, in the thread that runs them


def steps_of(text: str, steps: int) -> range:
    """The steps that `START:STEPS` names, counted from 1; none if it is empty.

    Raises:
        ValueError: it is no such text, or not all of them are among the run's `steps`.
    """
    if not text:
        return range(0)
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if not match:
        raise ValueError(f"profile={text}: write START:STEPS, such as 10:3 for steps 10 to 12")
    first, count = map(int, match.groups())
    if first < 1 or count < 1:
        raise ValueError(f"profile={text}: the first step is 1, and one step is the least")
    if first + count - 1 > steps:
        raise ValueError(f"profile={text}: ends after step {steps}, the last: trace earlier steps")
    return range(first, first + count)


class Profile:
    """Traces the chosen steps; as a context, it also ends a trace that the run leaves open.

    A profiler that fails, as when another trace is being taken, is told of in one line, and the run
    goes on. All processes trace themselves.
    """

    def __init__(self, run_dir: str | Path, chosen: range, start: int):
        """`start` is the step after which this start begins: what it has made is not traced."""
        self.folder, self.chosen, self.start = Folder(run_dir), chosen, start
        self._open: contextlib.ExitStack | None = None
        self._restore = contextlib.ExitStack()
        if chosen and chosen[0] <= start:
            self.chosen = range(0)
            if jax.process_index() == 0:
                tell(f"no profile: step {chosen[0]} was made before this start")

    def due(self, step: int) -> bool:
        """Whether a trace begins or ends after this step, so that the devices should be idle."""
        return bool(self.chosen) and step in (self.chosen[0] - 1, self.chosen[-1])

    def begin(self, step: int) -> None:
        """Begins the trace if it is due after this step."""
        if self.chosen and step == self.chosen[0] - 1:
            with optional("the profile"), contextlib.ExitStack() as opened:
                scratch = opened.enter_context(tempfile.TemporaryDirectory(prefix="grug-profile-"))
                options: Any = jax.profiler.ProfileOptions()
                options.python_tracer_level = 0  # it would slow the steps that it looks at
                jax.profiler.start_trace(scratch, profiler_options=options)
                opened.callback(self._keep, Path(scratch))
                opened.callback(jax.profiler.stop_trace)
                opened.enter_context(jax.profiler.TraceAnnotation(STEPS))
                self._open = opened.pop_all()

    def end(self, step: int) -> None:
        """Ends the trace and writes it if it is due after this step."""
        if self._open and step == self.chosen[-1]:
            self.close()

    def close(self) -> None:
        """Ends a trace that is open and writes it."""
        opened, self._open = self._open, None
        if opened:
            with optional("the profile"):
                opened.close()

    def _keep(self, scratch: Path) -> None:
        name = f"steps-{self.chosen[0]:08d}-{self.chosen[-1]:08d}"
        place = f"profile/plugins/profile/{name}/process-{jax.process_index()}"
        for kind in KINDS:
            for path in scratch.rglob(f"*{kind}"):
                self.folder.write(place + kind, path.read_bytes())

    def __enter__(self) -> "Profile":
        if self.chosen:  # else a program that was cached before a scope got its name is taken
            self._restore.callback(jax.config.update, CACHE_KEY, getattr(jax.config, CACHE_KEY))
            jax.config.update(CACHE_KEY, True)
        self.begin(self.start)  # where the first step is chosen, its compilation is in the trace
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._restore.close()


def named(name: str, part: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same part of an optimizer, under a name in traces and in compiled programs."""
    return optax.GradientTransformation(part.init, jax.named_scope(name)(part.update))
