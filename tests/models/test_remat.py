"""What is kept for the backward pass changes memory and time, not gradients."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tga_jax.models.layers import REMAT_POLICIES
from tga_jax.training.passes import forward


@functools.cache
def _gradients(remat: str) -> Any:
    batch = tiny.batch(("full", "no_caption"))

    def loss(params: Any) -> jax.Array:
        model = tiny.model(remat=remat)
        return jnp.mean(forward(model, params, batch, guided=False, ce_chunk=0).nll)

    return jax.jit(jax.grad(loss))(tiny.params())


@pytest.mark.parametrize("remat", [name for name in REMAT_POLICIES if name != "none"])
def test_gradients_do_not_depend_on_the_policy(remat: str) -> None:
    for (path, a), b in zip(
        jax.tree.leaves_with_path(_gradients(remat)),
        jax.tree.leaves(_gradients("none")),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6 + 1e-5 * np.abs(b).max(), err_msg=str(path))
