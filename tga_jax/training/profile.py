"""A profile of chosen steps, for TensorBoard or Perfetto."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """The steps from `first` to `last` (1-based, both included), written under `folder`."""

    first: int
    last: int
    folder: Path


class Profiler:
    """Starts before the first chosen step and stops after the last, or when left."""

    def __init__(self, config: ProfileConfig | None) -> None:
        self._config = config
        self._running = False

    def before(self, step: int) -> None:
        """Called before a step is dispatched; a run resumed between the two profiles the rest."""
        config = self._config
        if config is not None and not self._running and config.first <= step <= config.last:
            jax.profiler.start_trace(str(config.folder))
            self._running = True

    def after(self, step: int, result: Any) -> bool:
        """Called with what the step returned; whether the profile was written now."""
        if not self._running or self._config is None or step < self._config.last:
            return False
        jax.block_until_ready(result)
        self.close()
        return True

    def close(self) -> None:
        """End the trace that is under way, and write it."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
