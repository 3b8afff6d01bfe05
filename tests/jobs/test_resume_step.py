"""Which step a stage goes on from is decided once for all processes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tga_jax.run import stage as stage_module
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
    monkeypatch.setattr(stage_module.hosts, "broadcast_from_first", lambda make: make() + 2)
    monkeypatch.setattr(stage_module, "new_state", lambda *_, **__: None)
    monkeypatch.setattr(stage_module, "abstract_state", lambda state: state)
    stage = stage_module.Stage.__new__(stage_module.Stage)
    stage.steps, stage.factors, stage.optimizer, stage.objective = 6, {}, None, None  # type: ignore[assignment]
    stage.context = SimpleNamespace(  # type: ignore[assignment]
        load_params=lambda *_: {},
        model=SimpleNamespace(config=SimpleNamespace(decoder=SimpleNamespace(width=8))),
        mesh=None,
        say=lambda text: None,
    )
    positions: list[dict[str, int]] = []
    loader = SimpleNamespace(set_state=positions.append)
    found = stage._start(LateListing(), loader, None)  # type: ignore[arg-type]
    assert (found, positions) == ("state of 4", [{"step": 4}])
