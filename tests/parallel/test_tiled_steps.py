"""Images in tiles train alike on one device and on several.

Runs inside `tests/parallel/test_eight_devices.py`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from tests import tiny
from tests.parallel.mesh_steps import on_mesh, start
from tga_jax.alignment.guide import GuideConfig
from tga_jax.models.config import Compute, Tiling
from tga_jax.models.llava import Llava
from tga_jax.parallel.sharding import batch_sharding
from tga_jax.planning.synthetic import BatchShape, made_up_batch
from tga_jax.training.objective import Objective
from tga_jax.training.step import jit_step

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
PINPOINTS = ((16, 32), (32, 16), (32, 32), (48, 48))
SHAPE = BatchShape(batch_size=16, accumulate=1, length=96, caption_length=8, packing=2)


def _model(most: int | None) -> Llava:
    config = dataclasses.replace(tiny.CONFIG, tiling=Tiling(PINPOINTS, most))
    return Llava(config, tiny.NORM, Compute(remat="full"))


@functools.cache
def _run(most: int | None, data: int, fsdp: int, tensor: int) -> list[dict[str, float]]:
    """The metrics of two steps on packed rows, each sample with an image."""
    model = _model(most)
    objective = Objective(GuideConfig("paper", (0, 2), center="batch"), ce_chunk=8)
    with on_mesh(data, fsdp, tensor) as mesh:
        state, step = start(model, mesh, objective)
        compiled, found = jit_step(step, state), []
        for seed in range(2):
            rows = made_up_batch(SHAPE, model.config, seed=seed)
            state, values = compiled(state, jax.device_put(rows, batch_sharding(mesh, leading=1)))
            found.append({name: float(value) for name, value in values.items()})
    return found


@pytest.mark.parametrize("most", [None, 4], ids=["next", "onevision"])
def test_losses_equal_those_of_one_device(most: Any) -> None:
    """OneVision's grids of nine tiles are merged to about four."""
    one, many = _run(most, 1, 1, 1), _run(most, 1, 4, 2)
    for first, second in zip(one, many, strict=True):
        for name in first:
            np.testing.assert_allclose(second[name], first[name], rtol=5e-5, atol=1e-6)
    assert one[0]["guide_pair"] != one[1]["guide_pair"]
