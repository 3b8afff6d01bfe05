"""The training loop of a stage.

Order of a turn: save or stop if that is due, wait for the batch, compile its step if that is new,
dispatch it, check the step before, log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from tga_jax.cluster import hosts
from tga_jax.cluster.watch import hold
from tga_jax.errors import Preempted, UserError
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.flops import count_flops
from tga_jax.training.metrics import MetricsLog, Progress
from tga_jax.training.profile import ProfileConfig, Profiler
from tga_jax.training.step import TrainState
from tga_jax.training.throughput import Meter, return_freed_memory

Metrics = dict[str, jax.Array]
INTERRUPT_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class DeviceBatch:
    """A batch on the devices, with what the loop wants to know of it on the host."""

    arrays: dict[str, jax.Array]
    ids: tuple[str, ...]
    tokens: int  # real ones of the main sequences


class Batches(Protocol):
    """An iterator over device batches whose position can be saved."""

    def __next__(self) -> DeviceBatch: ...

    def get_state(self) -> dict[str, Any]:
        """State from which the batch after the last returned one comes next."""
        ...


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """name: the stage's. peak_flops: of one device, for the MFU; None where unknown.
    save_seconds: a checkpoint so long after the last one; 0: none by time."""

    name: str
    steps: int
    log_every: int
    save_every: int
    peak_flops: float | None
    profile: ProfileConfig | None = None
    save_seconds: float = 0.0


class StepCompiler:
    """Compiles the step once a batch shape, and says so; shapes are bounded by the buckets."""

    def __init__(self, step: Callable[..., Any], *, most: int) -> None:
        self._step, self._most = step, most
        self._compiled: dict[tuple, Callable[..., Any]] = {}
        self._compiling: dict[tuple, _InThread] = {}  # begun, and left
        self._flops: dict[tuple, float] = {}

    @property
    def count(self) -> int:
        """Programs compiled so far."""
        return len(self._compiled)

    def knows(self, batch: Mapping[str, jax.Array]) -> bool:
        """Whether the step is compiled for these shapes."""
        return _shapes(batch) in self._compiled

    def __call__(
        self, state: TrainState, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, Metrics]:
        """Run the step, which is compiled."""
        with jax.transfer_guard("disallow"):
            return self._compiled[_shapes(batch)](state, dict(batch))

    def flops(self, batch: Mapping[str, jax.Array]) -> float:
        """Model FLOPs of a step on a batch of these shapes, once it is compiled."""
        return self._flops[_shapes(batch)]

    def compile(
        self,
        state: TrainState,
        batch: Mapping[str, jax.Array],
        *,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Compile the step for these shapes; False where it was left because of `interrupted`.

        XLA cannot be stopped and takes minutes: it works in a thread, which may be abandoned.
        """
        if self.count >= self._most:
            raise RuntimeError(f"more than {self._most} batch shapes: bucketing is broken")
        key, began = _shapes(batch), time.monotonic()
        if key not in self._compiling:
            length, pictures = batch["tokens"].shape[-1], batch["images"].shape[2]
            hosts.log(f"compiling the step: length {length}, {pictures} pictures a row")
            traced = self._step.trace(state, dict(batch))  # type: ignore[attr-defined]
            self._flops[key] = count_flops(traced.jaxpr).model
            self._compiling[key] = _InThread(traced.lower().compile)
        while not self._compiling[key].done(INTERRUPT_SECONDS):
            if interrupted():
                return False
        self._compiled[key] = self._compiling.pop(key).result()
        return_freed_memory()
        note = f"{self._flops[key] / 1e12:.3g} TFLOP a step"
        hosts.log(f"compiled in {time.monotonic() - began:.1f} s, {note}")
        return True


class _InThread:
    """A call in a thread that does not keep the process from ending."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._result = call, None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def done(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


def _shapes(batch: Mapping[str, jax.Array]) -> tuple:
    return tuple((k, v.shape) for k, v in sorted(batch.items()))


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
    turns = Turns(int(state.step), batches, step, config, checkpoints, log)
    with (
        hold(done=turns.done, save_seconds=config.save_seconds) as held,
        contextlib.closing(turns.profiler),
    ):
        while True:
            due = held.due(turns.done)
            if due or turns.wants_save():
                turns.save(state)
                held.saved()
            if due == "stop":
                checkpoints.wait()
                hosts.barrier("stopped")
                where = f"; saved at step {turns.done}" if turns.done else " before its first step"
                raise Preempted(f"{config.name} stopped by SIGTERM{where}")
            if turns.done == config.steps:
                break
            try:
                ready = turns.prepare(state, interrupted=held.asked)
            except UserError as error:  # as of a picture that vanished
                raise turns.saved_before(error, state) from error
            if ready and held.go(turns.done + 1):
                state = turns.run(state)
                held.alive()
        checkpoints.wait()
    return state


class Turns:
    """The loop's parts, and what it remembers between steps."""

    def __init__(
        self,
        done: int,
        batches: Batches,
        step: StepCompiler,
        config: LoopConfig,
        checkpoints: Checkpoints,
        log: MetricsLog | None,
    ) -> None:
        self.done, self._saved = done, done
        self._batches, self._step, self._config = batches, step, config
        self._checkpoints, self._log = checkpoints, log
        self._progress = Progress(config.name, config.steps, start=done)
        self._meter, self.profiler = Meter(config.peak_flops), Profiler(config.profile)
        self._batch: DeviceBatch | None = None  # fetched, and not yet used
        self._position = batches.get_state()
        self._pending: Pending | None = None

    def wants_save(self) -> bool:
        """Whether a checkpoint is due by the number of steps."""
        return self.done % self._config.save_every == 0 or self.done == self._config.steps

    def save(self, state: TrainState) -> None:
        """Begin a checkpoint of the last step, if there is none yet."""
        if self.done == self._saved:
            return
        if self._pending is not None:
            self._pending.check()
        self._checkpoints.save(self.done, state, self._position)
        self._saved = self.done
        self._meter.restart()

    def saved_before(self, error: UserError, state: TrainState) -> UserError:
        """Saves the last step where this process is the only one; returns `error`, saying so."""
        if hosts.several() or not self.done:
            return error
        self.save(state)
        self._checkpoints.wait()
        return UserError(f"{error}; saved at step {self.done}: mend that, and start again")

    def prepare(self, state: TrainState, *, interrupted: Callable[[], bool]) -> bool:
        """Fetch a batch and compile its step; False where the compiling was left."""
        if self._batch is None:
            began = time.monotonic()
            self._batch = next(self._batches)
            self._meter.waited(time.monotonic() - began)
        if self._step.knows(self._batch.arrays):
            return True
        ready = self._step.compile(state, self._batch.arrays, interrupted=interrupted)
        self._meter.restart()  # compiling is not part of the step's time
        return ready

    def run(self, state: TrainState) -> TrainState:
        """Dispatch the step on the fetched batch, check the step before, log."""
        batch, self._batch = self._batch, None
        assert batch is not None
        self.profiler.before(self.done + 1)
        state, metrics = self._step(state, batch.arrays)
        self.done += 1
        self._position = self._batches.get_state()
        if self._pending is not None:
            self._pending.check()
        self._pending = Pending(self.done, batch.ids, metrics)
        pictures = math.prod(batch.arrays["images"].shape[:3])
        flops = self._step.flops(batch.arrays)
        self._meter.add(tokens=batch.tokens, pictures=pictures, flops=flops)
        if self.done % self._config.log_every == 0 or self.done == self._config.steps:
            values = self._pending.check()
            figures = self._meter.read()
            if self._log is not None:
                self._log.write(self.done, values | figures)
            self._progress.show(self.done, _note(values))
        if self.profiler.after(self.done, metrics):
            self._meter.restart()
        return state


@dataclasses.dataclass
class Pending:
    """A dispatched step's metrics, looked at one step later so that the device never waits."""

    step: int
    ids: tuple[str, ...]
    metrics: Metrics

    def check(self) -> dict[str, float]:
        """The values; an error when the loss or the gradient is not finite."""
        values = {k: float(v) for k, v in jax.device_get(self.metrics).items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise UserError(
                    f"{name} is {values[name]} at step {self.step}; samples: "
                    f"{', '.join(self.ids)}. Nothing of this step was saved: look at these "
                    "samples, or lower the learning rate"
                )
        return values


def _note(values: Mapping[str, float]) -> str:
    shown = {k: values[k] for k in ("loss", "lm_loss", "guide_pair", "guide_hinge")}
    return "  ".join(f"{k} {v:.4f}" for k, v in shown.items() if math.isfinite(v))
