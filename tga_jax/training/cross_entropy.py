"""Cross-entropy without the [batch, length, vocabulary] logits.

Letters: B batch, T length, S chunk, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from tga_jax.labels import IGNORE_INDEX
from tga_jax.models.layers import product
from tga_jax.parallel.sharding import BATCH_AXES, EMBED_AXIS, mesh_ways

AUTO = 512  # positions whose logits exist at once, where nothing else is said


def shift_labels(labels: Int[Array, "*lead length"]) -> Int[Array, "*lead length"]:
    """Labels aligned with tokens -> labels of the next token: int32[..., T], the last ignored."""
    last = jnp.full_like(labels[..., :1], IGNORE_INDEX)
    return jnp.concatenate([labels[..., 1:], last], axis=-1)


@functools.partial(jax.jit, static_argnames="chunk")
def token_nll(
    hidden: Float[Array, "batch length width"],
    head: Float[Array, "width vocab"],
    targets: Int[Array, "batch length"],
    *,
    chunk: int,
) -> Float[Array, "batch length"]:
    """Negative log-likelihood of each target.

    Positions that have a target come first, `chunk` times B of them at a time; chunks without any
    are left out, so that the head costs what the answers need. Only [B, chunk, V] logits exist at
    once; the backward pass computes them again. On a mesh every device goes through its own rows:
    the head is gathered once a pass, and its gradient, summed over the chunks in float32, leaves
    the device once.

    Args:
        hidden: dtype[B, T, D], after the final norm.
        head: float[D, V]; used in dtype.
        targets: int32[B, T]; IGNORE_INDEX where nothing is predicted.
        chunk: positions of each row at a time; 0: so many that they are `AUTO` together. From T
            on all logits exist at once, and nothing is computed again.

    Returns:
        float32[B, T], 0 where nothing is predicted.
    """
    batch, length, width = hidden.shape
    mesh = jax.sharding.get_abstract_mesh()
    ways = mesh_ways(mesh, BATCH_AXES)
    ways = 1 if batch % ways else ways
    chunk = chunk or max(AUTO * ways // batch, 1)
    if chunk >= length:
        return _nll(product(hidden, head.astype(hidden.dtype), jnp.float32), targets)
    if ways == 1:
        return _chunked(hidden, head, targets, Partition(chunk))
    head_axis = EMBED_AXIS if width % mesh_ways(mesh, (EMBED_AXIS,)) == 0 else None
    rows = PartitionSpec(BATCH_AXES)
    mapped = jax.shard_map(
        lambda h, w, t: _chunked(h, w, t, Partition(chunk, BATCH_AXES, head_axis)),
        mesh=mesh,
        in_specs=(rows, PartitionSpec(head_axis), rows),
        out_specs=rows,
        axis_names=set(BATCH_AXES),  # the vocabulary's axis is left to the compiler
        check_vma=False,
    )
    return mapped(hidden, head, targets)


@dataclasses.dataclass(frozen=True)
class Partition:
    """How the work is partitioned.

    Attributes:
        chunk: positions of each row that are worked on at a time.
        rows: the mesh axes that the rows are sharded over.
        head: the mesh axis that the head's width is sharded over; None: it is replicated.
    """

    chunk: int
    rows: tuple[str, ...] = ()
    head: str | None = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _chunked(hidden: Array, head: Array, targets: Array, part: Partition) -> Array:
    """The losses of the rows that one device holds, chunk by chunk: float32[B, T]."""
    whole, order = _gathered(head, hidden.dtype, part.head), Order.of(targets, part)

    def body(_: None, xs: tuple[Array, Array, Array]) -> tuple[None, Array]:
        used, h, t = xs
        return None, jax.lax.cond(
            used, lambda: _nll(_logits(h, whole), t), lambda: jnp.zeros(t.shape, jnp.float32)
        )

    xs = order.used, order.split(hidden), order.split(targets, fill=IGNORE_INDEX)
    return order.join(jax.lax.scan(body, None, xs)[1])


def _forward(
    hidden: Any, head: Any, targets: Any, part: Partition
) -> tuple[Array, tuple[Any, ...]]:
    saved = (hidden.value, head.value, targets.value)
    # An empty tuple, as what is kept must be arrays.
    return _chunked(*saved, part), (*saved, () if head.perturbed else None)


def _backward(part: Partition, saved: tuple[Any, ...], grad: Any) -> tuple[Any, Any, None]:
    hidden, head, targets, trained = saved
    if isinstance(grad, SymbolicZero):
        return None, None, None
    whole, order = _gathered(head, hidden.dtype, part.head), Order.of(targets, part)

    def products(total: Array | None, h: Array, t: Array, g: Array) -> tuple[Array | None, Array]:
        with jax.named_scope("rematted_computation"):  # `flops` does not count it as the model's
            logits = _logits(h, whole)
        d = _nll_gradient(logits, t, g).astype(h.dtype)
        if total is not None:
            total += jnp.einsum("bsd,bsv->dv", h, d, preferred_element_type=jnp.float32)
        return total, jnp.einsum("bsv,dv->bsd", d, whole)

    def body(total: Array | None, xs: tuple[Array, ...]) -> tuple[Array | None, Array]:
        used, *rest = xs
        return jax.lax.cond(used, products, lambda w, h, t, g: (w, jnp.zeros_like(h)), total, *rest)

    xs = order.used, order.split(hidden), order.split(targets, fill=IGNORE_INDEX), order.split(grad)
    total = None if trained is None else jnp.zeros(whole.shape, jnp.float32)
    total, dh = jax.lax.scan(body, total, xs)
    if total is not None and part.head is not None:
        total = jax.lax.psum_scatter(total, part.head, scatter_dimension=0, tiled=True)
    return order.join(dh), None if total is None else total.astype(head.dtype), None


_chunked.defvjp(_forward, _backward, symbolic_zeros=True)


@dataclasses.dataclass(frozen=True)
class Order:
    """Positions in chunks, those with a target first."""

    places: Array  # int32[N], which position comes k-th; N: B * T, filled up to whole chunks
    used: Array  # bool[N / (B * S)], which chunks have a target on some device
    shape: tuple[int, int, int]  # B, T, S

    @classmethod
    def of(cls, targets: Array, part: Partition) -> Order:
        """The order of the targets int32[B, T]."""
        (batch, length), chunk = targets.shape, part.chunk
        chunks = -(-length // chunk)
        flat = jnp.pad(
            targets.reshape(-1),
            (0, batch * (chunks * chunk - length)),
            constant_values=IGNORE_INDEX,
        )
        count = jnp.sum(flat != IGNORE_INDEX)
        if part.rows:  # all devices go through as many, so that they meet in collectives
            count = jax.lax.pmax(count, part.rows)
        used = jnp.arange(chunks) * batch * chunk < count
        places = jnp.argsort(flat == IGNORE_INDEX, stable=True)
        return cls(places, used, (batch, length, chunk))

    def split(self, x: Array, *, fill: int = 0) -> Array:
        """[B, T, ...] -> [N / (B * S), B, S, ...], `fill` behind the last position."""
        batch, length, chunk = self.shape
        flat = x.reshape(-1, *x.shape[2:])
        flat = jnp.take(flat, self.places, axis=0, mode="fill", fill_value=fill)
        return flat.reshape(-1, batch, chunk, *x.shape[2:])

    def join(self, x: Array) -> Array:
        """Put what `split` gave back into the order of the positions: [B, T, ...]."""
        batch, length, _ = self.shape
        flat = x.reshape(-1, *x.shape[3:])
        return flat[jnp.argsort(self.places)[: batch * length]].reshape(batch, length, *x.shape[3:])


def _gathered(head: Array, dtype: jnp.dtype, axis: str | None) -> Array:
    head = head.astype(dtype)
    return head if axis is None else jax.lax.all_gather(head, axis, axis=0, tiled=True)


def _logits(hidden: Array, head: Array) -> Array:
    return jnp.matmul(hidden, head, preferred_element_type=jnp.float32)


def _nll(logits: Array, targets: Array) -> Array:
    chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.where(targets == IGNORE_INDEX, 0.0, nll)


def _nll_gradient(logits: Array, targets: Array, grad: Array) -> Array:
    """What `grad`, float32[B, S], of the losses makes of the logits: float32[B, S, V]."""
    grad = jnp.where(targets == IGNORE_INDEX, 0.0, grad)[..., None]
    hit = jnp.arange(logits.shape[-1]) == targets[..., None]
    return (jax.nn.softmax(logits, axis=-1) - hit) * grad
