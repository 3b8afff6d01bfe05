"""Random parameters of some parts alone."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import linen as nn

from tests import tiny


@pytest.mark.parametrize("part", ["vision", "projector", "decoder"])
def test_a_part_alone_has_the_parameters_that_it_has_beside_the_others(part: str) -> None:
    model, key = tiny.model(), jax.random.key(3)
    whole = nn.meta.unbox(jax.jit(model.init)(key))
    alone = nn.meta.unbox(jax.jit(lambda k: model.init(k, (part,)))(key))
    assert set(whole) == {"vision", "projector", "decoder"} and set(alone) == {part}
    jax.tree.map(np.testing.assert_array_equal, alone[part], whole[part])
