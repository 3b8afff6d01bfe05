"""Which step a stage goes on from is decided once for all processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tga_jax.jobs import train as train_job
from tga_jax.training.checkpoints import Restored


class LateListing:
    """The checkpoints of a host whose file system still shows an older listing."""

    def latest_step(self) -> int:
        return 2

    def restore(self, step: int, abstract: Any) -> Restored:
        return Restored(f"state of {step}", {"step": step})  # type: ignore[arg-type]


def test_all_go_on_from_the_step_that_the_first_process_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train_job.hosts, "broadcast_from_first", lambda make: make() + 2)
    monkeypatch.setattr(train_job, "abstract_state", lambda state: state)
    monkeypatch.setattr(train_job, "load_params", lambda *_: {})
    stage = SimpleNamespace(steps=6, factors={}, state=lambda params: None)
    job: Any = SimpleNamespace(say=lambda text: None)
    positions: list[dict[str, int]] = []
    loader = SimpleNamespace(set_state=positions.append)
    checkpoints: Any = LateListing()
    found = train_job.first_state(job, None, stage, checkpoints, loader, None)  # type: ignore[arg-type]
    assert (found, positions) == ("state of 4", [{"step": 4}])
