"""Localisation against planted layers and plain loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tga_jax.analysis import logit_lens as safety_layers
from tga_jax.errors import UserError

APOLOGIES = (3, 7)


def log_probs(layers: int = 5, samples: int = 6, vocab: int = 11) -> np.ndarray:
    logits = np.random.default_rng(0).normal(size=(layers + 1, samples, vocab))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def read(lens: np.ndarray, weights: np.ndarray | None = None) -> safety_layers.Lens:
    """States that are log-probabilities already."""
    weights = np.zeros(lens.shape[1], np.float32) if weights is None else weights
    states = jnp.asarray(lens, jnp.float32)
    return safety_layers.logit_lens(states, lambda x: x, apologies=APOLOGIES, weights=weights)


def test_first_layer_is_that_of_a_plain_loop() -> None:
    lens = log_probs()
    expected = []
    for sample in range(lens.shape[1]):
        layers = [
            j
            for j in range(1, len(lens))
            if np.argmax(lens[j, sample] - lens[j - 1, sample]) in APOLOGIES
        ]
        expected.append(layers[0] if layers else -1)
    assert -1 in expected and len(set(expected)) > 2
    turns = read(lens).turns
    np.testing.assert_array_equal(safety_layers.first_safety_layer(turns), expected)


def test_lens_is_that_of_numpy() -> None:
    lens, weights = log_probs(), np.array([1, 0, 1, 1, 0, 1], np.float32)
    found = read(lens, weights)
    ratios = lens[1:] - lens[:-1]
    leads = np.isin(lens[1:].argmax(-1), APOLOGIES)
    assert leads.any() and not leads.all()
    np.testing.assert_array_equal(found.leads, leads)
    np.testing.assert_array_equal(found.turns, np.isin(ratios.argmax(-1), APOLOGIES))
    np.testing.assert_allclose(found.ratio_sum, ratios[:, weights > 0].sum(1), atol=1e-5)
    family = np.log(np.exp(lens[1:])[..., list(APOLOGIES)].sum(-1))
    np.testing.assert_allclose(found.apology_log_prob, family, rtol=1e-5)


def test_no_array_of_all_layers_samples_and_words_is_made() -> None:
    layers, samples, vocab, width = 4, 8, 512, 4
    head = np.ones((width, vocab), np.float32)
    states = np.ones((layers + 1, samples, width), np.float32)
    traced = jax.make_jaxpr(
        lambda s: safety_layers.logit_lens(
            s, lambda x: x @ head, apologies=APOLOGIES, weights=jnp.ones(samples)
        )
    )(states)
    sizes = {v.aval.size for eqn in walk(traced.jaxpr) for v in eqn.outvars}
    assert samples * vocab in sizes
    assert max(sizes) < layers * samples * vocab


def walk(jaxpr: Any) -> Iterator[Any]:
    """All equations, those inside of others too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from walk(inner)


def test_family_probability_is_the_sum_over_its_tokens() -> None:
    lens = log_probs()
    expected = np.log(np.exp(lens)[..., list(APOLOGIES)].sum(-1))
    np.testing.assert_allclose(safety_layers.family_log_prob(lens, APOLOGIES), expected, rtol=1e-5)


def test_projection_of_the_two_means_is_zero_and_one() -> None:
    rng = np.random.default_rng(1)
    refused, answered = rng.normal(size=(2, 4, 20, 8))
    means = refused.mean(1), answered.mean(1)
    found = safety_layers.refusal_direction(*means)
    unit = (means[0] - means[1]) / np.linalg.norm(means[0] - means[1], axis=-1, keepdims=True)
    np.testing.assert_allclose(found[0], unit, rtol=1e-4, atol=1e-5)
    for states, value in ((refused, 1.0), (answered, 0.0)):
        projected = safety_layers.scaled_projection(jnp.array(states), *found)
        np.testing.assert_allclose(projected.mean(1), value, atol=1e-4)


def test_a_layer_without_a_direction_projects_to_nan() -> None:
    same = np.ones((2, 3), np.float32)
    found = safety_layers.refusal_direction(jnp.array(same), jnp.array(same))
    assert np.isnan(safety_layers.scaled_projection(same[:, None], *found)).all()


@pytest.mark.parametrize(
    ("share", "layers"),
    [((0, 0, 0.1, 0.6, 1), "2-4"), ((0, 0.5, 1, 1, 1), "2"), ((0, 0, 0.1, 0.4, 0.2), "2-4")],
)
def test_planted_layers_are_located(share: tuple[float, ...], layers: str) -> None:
    ratios = np.zeros((5, 11))
    ratios[:, 1], ratios[1, 7], ratios[3, 3] = 1, 2, 2
    assert safety_layers.locate(ratios, np.array(share), APOLOGIES) == layers


@pytest.mark.parametrize("planted", [False, True])
def test_a_model_that_refuses_nothing_has_none(planted: bool) -> None:
    ratios = np.zeros((5, 11))
    ratios[:, 1], ratios[1, 7] = 1, 2 * planted
    with pytest.raises(
        UserError, match="comes first for none" if planted else "at no layer is an apology token"
    ):
        safety_layers.locate(ratios, np.zeros(5), APOLOGIES)
