"""Frozen kernels kept in 8 or 4 bits: how they are made, and how a product is taken with them.

A kernel float[D, F] becomes integers and scales, and value = level * scale:

    "int8"  int8[D, F], the levels -127 to 127; one scale for each output, float32[1, F].
    "nf4"   the 16 levels of a normal distribution (QLoRA, arXiv 2305.14314), two in a byte,
            uint8[D / 2, F]; one scale for each block of 64 inputs of an output,
            float32[D / 64, F].

Where 64 does not divide D, blocks have the largest power of two that does. Of a block's levels the
first half lie in the low four bits of its bytes and the second half in the high ones.

Letters: D inputs, F outputs, C bytes along the inputs, S scales along them.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

KINDS = ("int8", "nf4")
BLOCK = 64
CODES, SCALE = "kernel_q", "kernel_scale"  # names of the two parameters in a kernel's place
# As bitsandbytes has them: quantiles of a normal distribution, with a level at exactly 0.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip


def quantise(
    kernel: Float[Array, "inputs outputs"], kind: str
) -> tuple[Integer[Array, "bytes outputs"], Float[Array, "scales outputs"]]:
    """float[D, F] -> the integers and scales of `kind`; see above."""
    kernel = kernel.astype(jnp.float32)
    block = _block(kernel.shape[0], kind)
    blocks = kernel.reshape(-1, block, kernel.shape[1])
    scale = jnp.max(jnp.abs(blocks), axis=1) / (127 if kind == "int8" else 1)
    levels = blocks / jnp.where(scale == 0, 1.0, scale)[:, None]
    if kind == "int8":
        return jnp.round(levels).astype(jnp.int8).reshape(kernel.shape), scale
    middles = [(low + high) / 2 for low, high in zip(NF4, NF4[1:], strict=False)]
    codes = sum((levels > middle).astype(jnp.uint8) for middle in middles)
    low, high = jnp.split(jnp.asarray(codes), 2, axis=1)
    return (low | high << 4).reshape(-1, kernel.shape[1]), scale


def dequantise(
    codes: Integer[Array, "bytes outputs"], scale: Float[Array, "scales outputs"], dtype: Any
) -> Float[Array, "inputs outputs"]:
    """The integers and scales of a kernel -> dtype[D, F]."""
    blocks = codes.reshape(scale.shape[0], -1, codes.shape[1])
    if codes.dtype == jnp.uint8:
        blocks = _levels(jnp.concatenate((blocks & 15, blocks >> 4), axis=1))
    kernel = blocks.astype(jnp.float32) * scale.astype(jnp.float32)[:, None]
    return kernel.reshape(-1, codes.shape[1]).astype(dtype)


def _levels(codes: Array) -> Array:
    """uint8[...] of 0 to 15 -> the level of each, by its bits: devices look tables up slowly.

    Levels come in as numbers, never as whole arrays: those would be taken out of the loop over the
    layers, and be kept.
    """
    odd = (codes & 1).astype(jnp.float32)
    pairs = zip(NF4[::2], NF4[1::2], strict=True)
    values = [low + odd * (high - low) for low, high in pairs]
    for bit in range(1, 4):
        on = (codes >> bit & 1) == 1
        pairs_of = zip(values[1::2], values[::2], strict=True)
        values = [jax.lax.select(on, *pair) for pair in pairs_of]
    return values[0]


@jax.custom_vjp
def quantised_product(
    x: Float[Array, "*lead inputs"],
    codes: Integer[Array, "bytes outputs"],
    scale: Float[Array, "scales outputs"],
) -> Float[Array, "*lead outputs"]:
    """x @ kernel: dtype[..., D] -> dtype[..., F], with a gradient to x alone.

    The backward pass makes the kernel anew, so that it is never kept from the forward one.
    """
    return jnp.matmul(x, dequantise(codes, scale, x.dtype))


def _forward(x: Array, codes: Array, scale: Array) -> tuple[Array, tuple[Array, Array]]:
    return quantised_product(x, codes, scale), (codes, scale)


def _backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, None, None]:
    kernel = dequantise(*saved, grad.dtype)
    return jax.lax.dot_general(grad, kernel, (((grad.ndim - 1,), (1,)), ((), ()))), None, None


quantised_product.defvjp(_forward, _backward)


def stored_shapes(
    inputs: int, outputs: int, kind: str
) -> tuple[tuple[int, int], tuple[int, int], Any]:
    """The shapes of a kernel's integers and of its scales, and the type of the integers."""
    scales = (inputs // _block(inputs, kind), outputs)
    if kind == "int8":
        return (inputs, outputs), scales, jnp.int8
    return (inputs // 2, outputs), scales, jnp.uint8


def is_quantised(path: str) -> bool:
    """Whether a parameter is one of the two that stand in a kernel's place."""
    return path.endswith((f"/{CODES}", f"/{SCALE}"))


def kernel_path(path: str) -> str:
    """The path of the kernel that a parameter stands for; other paths as they are."""
    return path.rpartition("/")[0] + "/kernel" if is_quantised(path) else path


def parameter_count(path: str, leaf: Any) -> int:
    """How many of the model's parameters an array holds: a byte of "nf4" two, a scale none."""
    if path.endswith(f"/{SCALE}"):
        return 0
    packed = path.endswith(f"/{CODES}") and leaf.dtype == jnp.uint8
    return math.prod(leaf.shape) * (2 if packed else 1)


def random_codes(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Random integers of that type, as an initialiser."""
    limits = jnp.iinfo(dtype)
    return jax.random.randint(key, shape, limits.min, limits.max, dtype)


def _block(inputs: int, kind: str) -> int:
    return inputs if kind == "int8" else math.gcd(inputs, BLOCK)
