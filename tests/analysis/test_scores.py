"""A sample's guide loss as job `score` gives it, against the objective that training minimises."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tga_jax.alignment.guide import GuideConfig
from tga_jax.analysis.scores import caption_sums, score_batch
from tga_jax.training.objective import Objective, loss_sums

KINDS = ("full", "no_retrieved", "no_caption", "text", "full")


@pytest.mark.parametrize(("center", "answer"), [("none", 0.0), ("none", 0.5), ("batch", 0.5)])
def test_guide_losses_add_up_to_the_objectives(center: str, answer: float) -> None:
    cfg = GuideConfig(
        "paper", (0, 2), center=center, pair_weight=0.7, hinge_weight=1.3, answer_weight=answer,
        answer_layers=(1,),
    )  # fmt: skip
    rows, params, model = tiny.batch(KINDS, seed=3), tiny.params(), tiny.model()
    means = jnp.zeros((1 + cfg.answers, tiny.LAYERS, tiny.WIDTH))
    if center == "batch":
        total, count = jax.jit(lambda p, b: caption_sums(model, p, b, answers=cfg.answers))(
            params, rows | {"valid": np.ones(len(KINDS), bool)}
        )
        assert count.tolist() == [3] * (1 + cfg.answers)
        means = total / count[:, None, None]
    found = jax.jit(lambda p, b, m: score_batch(model, p, b, m, cfg))(params, rows, means)
    has = np.asarray(found["has_pair"])
    sums = jax.jit(
        lambda p, b: loss_sums(
            model, p, b, objective=Objective(cfg), progress=jnp.float32(0), running=None
        )
    )(params, rows)
    weights = {"guide_pair": 0.7, "guide_hinge": 1.3, "guide_answer": answer}
    expected = sum(float(w * sums.terms[name].total) for name, w in weights.items())
    np.testing.assert_allclose(np.asarray(found["guide"])[has].sum(), expected, rtol=1e-4)
