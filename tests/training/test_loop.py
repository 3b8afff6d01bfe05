"""The loop on a made-up step: resume, SIGTERM, non-finite losses, recompilation."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tga_jax.errors import UserError
from tga_jax.training.batches import DeviceBatch
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.held_out import HeldOut
from tga_jax.training.loop import LoopConfig, Preempted, train
from tga_jax.training.metrics import MetricsLog
from tga_jax.training.profile import ProfileConfig
from tga_jax.training.state import abstract_state
from tga_jax.training.step import TrainState
from tga_jax.training.step_compiler import StepCompiler

STEPS = 7
FLOPS = 2 * 2 * 2 * 4  # of a step on two rows of four tokens


def _step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
    """Depends on the whole history: any repeated or skipped batch shows in all later losses."""
    tokens = batch["tokens"][0].astype(jnp.float32)
    gram = tokens @ tokens.T  # FLOPS
    w = 0.9 * state.trained["w"] + jnp.mean(tokens) + 1e-3 * jnp.mean(gram)
    loss = jnp.sum(w) / jnp.sum(batch["segments"])
    values = dict.fromkeys(("lm_loss", "guide_pair", "guide_hinge", "learning_rate"), loss)
    metrics = values | {"loss": loss, "grad_norm": loss}
    return TrainState(state.step + 1, {"w": w}, {}, (), None), metrics


def _start() -> TrainState:
    w = np.random.default_rng(0).normal(size=3).astype(np.float32)
    return TrainState(jnp.int32(0), {"w": jnp.asarray(w)}, {}, (), None)


class FakeBatches:
    """The batch of a position is a function of the position; `on` runs as a batch is fetched."""

    def __init__(self, on: Callable[[int], Any] = lambda _: None, *, lengths: int = 1) -> None:
        self.position, self._on, self._lengths = 0, on, lengths

    def __next__(self) -> DeviceBatch:
        self._on(self.position)
        rng = np.random.default_rng(self.position)
        length = 4 + self.position % self._lengths
        arrays = {
            "tokens": rng.integers(0, 9, (1, 2, length)).astype(np.int32),
            "segments": np.ones((1, 2, length), np.int32),
            "images": np.zeros((1, 2, 1, 4, 4, 3), np.uint8),
            "caption_tokens": np.zeros((1, 2, 4), np.int32),
        }
        if self.position == getattr(self, "poison", None):
            arrays["segments"] *= 0  # loss = x / 0
        ids = (f"a{self.position}", f"b{self.position}")
        self.position += 1
        return DeviceBatch(jax.device_put(arrays), ids, 2 * length)

    def get_state(self) -> dict[str, int]:
        return {"position": self.position}


def _train(
    folder: Path,
    batches: FakeBatches,
    *,
    save_every: int = 2,
    log_every: int = 1,
    most: int = 1,
    profile: ProfileConfig | None = None,
) -> StepCompiler:
    """As the job does it: restore what is there, then train."""
    checkpoints, state = Checkpoints(folder / "checkpoints"), _start()
    latest = checkpoints.latest_step()
    if latest is not None:
        restored = checkpoints.restore(latest, abstract_state(state))
        state, batches.position = restored.state, restored.data["position"]
    log = MetricsLog(folder, resume_step=int(state.step))
    compiler = StepCompiler(jax.jit(_step, donate_argnums=0), most=most)
    config = LoopConfig(
        name="stage",
        steps=STEPS,
        log_every=log_every,
        save_every=save_every,
        peak_flops=1e12,
        profile=profile,
    )
    try:
        train(
            state, batches, compiler,
            config=config, checkpoints=checkpoints, log=log, held_out=HeldOut.never(),
        )  # fmt: skip
    finally:
        log.close()
        checkpoints.close()
    return compiler


def _losses(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def _steps_saved(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "checkpoints").iterdir() if p.name.isdigit())


def test_interrupted_run_has_the_losses_of_an_uninterrupted_one(tmp_path: Path) -> None:
    _train(tmp_path / "whole", FakeBatches())
    assert [step for step, _ in _losses(tmp_path / "whole")] == list(range(1, STEPS + 1))

    def fail(position: int) -> None:
        if position == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "broken", FakeBatches(fail))
    assert _steps_saved(tmp_path / "broken") == ["2", "4"]
    _train(tmp_path / "broken", FakeBatches())
    assert _losses(tmp_path / "broken") == _losses(tmp_path / "whole")
    assert _steps_saved(tmp_path / "broken")[-1] == str(STEPS)


def test_sigterm_saves_and_stops_and_the_run_goes_on(tmp_path: Path) -> None:
    _train(tmp_path / "whole", FakeBatches())

    def terminate(position: int) -> None:
        if position == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="step 2"):
        _train(tmp_path / "stopped", FakeBatches(terminate), save_every=100)
    assert signal.getsignal(signal.SIGTERM) is before
    assert _steps_saved(tmp_path / "stopped") == ["2"]  # the third batch was not used
    _train(tmp_path / "stopped", FakeBatches(), save_every=100)
    assert _losses(tmp_path / "stopped") == _losses(tmp_path / "whole")


@pytest.mark.parametrize("position", [0, 1, 5])
def test_a_batch_that_cannot_be_made_ends_in_a_checkpoint(tmp_path: Path, position: int) -> None:
    _train(tmp_path / "whole", FakeBatches())

    def vanish(at: int) -> None:
        if at == position:
            raise UserError("record x: image 'x.png': no such file in images")

    with pytest.raises(UserError, match="record x: image") as error:
        _train(tmp_path / "stopped", FakeBatches(vanish), save_every=100)
    assert f"(after step {position})" in str(error.value)
    assert _steps_saved(tmp_path / "stopped") == ([str(position)] if position else [])
    _train(tmp_path / "stopped", FakeBatches(), save_every=100)
    assert _losses(tmp_path / "stopped") == _losses(tmp_path / "whole")


@pytest.mark.parametrize("log_every", [1, 100])
@pytest.mark.parametrize("save_every", [1, 4, 100])
def test_non_finite_loss_names_step_and_samples(
    tmp_path: Path, save_every: int, log_every: int
) -> None:
    batches = FakeBatches()
    batches.poison = 3
    with pytest.raises(UserError) as error:
        _train(tmp_path, batches, save_every=save_every, log_every=log_every)
    message = str(error.value)
    assert "step 4" in message and "a3, b3" in message and "\n" not in message
    assert all(int(step) < 4 for step in _steps_saved(tmp_path))


def test_a_seen_shape_is_not_compiled_again(tmp_path: Path) -> None:
    assert _train(tmp_path, FakeBatches(lengths=3), most=3).count == 3


def test_more_shapes_than_the_buckets_allow_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="more than 2 batch shapes"):
        _train(tmp_path, FakeBatches(lengths=3), most=2)


def test_metrics_have_the_throughput_of_their_window(tmp_path: Path) -> None:
    _train(tmp_path, FakeBatches(), log_every=2)
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 7]
    for line in lines[1:]:
        assert 0 <= line["data_wait_fraction"] <= 1
        np.testing.assert_allclose(line["tokens_per_second"] * line["step_seconds"], 8)
        rate = line["images_per_second_per_device"] * jax.device_count()
        np.testing.assert_allclose(rate * line["step_seconds"], 2)
        np.testing.assert_allclose(
            line["mfu"], FLOPS / line["step_seconds"] / 1e12 / jax.device_count()
        )
        assert line["peak_memory_bytes"] > 0
        assert line["compilations"] == 0


def test_chosen_steps_are_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    batches = FakeBatches(calls.append)
    start, stop = jax.profiler.start_trace, jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "start_trace", lambda f: (calls.append("start"), start(f)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (calls.append("stop"), stop()))
    _train(tmp_path, batches, profile=ProfileConfig(3, 4, tmp_path / "profile"))
    # Batches are numbered from 0: the third step's is fetched, and then the profile begins.
    assert calls == [0, 1, 2, "start", 3, "stop", 4, 5, 6]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_profile_cut_short_is_written(tmp_path: Path) -> None:
    _train(tmp_path, FakeBatches(), profile=ProfileConfig(7, 9, tmp_path / "profile"))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
