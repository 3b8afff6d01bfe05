"""The training loop of a stage.

Order of a turn: wait for the batch, dispatch the step, check the step before, log, save.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from tga_jax.errors import Preempted, UserError
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.flops import count_flops
from tga_jax.training.metrics import MetricsLog, Progress
from tga_jax.training.profile import ProfileConfig, Profiler
from tga_jax.training.step import TrainState
from tga_jax.training.throughput import Meter

Metrics = dict[str, jax.Array]


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
    """name: the stage's. peak_flops: of one device, for the MFU; None where unknown."""

    name: str
    steps: int
    log_every: int
    save_every: int
    peak_flops: float | None
    profile: ProfileConfig | None = None


class StepCompiler:
    """Compiles the step once a batch shape, and says so; shapes are bounded by the buckets."""

    def __init__(self, step: Callable[..., Any], *, most: int) -> None:
        self._step, self._most = step, most
        self._compiled: dict[tuple, Callable[..., Any]] = {}
        self._flops: dict[tuple, float] = {}

    @property
    def count(self) -> int:
        """Programs compiled so far."""
        return len(self._compiled)

    def __call__(
        self, state: TrainState, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, Metrics]:
        """Run the step."""
        key = _shapes(batch)
        if key not in self._compiled:
            if self.count >= self._most:
                raise RuntimeError(f"more than {self._most} batch shapes: bucketing is broken")
            self._compile(key, state, batch)
        with jax.transfer_guard("disallow"):
            return self._compiled[key](state, dict(batch))

    def flops(self, batch: Mapping[str, jax.Array]) -> float:
        """Model FLOPs of a step on a batch of these shapes, once it has run."""
        return self._flops[_shapes(batch)]

    def _compile(self, key: tuple, state: TrainState, batch: Mapping[str, jax.Array]) -> None:
        length, pictures = batch["tokens"].shape[-1], batch["images"].shape[2]
        began = time.monotonic()
        shape = f"length {length}, {pictures} pictures a row"
        print(f"compiling the step: {shape}", file=sys.stderr, flush=True)
        traced = self._step.trace(state, dict(batch))  # type: ignore[attr-defined]
        self._flops[key] = count_flops(traced.jaxpr).model
        self._compiled[key] = traced.lower().compile()
        note = f"{self._flops[key] / 1e12:.3g} TFLOP a step"
        print(f"compiled in {time.monotonic() - began:.1f} s, {note}", file=sys.stderr, flush=True)


def _shapes(batch: Mapping[str, jax.Array]) -> tuple:
    return tuple((k, v.shape) for k, v in sorted(batch.items()))


def train(
    state: TrainState,
    batches: Batches,
    step: StepCompiler,
    *,
    config: LoopConfig,
    checkpoints: Checkpoints,
    log: MetricsLog,
) -> TrainState:
    """Run the stage from `state.step` to its end, and save.

    Raises:
        UserError: a loss or gradient is not finite; nothing of that step is saved.
        Preempted: SIGTERM.
    """
    done = int(state.step)
    progress = Progress(config.name, config.steps, start=done)
    meter, profiler = Meter(config.peak_flops), Profiler(config.profile)
    pending: Pending | None = None
    with catch_sigterm() as stop, contextlib.closing(profiler):
        while done < config.steps:
            began = time.monotonic()
            batch = next(batches)
            meter.waited(time.monotonic() - began)
            programs = step.count
            profiler.before(done + 1)
            state, metrics = step(state, batch.arrays)
            if step.count > programs:
                meter.restart()  # compiling is not part of the step's time
            done += 1
            if pending is not None:
                pending.check()
            pending = Pending(done, batch.ids, metrics)
            pictures = math.prod(batch.arrays["images"].shape[:3])
            meter.add(tokens=batch.tokens, pictures=pictures, flops=step.flops(batch.arrays))
            if done % config.log_every == 0 or done == config.steps:
                values = pending.check()
                log.write(done, values | meter.read())
                progress.show(done, _note(values))
            if done % config.save_every == 0 or done == config.steps or stop.is_set:
                pending.check()
                checkpoints.save(done, state, batches.get_state())
                meter.restart()
            if profiler.after(done, metrics):
                meter.restart()
            if stop.is_set and done < config.steps:
                checkpoints.wait()
                raise Preempted(f"{config.name} stopped by SIGTERM; saved at step {done}")
    checkpoints.wait()
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


class catch_sigterm:
    """While entered, SIGTERM only sets `is_set`, so that the loop can save and stop."""

    def __init__(self) -> None:
        self.is_set = False

    def __enter__(self) -> catch_sigterm:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: object) -> None:
        self.is_set = True


def _note(values: Mapping[str, float]) -> str:
    shown = {k: values[k] for k in ("loss", "lm_loss", "guide_pair", "guide_hinge")}
    return "  ".join(f"{k} {v:.4f}" for k, v in shown.items() if math.isfinite(v))
