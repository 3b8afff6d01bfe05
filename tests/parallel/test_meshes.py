"""Mesh sizes, shardings of parameters, and how host batches become device batches."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tga_jax.errors import UserError
from tga_jax.parallel.mesh import make_mesh, resolve_sizes
from tga_jax.parallel.sharding import batch_sharding, local_rows, param_shardings
from tga_jax.training.feed import DeviceBatches, _place

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


def test_the_sizes_that_do_not_fit_are_told_with_what_they_come_to() -> None:
    with pytest.raises(UserError, match=r"fsdp=2, .* multiply to 2, and there are 8 devices; set"):
        resolve_sizes((1, 2, 1), 8)
    with pytest.raises(UserError, match="does not divide 8 devices"):
        resolve_sizes((3, -1, 1), 8)


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
