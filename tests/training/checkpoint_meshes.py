"""Save a state on one mesh, or restore it on others: for test_checkpoint_meshes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from tests import tiny
from tga_jax.alignment.guide import GuideConfig
from tga_jax.parallel.mesh import make_mesh
from tga_jax.parallel.sharding import RULES
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.freezing import learning_rate_factors
from tga_jax.training.objective import Objective
from tga_jax.training.optimizer import OptimizerConfig, make_optimizer
from tga_jax.training.state import abstract_state, new_state, param_leaves
from tga_jax.training.step import TrainState

STEP, DATA = 7, {"position": 7}


def filled_state(sizes: tuple[int, int, int]) -> TrainState:
    """A state on that mesh whose every leaf is known: drawn from a seed by its place."""
    devices = jax.devices()[: math.prod(sizes)]
    mesh = make_mesh(data=sizes[0], fsdp=sizes[1], tensor=sizes[2], devices=devices)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        factors = learning_rate_factors(tiny.flat_params(), (("vision/.*", None), (".*", 1.0)))
        leaves = param_leaves(tiny.model(), mesh, dtype="bfloat16", factors=factors)
        params = {
            p: jax.device_put(x.astype(leaves[p].dtype), leaves[p].sharding)
            for p, x in tiny.flat_params().items()
        }
        state = new_state(
            params,
            factors=factors,
            optimizer=make_optimizer(
                OptimizerConfig(0.1, 8), {p: 1.0 for p, f in factors.items() if f is not None}
            ),
            objective=Objective(GuideConfig("paper", (0, 2), center="running")),
            width=tiny.WIDTH,
            mesh=mesh,
        )
    numbers = iter(range(len(jax.tree.leaves(state))))
    return jax.tree.map(lambda x: _filled(x, next(numbers)), state)


def _filled(leaf: jax.Array, number: int) -> jax.Array:
    values = np.random.default_rng(number).normal(0, 9, leaf.shape).astype(leaf.dtype)
    return jax.device_put(values, leaf.sharding)


def save(folder: Path, sizes: tuple[int, int, int]) -> None:
    """Write a checkpoint."""
    checkpoints = Checkpoints(folder)
    checkpoints.save(STEP, filled_state(sizes), DATA)
    checkpoints.close()


def restore(folder: Path, sizes: tuple[int, int, int]) -> int:
    """Check that every leaf has its values and this mesh's sharding; how many leaves."""
    wanted, checkpoints = filled_state(sizes), Checkpoints(folder)
    found = checkpoints.restore(STEP, abstract_state(wanted))
    checkpoints.close()
    assert found.data == DATA
    compared: list[Any] = []
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found.state), jax.tree.leaves(wanted), strict=True
    ):
        assert a.dtype == b.dtype and a.sharding == b.sharding, path
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=str(path))
        compared.append(path)
    return len(compared)
