"""Chunked cross-entropy against optax, and the labels' shift."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from tga_jax.labels import IGNORE_INDEX
from tga_jax.training.cross_entropy import shift_labels, token_nll

BATCH, LENGTH, WIDTH, VOCAB = 3, 10, 8, 40


def _inputs(seed: int = 0, length: int = LENGTH) -> tuple[jax.Array, jax.Array, np.ndarray]:
    rng = np.random.default_rng(seed)
    hidden = rng.normal(0, 1, (BATCH, length, WIDTH)).astype(np.float32)
    head = rng.normal(0, 1, (WIDTH, VOCAB)).astype(np.float32)
    targets = rng.integers(0, VOCAB, (BATCH, length)).astype(np.int32)
    targets[rng.random(targets.shape) < 0.3] = IGNORE_INDEX
    targets[1] = IGNORE_INDEX  # a row without an answer
    return jnp.array(hidden), jnp.array(head), targets


def _reference(hidden: jax.Array, head: jax.Array, targets: np.ndarray) -> jax.Array:
    nll = optax.softmax_cross_entropy_with_integer_labels(
        hidden @ head, jnp.where(targets == IGNORE_INDEX, 0, targets)
    )
    return jnp.where(targets == IGNORE_INDEX, 0.0, nll)


@pytest.mark.parametrize("chunk", [0, 1, 3, 5, 10, 11])
def test_values_and_gradients_equal_optax(chunk: int) -> None:
    hidden, head, targets = _inputs()
    weights = jnp.asarray(np.random.default_rng(1).normal(size=targets.shape), jnp.float32)

    def ours(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, jax.Array]:
        nll = token_nll(hidden, head, targets, chunk=chunk)
        return jnp.sum(nll * weights), nll

    def theirs(hidden: jax.Array, head: jax.Array) -> tuple[jax.Array, jax.Array]:
        nll = _reference(hidden, head, targets)
        return jnp.sum(nll * weights), nll

    grads, nll = jax.grad(ours, (0, 1), has_aux=True)(hidden, head)
    expected_grads, expected = jax.grad(theirs, (0, 1), has_aux=True)(hidden, head)
    assert nll.shape == (BATCH, LENGTH) and nll.dtype == jnp.float32
    np.testing.assert_allclose(nll, expected, rtol=1e-5, atol=1e-5)
    for grad, wanted in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(nll[targets == IGNORE_INDEX], 0)
    np.testing.assert_array_equal(grads[0][targets == IGNORE_INDEX], 0)


def test_only_a_chunk_of_logits_exists_at_once() -> None:
    hidden, head, targets = _inputs()

    def largest(chunk: int) -> int:
        def loss(hidden: jax.Array, head: jax.Array) -> jax.Array:
            return jnp.sum(token_nll(hidden, head, targets, chunk=chunk))

        jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(hidden, head).jaxpr
        return max(s[-2] for s in _shapes(jaxpr) if s[-1:] == (VOCAB,) and len(s) == 3)

    assert largest(0) == LENGTH and largest(2) == 2


def _shapes(jaxpr):
    for eqn in jaxpr.eqns:
        yield from (v.aval.shape for v in eqn.outvars)
        for inner in jaxprs_in_params(eqn.params):
            yield from _shapes(inner)


def test_bfloat16_logits_and_losses_are_float32() -> None:
    hidden, head, targets = _inputs()
    hidden, head = hidden.astype(jnp.bfloat16), head.astype(jnp.bfloat16)
    nll = token_nll(hidden, head, targets, chunk=4)
    expected = _reference(hidden.astype(jnp.float32), head.astype(jnp.float32), targets)
    assert nll.dtype == jnp.float32
    np.testing.assert_allclose(nll, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_head_gradient_does_not_get_worse_with_the_number_of_chunks() -> None:
    length = 512
    hidden, head, targets = _inputs(3, length)
    low, low_head = hidden.astype(jnp.bfloat16), head.astype(jnp.bfloat16)

    def grad(chunk: int) -> np.ndarray:
        # As in training: a float32 master, and hidden states of the compute dtype.
        def loss(master: jax.Array) -> jax.Array:
            return jnp.sum(token_nll(low, master, targets, chunk=chunk))

        return np.asarray(jax.grad(loss)(low_head.astype(jnp.float32)), np.float64)

    def exact(master: jax.Array) -> jax.Array:
        return jnp.sum(_reference(low.astype(jnp.float32), master, targets))

    wanted = np.asarray(jax.grad(exact)(low_head.astype(jnp.float32)), np.float64)
    error = {c: np.linalg.norm(grad(c) - wanted) / np.linalg.norm(wanted) for c in (0, 2)}
    assert error[2] < 1.5 * error[0] + 1e-4, error


def test_shift_labels() -> None:
    labels = np.array([[IGNORE_INDEX, 4, 5, 6], [1, 2, IGNORE_INDEX, 3]])
    expected = [[4, 5, 6, IGNORE_INDEX], [2, IGNORE_INDEX, 3, IGNORE_INDEX]]
    np.testing.assert_array_equal(shift_labels(jnp.array(labels)), expected)
