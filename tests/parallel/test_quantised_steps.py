"""Adapters over kernels in few bits train alike on one device and on several.

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
from tga_jax.models.config import Compute, LoraConfig
from tga_jax.models.llava import Llava
from tga_jax.models.quantised import is_quantised
from tga_jax.parallel.sharding import batch_sharding
from tga_jax.training.objective import Objective
from tga_jax.training.step import jit_step

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")


def _model(kind: str) -> Llava:
    """Matrices of two blocks of 64 and more."""
    decoder = dataclasses.replace(
        tiny.CONFIG.decoder, width=128, heads=4, kv_heads=2, head_dim=32, ffn=256,
        quantize=kind, lora=LoraConfig(4, 8.0),
    )  # fmt: skip
    config = dataclasses.replace(tiny.CONFIG, decoder=decoder)
    return Llava(config, tiny.NORM, Compute(remat="full"))


@functools.cache
def _run(kind: str, data: int, fsdp: int, tensor: int) -> dict[str, Any]:
    """The metrics of three steps, and the frozen parameters before and after."""
    objective = Objective(GuideConfig("none", ()), ce_chunk=8)
    with on_mesh(data, fsdp, tensor) as mesh:
        state, step = start(_model(kind), mesh, objective)
        frozen = {path: np.asarray(x) for path, x in state.frozen.items()}
        compiled, metrics = jit_step(step, state), []
        for i in range(3):
            rows = tiny.micro_batches(tiny.batch(("full", "text", "full", "tox"), seed=i), 1)
            batch = jax.device_put(rows, batch_sharding(mesh, leading=1))
            state, values = compiled(state, batch)
            metrics.append({k: float(v) for k, v in values.items()})
    return {"metrics": metrics, "before": frozen, "after": state.frozen, "trained": state.trained}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("nf4", (1, 2, 1)),
        pytest.param("nf4", (1, 1, 2), marks=pytest.mark.slow),
        pytest.param("int8", (1, 2, 2), marks=pytest.mark.slow),
    ],
)
def test_steps_are_those_of_one_device(kind: str, sizes: tuple[int, int, int]) -> None:
    one, many = _run(kind, 1, 1, 1), _run(kind, *sizes)
    for wanted, got in zip(one["metrics"], many["metrics"], strict=True):
        for key, value in wanted.items():
            np.testing.assert_allclose(got[key], value, rtol=5e-5, atol=1e-6, err_msg=key)
    adapters = [np.asarray(x) for path, x in one["trained"].items() if path.endswith("lora_b")]
    assert len(adapters) == 7 and all(np.abs(x).max() > 0.01 for x in adapters)  # from 0
    for path, before in many["before"].items():
        np.testing.assert_array_equal(many["after"][path], before, err_msg=path)
    assert sum(map(is_quantised, many["before"])) == 14
    assert all("/lora_" in p or p.startswith("projector/") for p in many["trained"])
