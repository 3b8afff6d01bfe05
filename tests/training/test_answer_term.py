"""The answer term against single-row passes that pick their states by hand, and finite
differences."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.alignment import guide_oracle
from tga_jax.alignment.guide import GuideConfig
from tga_jax.training.objective import (
    Objective,
    count_terms,
    loss_metrics,
    loss_sums,
    total_loss,
)

KINDS = ("full", "no_retrieved", "no_caption", "text", "full")
HAS = [0, 1, 4]
LAYERS = (1, 2)


def _rows() -> dict[str, np.ndarray]:
    return tiny.batch(KINDS, seed=3)


def _objective(center: str = "none", weight: float = 0.5) -> Objective:
    cfg = GuideConfig(
        "paper", (0,), center=center, pair_weight=0.0, hinge_weight=0.0,
        answer_weight=weight, answer_layers=LAYERS,
    )  # fmt: skip
    return Objective(cfg)


@functools.partial(jax.jit, static_argnames="objective")
def _loss(params: Any, rows: Any, objective: Objective) -> Any:
    model, zero = tiny.model(), jnp.float32(0)
    sums = loss_sums(model, params, rows, objective=objective, progress=zero, running=None)
    counts = count_terms({k: v[None] for k, v in rows.items()}, objective, None)
    metrics = loss_metrics(sums, counts, objective.guide)
    return total_loss(sums, counts, objective.guide), metrics


def _states(rows: dict[str, np.ndarray], i: int, *, caption: bool) -> np.ndarray:
    """[layers, D] at the last token before the answer, of a pass of these tokens alone."""
    model, params = tiny.model(), tiny.params()
    if caption:
        tokens = rows["caption_tokens"][i][None, : rows["caption_segments"][i].sum()]
        images = None
    else:
        tokens = rows["tokens"][i][None, : np.argmax(rows["labels"][i] != -100)]
        images = rows["images"][i][None]
    places = np.arange(tokens.shape[1])[None]
    out = model.decode(
        params,
        model.embed(params, tokens, images),
        positions=places,
        segments=np.ones_like(places),
        pool=(places == places.max())[:, None],
    )
    assert out.pooled is not None
    return np.asarray(out.pooled[:, 0, 0])


@pytest.mark.parametrize("center", [pytest.param("none", marks=pytest.mark.slow), "batch"])
def test_term_is_the_cosine_where_the_answer_begins(center: str) -> None:
    rows = _rows()
    image = {i: _states(rows, i, caption=False)[list(LAYERS)] for i in HAS}
    caption = {i: _states(rows, i, caption=True)[list(LAYERS)] for i in HAS}
    if center == "batch":
        mean = np.mean([caption[i] for i in HAS], axis=0)
        for i in HAS:
            image[i], caption[i] = image[i] - mean, caption[i] - mean
    expected = [guide_oracle.answer(image[i], caption[i]) for i in HAS]
    loss, metrics = _loss(tiny.params(), rows, _objective(center))
    np.testing.assert_allclose(metrics["guide_answer"], np.mean(expected), rtol=2e-4)
    np.testing.assert_allclose(loss, metrics["lm_loss"] + 0.5 * np.mean(expected), rtol=2e-4)


def test_without_weight_there_is_no_term_and_no_need_of_its_spans() -> None:
    rows = {k: v for k, v in _rows().items() if "answer" not in k}
    loss, metrics = _loss(tiny.params(), rows, _objective(weight=0.0))
    assert loss == metrics["lm_loss"] and np.isnan(metrics["guide_answer"])


def test_gradient_reaches_the_projector_as_finite_differences_say() -> None:
    with jax.enable_x64(True):
        rows, objective = _rows(), _objective()
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tiny.params())
        place = params["projector"]["linear_2"]["kernel"]
        direction = np.random.default_rng(0).normal(size=place.shape)

        def along(step: Any) -> Any:
            moved = {
                "linear_2": params["projector"]["linear_2"] | {"kernel": place + step * direction}
            }
            tree = params | {"projector": params["projector"] | moved}
            (loss, metrics) = _loss(tree, rows, objective)
            return metrics["guide_answer"]

        slope = float(jax.grad(along)(0.0))
        by_hand = (float(along(1e-3)) - float(along(-1e-3))) / 2e-3
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(slope, by_hand, rtol=2e-2)
