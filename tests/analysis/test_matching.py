"""Free embeddings: what is matched, that only this is changed, and the transport plan."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests import tiny
from tga_jax.analysis.matching import (
    Matching,
    Shown,
    caption_kinds,
    centred_means,
    match_embeddings,
    own_distance,
    start_embeddings,
    transported,
)

KINDS = ("full", "no_retrieved", "full")
MODEL = Shown(tiny.CONFIG, tiny.NORM)
KEYS = jax.random.split(jax.random.key(0), len(KINDS))


@functools.cache
def _rows() -> dict[str, np.ndarray]:
    return tiny.batch(KINDS, seed=3)


@functools.cache
def _center() -> Any:
    return jnp.mean(jax.jit(functools.partial(caption_kinds, MODEL))(tiny.params(), _rows()), 1)


def _matched(match: str, rows: Any = None, keys: Any = KEYS, **changes: Any) -> Any:
    cfg = Matching(
        match,
        layers=changes.pop("layers", (0, 1, 2)),
        tokens=tiny.PATCHES,
        steps=changes.pop("steps", 150),
        learning_rate=0.1,
        **changes,
    )
    run = jax.jit(functools.partial(match_embeddings, MODEL, cfg=cfg))
    return jax.device_get(run(tiny.params(), rows or _rows(), _center(), keys))


@pytest.mark.parametrize("match", ["mean-centred", "answer", "tokens"])
def test_states_become_alike(match: str) -> None:
    before, after = _matched(match, steps=1)[1], _matched(match)[1]
    assert after.shape == (tiny.LAYERS, len(KINDS))
    assert np.all(after.mean(0) > before.mean(0) + 0.1) and after.mean() > 0.8


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, -1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def test_the_cosines_are_those_of_the_decoders_states() -> None:
    rows = _rows()
    shown, cosines = _matched("mean", steps=5)
    out = tiny.model().decode(
        tiny.params(),
        jnp.where(
            (rows["tokens"] == tiny.IMAGE_TOKEN)[..., None],
            _placed(rows, shown),
            tiny.params()["decoder"]["embed"][rows["tokens"]],
        ),
        positions=rows["positions"],
        segments=rows["segments"],
        pool=(rows["tokens"] == tiny.IMAGE_TOKEN)[:, None],
    )
    image = np.asarray(out.pooled[:, :, 0])
    caption = np.asarray(caption_kinds(MODEL, tiny.params(), rows)[:, :, 0])
    np.testing.assert_allclose(cosines, _cosine(image, caption), atol=1e-4)
    mean = np.asarray(_center())[:, :1]
    centred = centred_means(MODEL, tiny.params(), rows, shown, _center())
    np.testing.assert_allclose(centred, _cosine(image - mean, caption - mean), atol=1e-4)


def _placed(rows: dict[str, np.ndarray], shown: np.ndarray) -> np.ndarray:
    """float32[B, T, D] with the embeddings where the image is."""
    out = np.zeros((*rows["tokens"].shape, tiny.WIDTH), np.float32)
    for b, (start, end) in enumerate(rows["image_span"]):
        out[b, start:end] = shown[b]
    return out


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    alone = _matched("mean", tiny.take(_rows(), slice(2, 3)), KEYS[2:], steps=10)[0]
    np.testing.assert_allclose(alone[0], _matched("mean", steps=10)[0][2], atol=2e-4)


def test_embeddings_are_held_near_the_models_own() -> None:
    table = tiny.params()["decoder"]["embed"]

    def distance(shown: np.ndarray) -> float:
        square = ((shown[:, :, None] - table) ** 2).sum(-1)
        return float(square.min(-1).mean())

    free, held = _matched("mean")[0], _matched("mean", near_weight=3.0)[0]
    assert distance(held) < 0.5 * distance(free)


def test_the_distance_is_to_the_nearest_own_embedding_in_units_of_their_variance() -> None:
    params, rng = tiny.params(), np.random.default_rng(0)
    table = np.asarray(params["decoder"]["embed"], np.float64)
    words, moved = rng.integers(len(table), size=(2, 5)), 0.01 * rng.normal(size=(2, 5, tiny.WIDTH))
    found = own_distance(params, jnp.array(table[words] + moved, jnp.float32))
    np.testing.assert_allclose(found, (moved**2).mean((1, 2)) / table.var(), rtol=1e-3)
    np.testing.assert_allclose(own_distance(params, jnp.array(table[words])), 0, atol=1e-6)


def test_the_start_has_the_spread_of_the_models_own() -> None:
    table = tiny.params()["decoder"]["embed"]
    start = np.asarray(start_embeddings(tiny.params(), KEYS, 500))
    np.testing.assert_allclose(start.std(axis=(0, 1)), table.std(), rtol=0.15)
    np.testing.assert_allclose(start.mean(axis=(0, 1)), table.mean(0), atol=0.05)


def test_transport_is_the_best_assignment_of_tokens() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(1, 2, 6, 40))
    states = target[:, :, [3, 0, 2, 1]] + 0.3 * rng.normal(size=(1, 2, 4, 40))
    target[:, :, 4:] = rng.normal(size=(1, 2, 2, 40)) * 100  # beyond the caption
    found = transported(jnp.array(states), jnp.array(target), jnp.array([4, 4]))
    for b in range(2):
        unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (states, target[:, :, :4])]
        cosine = unit[0][0, b] @ unit[1][0, b].T
        best = cosine[linear_sum_assignment(-cosine)].mean()
        np.testing.assert_allclose(found[0, b], best, atol=0.02)
