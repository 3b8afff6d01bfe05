"""The same training on one device and on meshes of eight (host) devices; meshes and shardings."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tga_jax.errors import UserError
from tga_jax.parallel.mesh import make_mesh, resolve_sizes
from tga_jax.parallel.sharding import batch_sharding, param_shardings
from tga_jax.training.feed import DeviceBatches, _place, local_rows

FAST = {"fsdp_tensor": (1, 4, 2), "all": (2, 2, 2)}
SLOW = {"data": (8, 1, 1), "fsdp": (1, 8, 1)}
MESHES = FAST | SLOW
# Compiling takes nearly all the time of these runs.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# Relative; the cosines, sums of numbers of both signs, are held to 1e-6 as well.
TOLERANCE = 5e-5


def _run(devices: int, meshes: dict[str, tuple[int, int, int]]) -> dict[str, Any]:
    options = {"center": "batch", "accumulate": 1}
    environment = os.environ | {
        "XLA_FLAGS": f"{XLA_FLAGS} --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.parallel.mesh_steps",
            json.dumps({name: (sizes, options) for name, sizes in meshes.items()}),
        ],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def _one() -> dict[str, Any]:
    return _run(1, {"one": (1, 1, 1)})["one"]


@functools.cache
def _runs(fast: bool) -> dict[str, Any]:
    return _run(8, FAST if fast else SLOW)


@pytest.fixture(params=[*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def run(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What three steps left on a mesh."""
    name = request.param
    return _runs(name in FAST)[name] | {"sizes": MESHES[name]}


def test_losses_equal_those_of_one_device(run: dict[str, Any]) -> None:
    for one, many in zip(_one()["metrics"], run["metrics"], strict=True):
        for key in one:
            np.testing.assert_allclose(many[key], one[key], rtol=TOLERANCE, atol=1e-6, err_msg=key)
    first, last = _one()["metrics"][0], _one()["metrics"][-1]
    assert abs(last["loss"] - first["loss"]) > 100 * TOLERANCE  # the steps did something


def test_parameters_and_moments_are_cut(run: dict[str, Any]) -> None:
    _, fsdp, tensor = run["sizes"]
    width, kernel = tiny.WIDTH, "decoder/blocks/q/kernel"
    wanted = {
        kernel: [tiny.LAYERS, width // fsdp, width // tensor],
        "decoder/embed": [tiny.VOCAB // tensor, width // fsdp],
        "projector/linear_1/kernel": [width // fsdp, width // tensor],
    }
    for what in ("pieces", "moments", "second"):
        assert run[what] == wanted, what
    assert run["specs"][kernel] == [None, "fsdp", "tensor"]


def test_what_blocks_keep_is_cut_over_batch_and_sequence(run: dict[str, Any]) -> None:
    data, fsdp, tensor = run["sizes"]
    assert [8 // (data * fsdp), tiny.LENGTH // tensor] in run["saved"]
    assert [8, tiny.LENGTH] in _one()["saved"] and [8, tiny.LENGTH] not in run["saved"]


# --- mesh sizes ---


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((8, 1, 1), (8, 1, 1)),
        ((-1, 2, 2), (2, 2, 2)),
        ((1, -1, 1), (1, 8, 1)),
        ((2, 4, -1), (2, 4, 1)),
    ],
)
def test_sizes(sizes: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    assert resolve_sizes(sizes, 8) == expected


@pytest.mark.parametrize(
    "sizes", [(2, 2, 1), (-1, -1, 1), (0, 8, 1), (-2, 1, 1), (3, -1, 1), (16, -1, 1), (16, 1, 1)]
)
def test_impossible_sizes_are_the_users_mistake(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UserError) as error:
        resolve_sizes(sizes, 8)
    assert "config.mesh.data" in str(error.value) and "\n" not in str(error.value)


# --- shardings of parameters ---


def _boxed(names: tuple, shape: tuple = (4, 4)) -> dict[str, Any]:
    return {"a": {"kernel": nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, "f4"), names)}}


def test_unknown_or_missing_axes_are_errors() -> None:
    mesh = make_mesh(data=-1, fsdp=1, tensor=1)
    with pytest.raises(ValueError, match="a/kernel.*'nonsense'"):
        param_shardings(_boxed(("embed", "nonsense")), mesh)
    with pytest.raises(ValueError, match="a/kernel has no logical axes"):
        param_shardings({"a": {"kernel": jax.ShapeDtypeStruct((4, 4), "f4")}}, mesh)
    assert set(param_shardings(_boxed((None, "embed")), mesh)) == {"a/kernel"}


def test_every_parameter_of_the_model_has_a_sharding() -> None:
    boxed = jax.eval_shape(tiny.model().init, jax.random.key(0))
    shardings = param_shardings(boxed, make_mesh(data=-1, fsdp=1, tensor=1))
    assert set(shardings) == set(tiny.flat_params())


# --- host batches -> device batches ---


class _Host:
    def __init__(self, rows: list[int] | None) -> None:
        self.arrays = tiny.micro_batches(tiny.batch(("full",) * 6), 2)
        self.ids, self.rows = ("a", "b"), rows


class _Loader:
    def __next__(self) -> _Host:
        return _Host([0, 1, 2])

    def get_state(self) -> dict[str, int]:
        return {"position": 3}


def test_batches_arrive_whole_on_one_process() -> None:
    mesh = make_mesh(data=-1, fsdp=1, tensor=1)
    batches, host = DeviceBatches(_Loader(), mesh), _Host(None)
    if mesh.size == 1:
        assert local_rows(mesh, 3) == [0, 1, 2]
    batch = next(batches)
    for name, value in host.arrays.items():
        np.testing.assert_array_equal(batch.arrays[name], value)
        assert batch.arrays[name].dtype == value.dtype
    assert batch.tokens == int((host.arrays["segments"] > 0).sum())
    assert batch.ids == ("a", "b") and batches.get_state() == {"position": 3}


def test_place_takes_only_the_rows_that_are_held() -> None:
    """A process that holds rows 4..7 of 8 is asked for these only."""
    mesh = make_mesh(data=-1, fsdp=1, tensor=1)
    value = np.arange(2 * 4).reshape(2, 4)
    asked: list[np.ndarray] = []

    def fake(shape: tuple, sharding: Any, piece: Any) -> jax.Array:
        assert shape == (2, 8)
        asked.extend(piece((slice(None), s)) for s in (slice(4, 6), slice(6, None)))
        return jnp.zeros(shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "make_array_from_callback", fake)
        _place(value, 8, batch_sharding(mesh, leading=1), [4, 5, 6, 7])
    np.testing.assert_array_equal(asked[0], value[:, :2])
    np.testing.assert_array_equal(asked[1], value[:, 2:])
