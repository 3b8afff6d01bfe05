"""Building blocks that the vision tower, the projector and the decoder share.

Letters: B batch, T length, D width, F features out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from tga_jax.models.config import LoraConfig
from tga_jax.models.quantised import (
    CODES,
    SCALE,
    quantised_product,
    random_codes,
    stored_shapes,
)

_keep = jax.checkpoint_policies.save_only_these_names
# What a block keeps for its backward pass, most first; all else is computed again.
REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "none": None,  # everything
    "dots": _keep("product"),  # products with parameters
    "qkv": _keep("qkv", "attention"),
    "attention": _keep("attention"),  # so that no attention kernel runs twice
    "full": None,  # its input alone
}


def param(
    module: nn.Module, name: str, init: Any, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> Array:
    """A parameter of `module`, with the logical names of its axes."""
    # Linen types it as the box that `init` returns; in a module it is always the array.
    return cast(Array, module.param(name, nn.with_logical_partitioning(init, axes), shape))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: Array, kernel: Array, out: Any = None) -> Array:
    """x @ kernel: dtype[..., D], dtype[D, F] -> out[..., F], `out` being dtype where not given.

    Its backward asks for the kernel's gradient as [D, F] at once. JAX's own asks for a transposed
    product, which XLA's CPU backend makes from transposed copies, at half the speed.
    """
    return jnp.matmul(x, kernel, preferred_element_type=out)


def _product_forward(x: Any, kernel: Any, out: Any) -> tuple[Array, tuple[Any, ...]]:
    # What no gradient is wanted for, the other one need not be kept for.
    saved = x.value if kernel.perturbed else None, kernel.value if x.perturbed else None
    return product(x.value, kernel.value, out), saved


def _product_backward(out: Any, saved: tuple[Any, ...], grad: Any) -> tuple[Any, Any]:
    x, kernel = saved
    if isinstance(grad, SymbolicZero):
        return None, None
    d_x = d_kernel = None
    if kernel is not None:
        grad = grad.astype(kernel.dtype)
        d_x = jax.lax.dot_general(grad, kernel, (((grad.ndim - 1,), (1,)), ((), ())))
    if x is not None:
        grad, lead = grad.astype(x.dtype), tuple(range(x.ndim - 1))
        d_kernel = jax.lax.dot_general(x, grad, ((lead, lead), ((), ())))
    return d_x, d_kernel


product.defvjp(_product_forward, _product_backward, symbolic_zeros=True)


def _named(y: Array) -> Array:
    return checkpoint_name(y, "product")


class Linear(nn.Module):
    """y = x W (+ b) (+ scale * x A B with LoRA). Kernel float[D, F], or in few bits."""

    features: int
    axes: tuple[str | None, str | None]  # logical names of the kernel's two axes
    bias: bool = False
    dtype: str = "float32"
    lora: LoraConfig | None = None
    quantize: str = ""  # how the kernel is kept; `quantised.KINDS`

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """float[..., D] -> dtype[..., F]."""
        x = x.astype(self.dtype)
        y = _named(self._quantised(x) if self.quantize else self._product(x))
        if self.bias:
            zeros = nn.initializers.zeros
            bias = param(self, "bias", zeros, (self.features,), self.axes[1:])
            y = y + bias.astype(self.dtype)
        if self.lora is not None:
            y = y + self._lora(x, self.lora)
        return y

    def _product(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        kernel = param(self, "kernel", nn.initializers.lecun_normal(), shape, self.axes)
        return product(x, kernel.astype(self.dtype))

    def _quantised(self, x: Array) -> Array:
        inputs = x.shape[-1]
        packed, scales, kind = stored_shapes(inputs, self.features, self.quantize)
        codes = functools.partial(random_codes, dtype=kind)
        size = nn.initializers.constant(inputs**-0.5 / (75 if kind == jnp.int8 else 0.5))
        # Of int8 there is one scale along the inputs, which no mesh cuts.
        axes = (self.axes[0] if scales[0] > 1 else None, self.axes[1])
        return quantised_product(
            x,
            param(self, CODES, codes, packed, self.axes),
            param(self, SCALE, size, scales, axes),
        )

    def _lora(self, x: Array, lora: LoraConfig) -> Array:
        shape_a, shape_b = (x.shape[-1], lora.rank), (lora.rank, self.features)
        side_a, side_b = (axis if axis == "embed" else "lora_side" for axis in self.axes)
        axes_a, axes_b = (side_a, "lora_rank"), ("lora_rank", side_b)
        a = param(self, "lora_a", nn.initializers.he_uniform(), shape_a, axes_a)
        b = param(self, "lora_b", nn.initializers.zeros, shape_b, axes_b)
        y = _named(product(x, a.astype(self.dtype)))
        return _named(product(y, b.astype(self.dtype))) * lora.scale


class RMSNorm(nn.Module):
    """Root-mean-square norm (arXiv 1910.07467), computed in float32."""

    eps: float
    dtype: str = "float32"
    offset: float = 0.0  # is added to the scale

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """float[..., D] -> dtype[..., D]."""
        init = nn.initializers.constant(1.0 - self.offset)
        scale = param(self, "scale", init, x.shape[-1:], ("norm",)).astype(jnp.float32)
        x = x.astype(jnp.float32)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return (x * (scale + self.offset if self.offset else scale)).astype(self.dtype)


class LayerNorm(nn.Module):
    """Layer norm with scale and bias, computed in float32."""

    eps: float
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """float[..., D] -> dtype[..., D]."""
        scale = param(self, "scale", nn.initializers.ones, x.shape[-1:], ("norm",))
        bias = param(self, "bias", nn.initializers.zeros, x.shape[-1:], ("norm",))
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, axis=-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return (x * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(self.dtype)


def activation(name: str) -> Callable[[Array], Array]:
    """The activation of that Hugging Face name."""
    table: dict[str, Callable[[Array], Array]] = {
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x, approximate=True),
        "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
        "silu": jax.nn.silu,
    }
    return table[name]


def capped(x: Float[Array, "*shape"], cap: float | None) -> Float[Array, "*shape"]:
    """float[...] squashed to below `cap` in size; None: as it is."""
    return x if cap is None else cap * jnp.tanh(x / cap)


def residual(x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
    """The residual stream float[B, T, D] between blocks, sharded along T over the tensor axis.

    Norms and sums then work on a shard of the sequence, and what the backward pass keeps of a
    block is a shard too; the traffic is the same (arXiv 2205.05198).
    """
    length = where_it_divides("residual_length", x.shape[1]) or "length"
    return nn.with_logical_constraint(x, ("batch", length, "activation"))


def where_it_divides(name: str, size: int) -> str | None:
    """A logical axis's name, if the mesh axis that it is sharded over divides this size."""
    mesh = jax.sharding.get_abstract_mesh()
    axis = nn.logical_to_mesh_axes((name,))
    ways = 1 if mesh.empty or not axis or axis[0] is None else mesh.shape[axis[0]]
    return name if size % ways == 0 else None


def stack(
    block: type[nn.Module], *, layers: int, remat: str, in_axes: Any, out_axes: Any = 0
) -> Callable[..., nn.Module]:
    """`block` repeated `layers` times by `nn.scan`; parameters gain a leading layer axis.

    Args:
        block: module with `__call__(carry, *inputs) -> (carry, output)`.
        layers: how many.
        remat: a name in `REMAT_POLICIES`.
        in_axes: per input, 0 (one slice a layer) or `nn.broadcast`.
        out_axes: axis along which outputs are stacked.
    """
    if remat != "none":
        block = nn.remat(block, policy=REMAT_POLICIES[remat], prevent_cse=False)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        out_axes=out_axes,
        length=layers,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
