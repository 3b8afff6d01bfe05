"""The compiled steps of a stage, one for each shape of its batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from tga_jax.cluster import hosts
from tga_jax.training.flops import count_flops
from tga_jax.training.step import TrainState
from tga_jax.training.throughput import return_freed_memory

Metrics = dict[str, jax.Array]
INTERRUPT_SECONDS = 0.2


class StepCompiler:
    """Compiles the step once for each batch shape, and logs it; the buckets bound their number."""

    def __init__(self, step: Callable[..., Any], *, most: int) -> None:
        self._step, self._most = step, most
        self._compiled: dict[tuple, Callable[..., Any]] = {}
        self._compiling: dict[tuple, _InThread] = {}  # begun, and not yet waited for to the end
        self._flops: dict[tuple, float] = {}

    @property
    def count(self) -> int:
        """How many programs have been compiled so far."""
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
            length, images = batch["tokens"].shape[-1], batch["images"].shape[2]
            kind = "tiles" if "image_sources" in batch else "images"
            hosts.log(f"compiling the step: length {length}, {images} {kind} a row")
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
