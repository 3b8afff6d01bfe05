"""The training loop of a stage.

Each time round, `train` saves or stops if that is due, waits for a batch, compiles the step for
its shapes if they are new, dispatches the step, checks the result of the step before, and logs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol

import jax

from tga_jax.cluster import hosts
from tga_jax.cluster.watch import hold
from tga_jax.errors import Preempted, UserError
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.metric_table import METRICS, progress_note
from tga_jax.training.metrics import MetricsLog, Progress
from tga_jax.training.profile import ProfileConfig, Profiler
from tga_jax.training.step import TrainState
from tga_jax.training.step_compiler import Metrics, StepCompiler
from tga_jax.training.throughput import Meter


@dataclasses.dataclass(frozen=True)
class DeviceBatch:
    """A batch on the devices, with what the loop wants to know of it on the host."""

    arrays: dict[str, jax.Array]
    ids: tuple[str, ...]
    tokens: int  # real ones of the main sequences

    @property
    def images(self) -> int:
        """Images that the vision tower encodes, the filling of rows with fewer included."""
        return math.prod(self.arrays["images"].shape[:3])


class Batches(Protocol):
    """An iterator over device batches whose position can be saved."""

    def __next__(self) -> DeviceBatch: ...

    def get_state(self) -> dict[str, Any]:
        """State from which the batch after the last returned one comes next."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long a stage is, and what is done on the way.

    Attributes:
        name: the stage's name.
        steps: how many steps the stage has.
        log_every: a line of metrics is written every so many steps, and after the last.
        save_every: a checkpoint is saved every so many steps, and after the last.
        peak_flops: FLOP/s of one device, for the MFU; None where unknown.
        profile: the steps to profile.
        save_seconds: a checkpoint is saved so long after the last one; 0: none by time.
    """

    name: str
    steps: int
    log_every: int
    save_every: int
    peak_flops: float | None
    profile: ProfileConfig | None = None
    save_seconds: float = 0.0

    def is_due(self, every: int, done: int) -> bool:
        """Whether something that is done every so many steps is due after step `done`."""
        return done % every == 0 or done == self.steps


def train(
    state: TrainState,
    batches: Batches,
    step: StepCompiler,
    *,
    config: LoopConfig,
    checkpoints: Checkpoints,
    log: MetricsLog | None,
) -> TrainState:
    """Run the stage from `state.step` to its end, and save. `log` is the first process's.

    Raises:
        UserError: a loss or gradient is not finite; nothing of that step is saved. Or a batch
            cannot be made; the step before is saved, unless other processes would have to help.
        Preempted: SIGTERM, here or in another process; the state is saved.
    """
    done = saved = int(state.step)
    batch: DeviceBatch | None = None  # fetched, and not yet used
    position = batches.get_state()  # of the data after step `done`
    result: StepResult | None = None  # of step `done`
    progress = Progress(config.name, config.steps, start=done)
    meter, profiler = Meter(config.peak_flops), Profiler(config.profile)
    with hold(done=done, save_seconds=config.save_seconds) as held, contextlib.closing(profiler):
        while True:
            due = held.due(done)
            if due or config.is_due(config.save_every, done):
                if done != saved:
                    _save(checkpoints, done, state, position, result)
                    saved = done
                    meter.restart()
                held.saved()
            if due == "stop":
                _leave(checkpoints, config.name, done)
            if done == config.steps:
                break
            if batch is None:
                try:
                    batch = _fetch(batches, meter)
                except UserError as error:  # as of an image that vanished
                    if done != saved and not hosts.several():
                        _save(checkpoints, done, state, position, result)
                        checkpoints.wait()
                    raise UserError(f"{error} (after step {done})") from error
            if not _compiled(step, state, batch, held.asked, meter) or not held.go(done + 1):
                continue
            profiler.before(done + 1)
            state, metrics = step(state, batch.arrays)
            done, position = done + 1, batches.get_state()
            if result is not None:
                result.values()  # a step later, so that the devices never wait for the check
            result = StepResult(done, batch.ids, metrics)
            meter.add(tokens=batch.tokens, images=batch.images, flops=step.flops(batch.arrays))
            batch = None
            if config.is_due(config.log_every, done):
                _log(result, meter, progress, log)
            if profiler.after(done, metrics):
                meter.restart()
            held.alive()
        checkpoints.wait()
    return state


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What a dispatched step returns beside the state; reading it waits for the step's end."""

    step: int
    ids: tuple[str, ...]
    metrics: Metrics

    def values(self) -> dict[str, float]:
        """The step's metrics as numbers of the host.

        Raises:
            UserError: one that must be finite is not, naming the step and its samples.
        """
        values = {k: float(v) for k, v in jax.device_get(self.metrics).items()}
        for name in (metric.name for metric in METRICS if metric.must_be_finite):
            if not math.isfinite(values[name]):
                raise UserError(
                    f"{name} is {values[name]} at step {self.step}; samples: "
                    f"{', '.join(self.ids)}. Nothing of this step was saved: look at these "
                    "samples, or lower the learning rate"
                )
        return values


def _fetch(batches: Batches, meter: Meter) -> DeviceBatch:
    """The next batch; the wait for it is metered."""
    began = time.monotonic()
    batch = next(batches)
    meter.waited(time.monotonic() - began)
    return batch


def _compiled(
    step: StepCompiler,
    state: TrainState,
    batch: DeviceBatch,
    interrupted: Callable[[], bool],
    meter: Meter,
) -> bool:
    """Compile the step for the batch if need be; False where SIGTERM came meanwhile."""
    if step.knows(batch.arrays):
        return True
    ready = step.compile(state, batch.arrays, interrupted=interrupted)
    meter.restart()  # compiling is not part of the step's time
    return ready


def _save(
    checkpoints: Checkpoints,
    done: int,
    state: TrainState,
    position: Mapping[str, Any],
    result: StepResult | None,
) -> None:
    """Begin a checkpoint of step `done`, once its loss is known to be finite."""
    if result is not None:
        result.values()
    checkpoints.save(done, state, position)


def _leave(checkpoints: Checkpoints, name: str, done: int) -> NoReturn:
    """End training because of SIGTERM, when every process has saved."""
    checkpoints.wait()
    hosts.barrier("stopped")
    where = f"; saved at step {done}" if done else " before its first step"
    raise Preempted(f"{name} stopped by SIGTERM{where}")


def _log(result: StepResult, meter: Meter, progress: Progress, log: MetricsLog | None) -> None:
    """Write a line of metrics and show the progress."""
    values = result.values()
    figures = meter.read()
    if log is not None:
        log.write(result.step, values | figures)
    progress.show(result.step, progress_note(values, figures["tokens_per_second"]))
