"""Kernels in few bits against plain numpy, and a model with them against its dense twin."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests import tiny
from tga_jax.models.layers import Linear
from tga_jax.models.llava import Llava
from tga_jax.models.quantised import (
    KINDS,
    NF4,
    dequantise,
    is_quantised,
    kernel_path,
    parameter_count,
    quantise,
)
from tga_jax.planning.live_memory import peak_bytes
from tga_jax.training.flops import count_flops

# Of QLoRA's appendix E (arXiv 2305.14314), as bitsandbytes has them too.
PUBLISHED = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


def _nf4_by_numpy(kernel: np.ndarray, block: int) -> np.ndarray:
    """What is left of a kernel: each value the nearest level of its block's largest one."""
    out = np.zeros_like(kernel)
    for column in range(kernel.shape[1]):
        for start in range(0, len(kernel), block):
            values = kernel[start : start + block, column]
            largest = np.abs(values).max() or 1.0
            nearest = np.abs(values[:, None] / largest - np.array(PUBLISHED)).argmin(axis=1)
            out[start : start + block, column] = np.array(PUBLISHED)[nearest] * largest
    return out


def _int8_by_numpy(kernel: np.ndarray) -> np.ndarray:
    scale = np.abs(kernel).max(axis=0) / 127
    return np.round(kernel / np.where(scale == 0, 1, scale)) * scale


def _kernel(inputs: int, outputs: int, seed: int = 0) -> np.ndarray:
    kernel = np.random.default_rng(seed).normal(0, 0.1, (inputs, outputs)).astype(np.float32)
    kernel[:, 1] = 0
    return kernel


def _there_and_back(kernel: np.ndarray, kind: str) -> np.ndarray:
    return np.asarray(dequantise(*quantise(jnp.asarray(kernel), kind), jnp.float32))


def test_the_levels_are_the_published_ones_and_those_of_the_normal_distribution() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    assert NF4 == PUBLISHED
    # QLoRA: quantiles of both halves of a normal distribution, which share the level 0.
    end = 0.9677083
    above = scipy_stats.norm.ppf(np.linspace(end, 0.5, 9)[:-1])
    below = -scipy_stats.norm.ppf(np.linspace(end, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([above, [0.0], below])) / above[0]
    np.testing.assert_allclose(NF4, levels, atol=2e-6)


@pytest.mark.parametrize(("inputs", "block"), [(192, 64), (48, 16), (32, 32), (2, 2)])
def test_nf4_takes_the_nearest_level_of_each_block(inputs: int, block: int) -> None:
    kernel = _kernel(inputs, 5)
    codes, scale = quantise(jnp.asarray(kernel), "nf4")
    assert (codes.shape, codes.dtype) == ((inputs // 2, 5), jnp.uint8)
    assert (scale.shape, scale.dtype) == ((inputs // block, 5), jnp.float32)
    got = _there_and_back(kernel, "nf4")
    np.testing.assert_allclose(got, _nf4_by_numpy(kernel, block), rtol=1e-6)
    # No value is further from its level than half of the widest gap between two.
    largest = np.abs(kernel.reshape(-1, block, 5)).max(axis=1, keepdims=True)
    error = np.abs(got - kernel).reshape(-1, block, 5)
    assert np.all(error <= largest * np.diff(PUBLISHED).max() / 2 + 1e-7) and error.max() > 0


def test_int8_rounds_to_127ths_of_an_outputs_largest_value() -> None:
    kernel = _kernel(40, 6)
    codes, scale = quantise(jnp.asarray(kernel), "int8")
    assert (codes.shape, codes.dtype, scale.shape) == ((40, 6), jnp.int8, (1, 6))
    got = _there_and_back(kernel, "int8")
    np.testing.assert_allclose(got, _int8_by_numpy(kernel), rtol=1e-6, atol=1e-9)
    error = np.abs(got - kernel)
    assert np.all(error <= np.abs(kernel).max(axis=0) / 254 + 1e-7) and error.max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_quantised_stays_as_it_is(kind: str) -> None:
    once = _there_and_back(_kernel(128, 4), kind)
    np.testing.assert_allclose(_there_and_back(once, kind), once, rtol=1e-6)


def quantised_twin(kind: str, *, remat: str = "none") -> tuple[Llava, dict, Llava, dict]:
    """The tiny model with such kernels, its flat parameters; a dense model with the same values."""
    dense = tiny.model(remat=remat)
    decoder = dataclasses.replace(dense.config.decoder, quantize=kind)
    model = dataclasses.replace(dense, config=dataclasses.replace(dense.config, decoder=decoder))
    params = tiny.flat_params()
    kept: dict[str, Any] = {}
    for path, value in tiny.flat_params().items():
        if path.startswith("decoder/blocks/") and path.endswith("/kernel"):
            codes, scale = jax.vmap(lambda x: quantise(x, kind))(value)
            kept |= {f"{path}_q": codes, f"{path}_scale": scale}
            rounded = jax.vmap(lambda *pair: dequantise(*pair, jnp.float32))(codes, scale)
            params[path] = np.asarray(rounded)
        else:
            kept[path] = value
    return model, kept, dense, params


def _loss(model: Llava, rows: dict[str, Any]) -> Any:
    names = ("positions", "segments")

    def loss(trained: dict[str, Any], frozen: dict[str, Any]) -> jax.Array:
        params = unflatten_dict(trained | frozen, sep="/")
        x = model.embed(params, rows["tokens"], rows["images"])
        out = model.decode(params, x, **{name: rows[name] for name in names})
        return jnp.mean(model.logits(params, out.hidden) ** 2)

    return loss


@pytest.mark.parametrize("kind", KINDS)
def test_the_parameters_stand_where_the_kernels_were(kind: str) -> None:
    model, kept, _, params = quantised_twin(kind)
    boxed = flatten_dict(jax.eval_shape(model.init, jax.random.key(0)), sep="/")
    assert {path: (box.value.shape, box.value.dtype) for path, box in boxed.items()} == {
        path: (x.shape, x.dtype) for path, x in kept.items()
    }
    counts: dict[str, int] = {}
    for path, x in kept.items():
        counts[kernel_path(path)] = counts.get(kernel_path(path), 0) + parameter_count(path, x)
    assert counts == {path: x.size for path, x in params.items()}
    assert sum(map(is_quantised, kept)) == 2 * 7


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_those_of_the_dense_model(kind: str, remat: str) -> None:
    model, kept, dense, params = quantised_twin(kind, remat=remat)
    rows = tiny.batch(("full", "text"))

    def run(model: Llava, params: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
        trained = {p: jnp.asarray(x) for p, x in params.items() if p.startswith("projector/")}
        frozen = {p: jnp.asarray(x) for p, x in params.items() if p not in trained}
        return jax.jit(jax.value_and_grad(_loss(model, rows)))(trained, frozen)

    (loss, grads), (wanted, wanted_grads) = run(model, kept), run(dense, params)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    for path, grad in wanted_grads.items():
        np.testing.assert_allclose(
            grads[path], grad, rtol=1e-4, atol=1e-5 * float(jnp.abs(grad).max()), err_msg=path
        )
    assert all(float(jnp.abs(grad).max()) > 0 for grad in wanted_grads.values())


@pytest.mark.parametrize("kind", KINDS)
def test_no_kernel_is_kept_for_the_backward_pass(kind: str) -> None:
    layer = Linear(256, ("embed", "ffn"), quantize=kind)
    x = jnp.ones((2, 128))
    params = jax.jit(layer.init)(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda box: box.value, params, is_leaf=lambda b: hasattr(b, "value"))
    _, backward = jax.vjp(lambda x: layer.apply({"params": params}, x), x)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(backward)) < 128 * 256 * 4 / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_needs_less_memory_than_the_dense_models(kind: str) -> None:
    """Nothing of the kernels' size is made outside the loop over the layers and kept."""
    peaks = {}
    for name in ("", kind):
        decoder = dataclasses.replace(
            tiny.CONFIG.decoder, width=256, ffn=256, layers=4, quantize=name
        )
        config = dataclasses.replace(tiny.CONFIG, decoder=decoder)
        model = dataclasses.replace(tiny.model(remat="full"), config=config)
        boxed = flatten_dict(jax.eval_shape(model.init, jax.random.key(0)), sep="/")
        params = {path: box.value for path, box in boxed.items()}
        trained = {path: params.pop(path) for path in list(params) if "projector" in path}
        loss = jax.grad(_loss(model, tiny.batch(("full",))))
        peaks[name] = peak_bytes(jax.jit(loss).trace(trained, params).jaxpr)
    assert peaks[kind] < 0.8 * peaks[""]


def test_flops_are_those_of_the_dense_model() -> None:
    counts = []
    for kind in ("", "nf4"):
        model, kept, dense, params = quantised_twin(kind or "nf4", remat="full")
        chosen, values = (model, kept) if kind else (dense, params)
        trained = {p: x for p, x in values.items() if p.startswith("projector/")}
        frozen = {p: x for p, x in values.items() if p not in trained}
        loss = _loss(chosen, tiny.batch(("full",)))
        counts.append(count_flops(jax.jit(jax.grad(loss)).trace(trained, frozen).jaxpr))
    assert counts[0] == counts[1]
