"""Attention backends against plain products: values and gradients at all places that are real."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tga_jax.models.attention import attend, attend_library, choose_backend
from tga_jax.models.splash_attention import attend_splash
from tga_jax.models.visibility import Visibility

Attend = Callable[..., jax.Array]
XLA = functools.partial(attend, backend="xla")
FUSED = {
    # The very program of the kernel, run by an interpreter.
    "splash": functools.partial(attend_splash, interpret=True),
    # What cuDNN is asked for, computed by the same library function without it.
    "library": functools.partial(attend_library, implementation="xla"),
}
KINDS = {
    # A row whole, one with padding behind, one with padding before, one of two packed texts.
    "causal": dict(causal=True, window=None),
    "window": dict(causal=True, window=37),
    "both ways": dict(causal=False, window=None),
}


def _segments(length: int) -> np.ndarray:
    segments = np.ones((4, length), np.int32)
    segments[1, -length // 3 :] = 0
    segments[2, : length // 4] = 0
    segments[3, length // 2 :] = 2
    return segments


def _positions(segments: np.ndarray) -> np.ndarray:
    """Each segment counts from 0."""
    places = np.arange(segments.shape[1])
    starts = np.where(np.diff(segments, axis=1, prepend=-1) != 0, places, 0)
    return (places - np.maximum.accumulate(starts, axis=1)).astype(np.int32)


def _inputs(length: int, heads: int = 4, kv_heads: int = 2, width: int = 32) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    shapes = [(4, length, n, width) for n in (heads, kv_heads, kv_heads)]
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


def _values_and_grads(run: Attend, inputs: tuple[Any, ...], visible: Visibility | None) -> Any:
    real = 1.0 if visible is None else (visible.q_segments > 0)[..., None, None]
    weights = np.random.default_rng(1).normal(size=inputs[0].shape)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = run(q, k, v, visible) * real
        return jnp.sum(out * weights), out

    grads, out = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*inputs)
    return out, grads


@pytest.mark.parametrize("backend", FUSED)
@pytest.mark.parametrize("kind", KINDS)
def test_fused_backends_equal_plain_products(backend: str, kind: str) -> None:
    length = 160  # not a multiple of the kernel's tile
    segments = _segments(length)
    positions = _positions(segments)
    visible = Visibility(positions, positions, segments, segments, **KINDS[kind])
    inputs = _inputs(length)
    ours, wanted = (_values_and_grads(run, inputs, visible) for run in (FUSED[backend], XLA))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        assert np.abs(b).max() > 0.1
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("backend", ["splash", "blockwise"])
def test_a_softcap_and_a_window_that_only_some_layers_have(backend: str, windowed: bool) -> None:
    """The window applies where an array says so, as in a stack of unlike layers."""
    runs = {**FUSED, "blockwise": functools.partial(attend, backend="blockwise")}
    segments = _segments(160)
    positions = _positions(segments)
    visible = Visibility(positions, positions, segments, segments, True, 37)
    plain = visible if windowed else dataclasses.replace(visible, window=None)
    chosen = dataclasses.replace(visible, windowed=jnp.asarray(windowed))
    inputs = _inputs(160)
    wanted = _values_and_grads(functools.partial(XLA, softcap=1.5), inputs, plain)
    for run, who in ((runs[backend], chosen), (XLA, chosen)):
        ours = _values_and_grads(functools.partial(run, softcap=1.5), inputs, who)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())
    without = _values_and_grads(XLA, inputs, plain)
    assert np.abs(wanted[0] - without[0]).max() > 0.1


@pytest.mark.parametrize("backend", FUSED)
def test_without_a_mask_everybody_sees_everything(backend: str) -> None:
    inputs = _inputs(145, kv_heads=4)  # as in a vision tower: no tile divides it
    ours, wanted = (_values_and_grads(run, inputs, None) for run in (FUSED[backend], XLA))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("backend", ["splash", "cudnn"])
def test_a_query_into_a_cache_takes_plain_products(backend: str) -> None:
    q, k, v = _inputs(24)
    segments = _segments(24)
    positions = _positions(segments)
    visible = Visibility(positions[:, -1:], positions, segments[:, -1:], segments)
    out = attend(q[:, -1:], k, v, visible, backend=backend)
    np.testing.assert_array_equal(out, XLA(q[:, -1:], k, v, visible))


@pytest.mark.parametrize(
    ("name", "platform", "dtype", "chosen"),
    [
        ("auto", "tpu", "bfloat16", "splash"),
        ("auto", "tpu", "float32", "splash"),
        ("auto", "gpu", "bfloat16", "cudnn"),
        ("auto", "gpu", "float32", "xla"),
        ("auto", "cpu", "float32", "blockwise"),
        ("xla", "tpu", "bfloat16", "xla"),
        ("splash", "cpu", "float32", "splash"),
    ],
)
def test_auto_takes_the_platforms(name: str, platform: str, dtype: str, chosen: str) -> None:
    assert choose_backend(name, platform=platform, dtype=dtype) == chosen


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(ValueError, match="'flash'"):
        attend(*_inputs(8), None, backend="flash")
