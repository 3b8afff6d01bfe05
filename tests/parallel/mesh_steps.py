"""Three training steps on a mesh, and how their state lies on it: for test_steps_on_meshes."""

from __future__ import annotations

import math
import re
from typing import Any

import flax.linen as nn
import jax

from tests import tiny
from tga_jax.alignment.guide import GuideConfig
from tga_jax.parallel.mesh import make_mesh
from tga_jax.parallel.sharding import RULES, batch_sharding
from tga_jax.training.freezing import learning_rate_factors
from tga_jax.training.objective import Objective
from tga_jax.training.optimizer import OptimizerConfig, make_optimizer, schedule
from tga_jax.training.state import new_state, param_leaves
from tga_jax.training.step import jit_step, make_train_step

KINDS = ("full", "no_retrieved", "text", "full", "full", "no_caption", "full", "tox")
WATCHED = ("decoder/blocks/q/kernel", "decoder/embed", "projector/linear_1/kernel")


def run(data: int, fsdp: int, tensor: int) -> dict[str, Any]:
    """Losses, and how parameters, moments and activations lie on a mesh of the first devices."""
    devices = jax.devices()[: math.prod((data, fsdp, tensor))]
    mesh = make_mesh(data=data, fsdp=fsdp, tensor=tensor, devices=devices)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        factors = learning_rate_factors(tiny.flat_params(), ((r"vision/.*", None), (r".*", 1.0)))
        leaves = param_leaves(tiny.model(), mesh, dtype="float32", factors=factors)
        params = {p: jax.device_put(x, leaves[p].sharding) for p, x in tiny.flat_params().items()}
        settings = OptimizerConfig(0.02, 8, warmup_fraction=0, eps=1e-2)
        trained = {p: f for p, f in factors.items() if f is not None}
        optimizer = make_optimizer(settings, trained)
        objective = Objective(GuideConfig("paper", (0, 2), center="batch"), ce_chunk=8)
        state = new_state(
            params,
            factors=factors,
            optimizer=optimizer,
            objective=objective,
            width=tiny.WIDTH,
            mesh=mesh,
        )
        step = make_train_step(
            tiny.model(remat="full"),
            objective,
            optimizer,
            learning_rate=schedule(settings),
            steps=8,
        )
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
