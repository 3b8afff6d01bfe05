"""Training steps on a mesh, and how their state lies on it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from tests import tiny
from tga_jax.alignment.guide import GuideConfig
from tga_jax.config import base_config
from tga_jax.models.llava import Llava
from tga_jax.parallel.mesh import make_mesh
from tga_jax.parallel.sharding import RULES, batch_sharding
from tga_jax.run.stage import stage_factors
from tga_jax.training.objective import Objective
from tga_jax.training.optimizer import OptimizerConfig, make_optimizer, schedule
from tga_jax.training.state import new_state, param_leaves, random_params
from tga_jax.training.step import TrainState, jit_step, make_train_step

KINDS = ("full", "no_retrieved", "text", "full", "full", "no_caption", "full", "tox")
WATCHED = ("decoder/blocks/q/kernel", "decoder/embed", "projector/linear_1/kernel")
TRAINABLE = (("vision/.*", None), (".*", 1.0))


@contextlib.contextmanager
def on_mesh(data: int, fsdp: int, tensor: int) -> Iterator[Mesh]:
    """A mesh of the first devices, set."""
    devices = jax.devices()[: math.prod((data, fsdp, tensor))]
    mesh = make_mesh(data=data, fsdp=fsdp, tensor=tensor, devices=devices)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield mesh


def start(
    model: Llava,
    mesh: Mesh,
    objective: Objective,
    params: Mapping[str, np.ndarray] | None = None,
) -> tuple[TrainState, Callable[..., Any]]:
    """The state before the first of eight steps, and the step; without `params` random ones."""
    config = base_config()
    config.finetune.trainable = TRAINABLE
    factors = stage_factors(model, config, "finetune")
    leaves = param_leaves(model, mesh, dtype="float32", factors=factors)
    settings = OptimizerConfig(0.02, 8, warmup_fraction=0, eps=1e-2)
    optimizer = make_optimizer(settings, {p: f for p, f in factors.items() if f is not None})
    state = new_state(
        random_params(model, leaves, seed=0)
        if params is None
        else {p: jax.device_put(x, leaves[p].sharding) for p, x in params.items()},
        factors=factors,
        optimizer=optimizer,
        objective=objective,
        width=model.config.decoder.width,
        mesh=mesh,
    )
    rate = schedule(settings)
    return state, make_train_step(model, objective, optimizer, learning_rate=rate, steps=8)


def run(data: int, fsdp: int, tensor: int) -> dict[str, Any]:
    """Losses, and how parameters, moments and activations lie on a mesh of the first devices."""
    objective = Objective(GuideConfig("paper", (0, 1), center="batch"), ce_chunk=8)
    with on_mesh(data, fsdp, tensor) as mesh:
        state, step = start(tiny.model(remat="full"), mesh, objective, tiny.flat_params())
        compiled, metrics = None, []
        for i in range(3):
            rows = tiny.micro_batches(tiny.batch(KINDS, seed=i), 1)
            batch = jax.device_put(rows, batch_sharding(mesh, leading=1))
            if compiled is None:
                compiled = jit_step(step, state).lower(state, batch).compile()
            state, values = compiled(state, batch)
            metrics.append({k: float(v) for k, v in values.items()})
    moments = state.opt_state[1]
    kept = rf"f32\[{tiny.LAYERS},(\d+),(\d+),{tiny.WIDTH}\]"
    return {
        "metrics": metrics,
        "specs": {p: list(state.trained[p].sharding.spec) for p in WATCHED},
        "pieces": {p: state.trained[p].addressable_shards[0].data.shape for p in WATCHED},
        "moments": {p: moments.mu[p].addressable_shards[0].data.shape for p in WATCHED},
        "second": {p: moments.nu[p].addressable_shards[0].data.shape for p in WATCHED},
        # What the backward pass keeps of every block: rows and places of a device.
        "saved": sorted({(int(b), int(t)) for b, t in re.findall(kept, compiled.as_text())}),
    }
