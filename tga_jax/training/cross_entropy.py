"""Cross-entropy without the [batch, length, vocabulary] logits.

Letters: B batch, T length, S chunk, D width, V vocabulary.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from tga_jax.parallel.sharding import BATCH_AXES, EMBED_AXIS, mesh_ways

Array = jax.Array

IGNORE = -100  # label of a token that is not predicted


def shift_labels(labels: Array) -> Array:
    """Labels aligned with tokens -> labels of the next token: int32[B, T], last column ignored."""
    last = jnp.full_like(labels[:, :1], IGNORE)
    return jnp.concatenate([labels[:, 1:], last], axis=1)


@functools.partial(jax.jit, static_argnames="chunk")
def token_nll(hidden: Array, head: Array, targets: Array, *, chunk: int) -> Array:
    """Negative log-likelihood of each target, `chunk` positions of all rows at a time.

    Only [B, chunk, V] logits exist at once; the backward pass computes them again. On a mesh
    every device goes through its own rows: the head is gathered once a pass, and its gradient,
    summed over the chunks in float32, leaves the device once.

    Args:
        hidden: dtype[B, T, D], after the final norm.
        head: float[D, V]; used in dtype.
        targets: int32[B, T]; IGNORE where nothing is predicted.
        chunk: positions at a time; 0 or >= T: all at once.

    Returns:
        float32[B, T], 0 where nothing is predicted.
    """
    batch, length, width = hidden.shape
    if not 0 < chunk < length:
        return _nll(_logits(hidden, head.astype(hidden.dtype)), targets)
    mesh = jax.sharding.get_abstract_mesh()
    ways = mesh_ways(mesh, BATCH_AXES)
    if ways == 1 or batch % ways:
        return _chunked(hidden, head, targets, chunk, None)
    cut = EMBED_AXIS if width % mesh_ways(mesh, (EMBED_AXIS,)) == 0 else None
    rows = PartitionSpec(BATCH_AXES)
    mapped = jax.shard_map(
        lambda h, w, t: _chunked(h, w, t, chunk, cut),
        mesh=mesh,
        in_specs=(rows, PartitionSpec(cut), rows),
        out_specs=rows,
        axis_names=set(BATCH_AXES),  # the vocabulary's axis is left to the compiler
        check_vma=False,
    )
    return mapped(hidden, head, targets)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _chunked(hidden: Array, head: Array, targets: Array, chunk: int, cut: str | None) -> Array:
    """A device's rows; `cut`: the mesh axis over which the head's rows are spread."""
    whole = _gathered(head, hidden.dtype, cut)

    def body(_: None, xs: tuple[Array, Array]) -> tuple[None, Array]:
        return None, _nll(_logits(xs[0], whole), xs[1])

    xs = _split(hidden, chunk), _split(targets, chunk, fill=IGNORE)
    return _join(jax.lax.scan(body, None, xs)[1], hidden.shape[1])


def _forward(
    hidden: Array, head: Array, targets: Array, chunk: int, cut: str | None
) -> tuple[Array, tuple[Array, Array, Array]]:
    return _chunked(hidden, head, targets, chunk, cut), (hidden, head, targets)


def _backward(
    chunk: int, cut: str | None, saved: tuple[Array, Array, Array], grad: Array
) -> tuple[Array, Array, None]:
    hidden, head, targets = saved
    whole = _gathered(head, hidden.dtype, cut)

    def body(total: Array, xs: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        h, t, g = xs
        with jax.named_scope("rematted_computation"):  # so is it told from the model's FLOPs
            logits = _logits(h, whole)
        d = _nll_gradient(logits, t, g).astype(h.dtype)
        dh = jnp.einsum("bsv,dv->bsd", d, whole)
        dw = jnp.einsum("bsd,bsv->dv", h, d, preferred_element_type=jnp.float32)
        return total + dw, dh

    xs = _split(hidden, chunk), _split(targets, chunk, fill=IGNORE), _split(grad, chunk)
    total, dh = jax.lax.scan(body, jnp.zeros(whole.shape, jnp.float32), xs)
    if cut is not None:
        total = jax.lax.psum_scatter(total, cut, scatter_dimension=0, tiled=True)
    return _join(dh, hidden.shape[1]), total.astype(head.dtype), None


_chunked.defvjp(_forward, _backward)


def _gathered(head: Array, dtype: jnp.dtype, cut: str | None) -> Array:
    head = head.astype(dtype)
    return head if cut is None else jax.lax.all_gather(head, cut, axis=0, tiled=True)


def _split(x: Array, chunk: int, *, fill: int = 0) -> Array:
    """[B, T, ...] -> [T / S, B, S, ...], padded behind."""
    rest = -x.shape[1] % chunk
    x = jnp.pad(x, ((0, 0), (0, rest), *[(0, 0)] * (x.ndim - 2)), constant_values=fill)
    return x.reshape(x.shape[0], -1, chunk, *x.shape[2:]).swapaxes(0, 1)


def _join(x: Array, length: int) -> Array:
    """`_split` undone."""
    x = x.swapaxes(0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]


def _logits(hidden: Array, head: Array) -> Array:
    return jnp.matmul(hidden, head, preferred_element_type=jnp.float32)


def _nll(logits: Array, targets: Array) -> Array:
    chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    nll = jax.nn.logsumexp(logits, axis=-1) - chosen
    return jnp.where(targets == IGNORE, 0.0, nll)


def _nll_gradient(logits: Array, targets: Array, grad: Array) -> Array:
    """What `grad`, float32[B, S], of the losses makes of the logits: float32[B, S, V]."""
    grad = jnp.where(targets == IGNORE, 0.0, grad)[..., None]
    hit = jnp.arange(logits.shape[-1]) == targets[..., None]
    return (jax.nn.softmax(logits, axis=-1) - hit) * grad
