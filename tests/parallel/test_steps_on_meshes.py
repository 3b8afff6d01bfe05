"""The same training on one device and on meshes of eight.

Runs inside `tests/parallel/test_eight_devices.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

from tests import tiny
from tests.parallel import mesh_steps

FAST = {"fsdp_tensor": (1, 4, 2), "all": (2, 2, 2)}
SLOW = {"data": (8, 1, 1), "fsdp": (1, 8, 1)}
MESHES = FAST | SLOW
# Relative; the cosines, sums of numbers of both signs, are held to 1e-6 as well.
TOLERANCE = 5e-5

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")


@functools.cache
def _run(sizes: tuple[int, int, int]) -> dict[str, Any]:
    return mesh_steps.run(*sizes)


def _one() -> dict[str, Any]:
    return _run((1, 1, 1))


@pytest.fixture(params=[*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def run(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What three steps left on a mesh."""
    sizes = MESHES[request.param]
    return _run(sizes) | {"sizes": sizes}


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
        kernel: (tiny.LAYERS, width // fsdp, width // tensor),
        "decoder/embed": (tiny.VOCAB // tensor, width // fsdp),
        "projector/linear_1/kernel": (width // fsdp, width // tensor),
    }
    for what in ("pieces", "moments", "second"):
        assert run[what] == wanted, what
    assert run["specs"][kernel] == [None, "fsdp", "tensor"]


def test_what_blocks_keep_is_cut_over_batch_and_sequence(run: dict[str, Any]) -> None:
    data, fsdp, tensor = run["sizes"]
    assert (8 // (data * fsdp), tiny.LENGTH // tensor) in run["saved"]
    assert (8, tiny.LENGTH) in _one()["saved"] and (8, tiny.LENGTH) not in run["saved"]
