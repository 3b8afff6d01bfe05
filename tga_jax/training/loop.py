"""The training loop of a stage.

Each time round, `train` saves or stops if that is due, waits for a batch, compiles the step for
its shapes if they are new, dispatches the step, checks the result of the step before, logs, and
takes the held-out figures if they are due.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax

from tga_jax.cluster import hosts
from tga_jax.cluster.watch import Hold, hold
from tga_jax.errors import Preempted, UserError
from tga_jax.training.batches import Ahead, Batches, DeviceBatch
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.held_out import HeldOut
from tga_jax.training.metric_table import METRICS, progress_note
from tga_jax.training.metrics import MetricsLog, Progress
from tga_jax.training.profile import ProfileConfig, Profiler
from tga_jax.training.step import TrainState
from tga_jax.training.step_compiler import Metrics, StepCompiler
from tga_jax.training.throughput import Meter

# A process reads the result of a step after it has dispatched the next one, so it may be two steps
# beyond a process that stops before it waits for that one.
OTHERS_LEAD = 2


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
    held_out: HeldOut,
) -> TrainState:
    """Run the stage from `state.step` to its end, and save. `log` is the first process's.

    Raises:
        UserError: a loss or gradient is not finite; nothing of that step is saved. Or a batch
            cannot be made, here or in another process; the state before it is saved.
        Preempted: a signal to stop, here or in another process; the state is saved.
    """
    done = saved = begun = int(state.step)
    ahead = Ahead(batches, OTHERS_LEAD if hosts.several() else 0)
    batch: DeviceBatch | None = None  # fetched, and not yet used
    position = batches.get_state()  # of the data after step `done`
    result: StepResult | None = None  # of step `done`
    progress = Progress(config.name, config.steps, start=done)
    meter, profiler = Meter(config.peak_flops), Profiler(config.profile)
    with hold(done=done, save_seconds=config.save_seconds) as held, contextlib.closing(profiler):
        if done == 0 and held_out.is_due(0):
            _log(0, held_out.take(state, 0), log)
        while True:
            due = held.due(done)
            if due or done == held_out.best_step or config.is_due(config.save_every, done):
                if done != saved:
                    _save(checkpoints, done, state, position, result, held_out.best_step)
                    saved = done
                    meter.restart()
                held.saved()
            if due == "stop":
                _leave(checkpoints, f"{config.name} {held.reason}", done, ahead.problem)
            if done == config.steps:
                break
            if batch is None:
                batch = _fetch(ahead, meter)
            if ahead.problem is not None:  # as of an image that vanished
                _ask_to_stop(held, str(ahead.problem), done, is_new=done > begun)
            ready = batch is not None and _compiled(step, state, batch, held.asked, meter)
            if batch is None or not ready or not held.go(done + 1):
                continue
            profiler.before(done + 1)
            state, metrics = step(state, batch.arrays)
            done, position = done + 1, ahead.get_state()
            if result is not None:
                result.values()  # a step later, so that the devices never wait for the check
            meter.add(tokens=batch.tokens, images=batch.images, flops=step.flops(batch.arrays))
            result, batch = StepResult(done, batch.ids, metrics), None
            if held_out.is_due(done) or config.is_due(config.log_every, done):
                _log(done, _figures(result, state, held_out, meter, progress), log)
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


def _fetch(ahead: Ahead, meter: Meter) -> DeviceBatch | None:
    """The next batch, None where it cannot be made; the wait for it is metered."""
    began = time.monotonic()
    batch = ahead.next()
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
    best_step: int | None,
) -> None:
    """Begin a checkpoint of step `done`, whose loss must be finite; the best one stays."""
    if result is not None:
        result.values()
    checkpoints.best_step = best_step
    checkpoints.save(done, state, position)


def _leave(
    checkpoints: Checkpoints, stopped: str, done: int, problem: UserError | None
) -> NoReturn:
    """End training when every process has saved: because of a signal, or of a process's problem."""
    checkpoints.wait()
    for text in hosts.all_gather(str(problem or "")):
        if text:
            raise _stopping(text, done)
    where = f"; saved at step {done}" if done else " before its first step"
    raise Preempted(f"{stopped}{where}")


def _ask_to_stop(held: Hold, problem: str, done: int, *, is_new: bool) -> None:
    """Have all processes save and stop, or stop at once where there is nothing new to save.

    In that case the others may be further than this process can go.
    """
    if not is_new:
        raise _stopping(problem, done)
    held.ask_to_stop()


def _stopping(problem: str, done: int) -> UserError:
    return UserError(f"{problem} (after step {done})")


def _figures(
    result: StepResult,
    state: TrainState,
    held_out: HeldOut,
    meter: Meter,
    progress: Progress,
) -> dict[str, float | None]:
    """The metrics of a step, which the progress line shows, and the held-out figures if due."""
    values = result.values()
    figures = meter.read()
    progress.show(result.step, progress_note(values, figures["tokens_per_second"]))
    if not held_out.is_due(result.step):
        return {**values, **figures}
    taken = held_out.take(state, result.step)
    meter.restart()  # they are not part of the step's time
    return {**values, **figures, **taken}


def _log(step: int, values: Mapping[str, float | None], log: MetricsLog | None) -> None:
    """Write a line of metrics."""
    if log is not None:
        log.write(step, values)
