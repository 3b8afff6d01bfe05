"""Checkpoints: bit-identical, in other dtypes, damaged; and metrics.jsonl after a kill."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tga_jax.alignment.guide import RunningMean
from tga_jax.errors import UserError
from tga_jax.training import checkpoints as checkpoints_module
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.metrics import MetricsLog, clock
from tga_jax.training.optimizer import OptimizerConfig, make_optimizer
from tga_jax.training.state import abstract_state
from tga_jax.training.step import TrainState

DATA = {"position": 17, "seed": 3}


def _state(*, running: bool = True, width: int = 6) -> TrainState:
    rng = np.random.default_rng(0)
    trained = {
        "decoder/blocks/q/kernel": jnp.asarray(rng.normal(size=(2, width, 4)), jnp.float32),
        "projector/linear_1/bias": jnp.asarray(rng.normal(size=4), jnp.float32),
    }
    frozen = {"vision/class_token": jnp.asarray(rng.normal(size=5), jnp.bfloat16)}
    optimizer = make_optimizer(OptimizerConfig(0.1, 10), dict.fromkeys(trained, 1.0))
    opt_state = optimizer.update(trained, optimizer.init(trained), trained)[1]
    mean = RunningMean.empty(2, 4).update(jnp.ones((2, 4)), jnp.int32(3), 0.9)
    return TrainState(jnp.int32(4), trained, frozen, opt_state, mean if running else None)


def _assert_same(a: TrainState, b: TrainState) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


FULL = """
import sys, time
from pathlib import Path
from tests.training.test_checkpoints import DATA, _state
from tga_jax.errors import disk_problem
from tga_jax.training.checkpoints import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, _state(), DATA)
checkpoints.wait()
checkpoints.save(2, _state(width=100_000), DATA)
try:
    checkpoints.close()
except Exception as error:
    time.sleep(1)  # writes that are still under way
    print(disk_problem(error))
"""


def test_a_full_disk_is_raised_and_nothing_is_printed(small_disk: Path) -> None:
    """Orbax logs its traceback several times, each in another thread."""
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(small_disk / "c")], capture_output=True, text=True
    )
    assert ended.stdout == "the disk is full; make room or use another --workdir\n"
    assert ended.stderr == ""
    kept = Checkpoints(small_disk / "c")
    assert kept.latest_step() == 1
    kept.close()


@pytest.mark.parametrize("running", [True, False])
def test_restored_state_is_bit_identical(tmp_path: Path, running: bool) -> None:
    state, checkpoints = _state(running=running), Checkpoints(tmp_path / "c")
    assert checkpoints.latest_step() is None
    kept = jax.tree.map(np.array, state)
    checkpoints.save(4, state, DATA)
    # The next step donates the state while the save still runs in the background.
    jax.jit(lambda s: jax.tree.map(lambda x: x * 0 + 1, s), donate_argnums=0)(state)
    checkpoints.close()
    again = Checkpoints(tmp_path / "c")
    assert again.latest_step() == 4
    restored = again.restore(4, abstract_state(_state(running=running)))
    again.close()
    _assert_same(restored.state, kept)
    assert restored.data == DATA


def test_parameters_alone_in_another_dtype(tmp_path: Path) -> None:
    state, checkpoints = _state(), Checkpoints(tmp_path / "c")
    checkpoints.save(4, state, DATA)
    checkpoints.wait()
    leaves = {
        path: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding)
        for path, x in state.flat_params.items()
    }
    params = checkpoints.restore_params(4, leaves)
    checkpoints.close()
    assert set(params) == set(state.flat_params)
    for path, x in state.flat_params.items():
        assert params[path].dtype == jnp.bfloat16
        np.testing.assert_array_equal(params[path], x.astype(jnp.bfloat16))


def test_another_models_checkpoint_is_the_users_mistake(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(4, _state(), DATA)
    checkpoints.wait()
    for abstract in (_state(width=8), _state().replace(frozen={})):
        with pytest.raises(UserError, match="4 cannot be read"):
            checkpoints.restore(4, abstract_state(abstract))
    checkpoints.close()


def test_a_running_mean_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Versions that kept a mean for each prompt format saved [layers, 1, width]."""
    state, checkpoints = _state(), Checkpoints(tmp_path / "c")
    older = RunningMean(state.running.total[:, None], state.running.weight[None])
    checkpoints.save(4, state.replace(running=older), DATA)
    checkpoints.wait()
    with pytest.raises(UserError, match="4 cannot be read.*another model or an older version"):
        checkpoints.restore(4, abstract_state(state))
    checkpoints.close()


@pytest.mark.parametrize("item", ["params", "rest", "data"])
@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_damaged_checkpoint_is_named(tmp_path: Path, item: str, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(4, _state(), DATA)
    checkpoints.close()
    for path in (tmp_path / "c" / "4" / item).rglob("*"):
        if path.is_file() and damage == "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif path.is_file():
            path.unlink()
    again = Checkpoints(tmp_path / "c")
    with pytest.raises(UserError) as error:
        again.restore(4, abstract_state(_state()))
    again.close()
    assert str(tmp_path / "c" / "4") in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_that_shows_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module.hosts, "several", lambda: True)
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(4, _state(), DATA)
    checkpoints.wait()
    hidden = (tmp_path / "c/4").rename(tmp_path / "4")
    threading.Timer(0.3, lambda: hidden.rename(tmp_path / "c/4")).start()
    assert checkpoints.restore(4, abstract_state(_state())).data == DATA
    checkpoints.close()


def test_a_checkpoint_that_never_shows_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module, "VISIBLE_SECONDS", 0.1)
    checkpoints = Checkpoints(tmp_path / "finetune" / "checkpoints")
    with pytest.raises(UserError, match="/7 is not there, though .*finetune/done.json names it"):
        checkpoints.restore(7, abstract_state(_state()))
    monkeypatch.setattr(checkpoints_module.hosts, "several", lambda: True)
    with pytest.raises(UserError, match="/7 is not there for process 0: is --workdir one folder"):
        checkpoints.restore(7, abstract_state(_state()))
    checkpoints.close()


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, _state(), DATA)
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.is_dir()) == ["2", "3"]


# --- metrics.jsonl ---


def test_lines_past_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, resume_step=0)
    for step in range(1, 6):
        log.write(
            step, {"loss": step / 2, "guide_pair": math.nan, "mfu": None, "grad_norm": math.inf}
        )
    log.close()
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    log = MetricsLog(tmp_path, resume_step=3)
    log.write(4, {"loss": 9.0})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0] == {"step": 1, "loss": 0.5, "guide_pair": None, "mfu": None, "grad_norm": None}
    assert lines[3] == {"step": 4, "loss": 9.0}
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()


def test_a_metric_that_is_not_declared_is_refused(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, resume_step=0)
    with pytest.raises(KeyError, match="lossy"):
        log.write(1, {"loss": 1.0, "lossy": 2.0})
    log.close()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
