"""`metrics.jsonl` with the trackers beside it, and a progress line on stderr."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tga_jax import files
from tga_jax.cluster import hosts, watch
from tga_jax.training.metric_table import NAMES
from tga_jax.training.throughput import compilations
from tga_jax.training.trackers import TENSORBOARD, About, open_trackers

Value = float | int | None
EARLY = 0.001  # of the whole: a first line that comes sooner says nothing of the time left


class MetricsLog:
    """One line of JSON a logged step; lines past a resumed step are dropped."""

    def __init__(
        self,
        folder: Path,
        *,
        resume_step: int,
        trackers: Sequence[str] = (TENSORBOARD,),
        about: About | None = None,
    ) -> None:
        """Opens the log of a stage, and the trackers that take its metrics too.

        Args:
            folder: the stage's.
            resume_step: the step after which the stage goes on.
            trackers: their names.
            about: what they show beside the curves.

        Raises:
            UserError: a tracker cannot be opened.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        _truncate(self._path, resume_step)
        self._trackers = open_trackers(trackers, folder, about or About(), resume_step=resume_step)

    def write(self, step: int, metrics: Mapping[str, Value]) -> None:
        """Append a step's metrics; not-a-number (a term no sample has) becomes null.

        Raises:
            KeyError: a metric is not declared in `metric_table.METRICS`.
        """
        unknown = set(metrics) - set(NAMES)
        if unknown:
            raise KeyError(f"metrics that metric_table.METRICS does not declare: {sorted(unknown)}")
        clean = {k: _finite(v) for k, v in metrics.items()}
        files.append_jsonl(self._path, [{"step": step, **clean}])
        finite = {k: v for k, v in clean.items() if v is not None}
        for tracker in self._trackers:
            tracker.write(step, finite)

    def close(self) -> None:
        """Write what is still in memory and close the files."""
        with contextlib.ExitStack() as closing:  # each of them, whatever another one raises
            for tracker in self._trackers:
                closing.callback(tracker.close)


class Progress:
    """Steps done, speed and time left, as one line on stderr.

    The time left is reckoned without what will not come again: compiling, and what came before the
    first line, such as the start of worker processes.
    """

    def __init__(self, name: str, total: int, *, start: int = 0) -> None:
        self.name, self.total, self.start = name, total, start
        self.began = self._now()
        self.shown = False

    def show(self, done: int, note: str = "") -> None:
        """Print a line that says how much is done and how long the rest will take.

        Without a name nothing is printed; the watch is told that something goes on all the same.
        """
        elapsed = self._now() - self.began
        rate = (done - self.start) / elapsed if elapsed > 0 else 0.0
        early = not self.shown and (done - self.start) < EARLY * self.total
        left = f"{clock((self.total - done) / rate)} left" if rate > 0 and not early else "? left"
        if self.name:
            hosts.log(f"{self.name} {done}/{self.total}  {left}  {note}")
        if not self.shown:
            self.start, self.began, self.shown = done, self._now(), True
        watch.alive()

    def _now(self) -> float:
        return time.monotonic() - sum(compilations())


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _finite(value: Value) -> Value:
    return None if value is None or not math.isfinite(value) else value


def _truncate(path: Path, resume_step: int) -> None:
    """Keep the whole lines up to the resumed step; a killed run may have written more.

    A run that begins anew keeps none, as its line of step 0 is written again.
    """
    if path.exists():
        rows = files.read_log(path) if resume_step else ()
        files.write_jsonl(path, (row for row in rows if row["step"] <= resume_step))
