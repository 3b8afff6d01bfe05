"""Splash attention on TPUs: JAX's Pallas kernel, a shard of rows and heads a device.

The kernel knows positions as places in the row. Within a segment the two differ by a constant,
so that "not later" and the window mean the same. Rows are padded to whole tiles of 128; padding
is segment 0, and only sees itself.

Letters: B batch, T length, H heads, K kv heads, G = H / K, C head width.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from tga_jax.models.visibility import Visibility

TILE = 128
BLOCK = 512  # most places of a tile's side; larger ones did not fit the chip's own memory


def attend_splash(
    q: Float[Array, "batch length heads channels"],
    k: Float[Array, "batch length kv_heads channels"],
    v: Float[Array, "batch length kv_heads channels"],
    visible: Visibility | None,
    *,
    softcap: float | None = None,
    interpret: bool = False,
) -> Float[Array, "batch length heads channels"]:
    """Softmax attention of a sequence with itself.

    Args:
        q: float[B, T, H, C].
        k: float[B, T, K, C].
        v: float[B, T, K, C].
        visible: who sees whom; None: everybody everything.
        softcap: scaled scores become softcap * tanh(score / softcap); None: they stay.
        interpret: run the kernel's program without a TPU, for tests.

    Returns:
        float[B, T, H, C].
    """
    length = q.shape[1]
    rest = -length % TILE
    if visible is None:
        segments = jnp.ones(q.shape[:2], jnp.int32)
    else:
        segments = visible.q_segments
    q, k, v = (jnp.pad(x, ((0, 0), (0, rest), (0, 0), (0, 0))) for x in (q, k, v))
    segments = jnp.pad(segments, ((0, 0), (0, rest)))
    window = None if visible is None else visible.window

    def run(window: int | None) -> Array:
        kernel = functools.partial(
            _rows,
            causal=visible is not None and visible.causal,
            window=window,
            softcap=softcap,
            interpret=interpret,
        )
        return _sharded(kernel, q, k, v, segments)[:, :length]

    if window is None or visible is None or visible.windowed is None:
        return run(window)
    # A kernel's mask is part of its program: of the two, each layer runs one.
    return jax.lax.cond(visible.windowed, lambda: run(window), lambda: run(None))


def _sharded(run: functools.partial[Array], q: Array, k: Array, v: Array, segments: Array) -> Array:
    """`run` on every device's own rows and heads; XLA cannot partition a kernel by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return run(q, k, v, segments)
    rows, heads = nn.logical_to_mesh_axes(("batch", "heads")) or (None, None)
    if q.shape[0] % _ways(mesh, rows):  # a single row, as in `init`
        rows = None
    ways = _ways(mesh, heads)
    if q.shape[2] % ways:
        heads = None
    elif k.shape[2] % ways:
        k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], axis=2) for x in (k, v))
    spec = PartitionSpec(rows, None, heads, None)
    # The kernel does not say over which axes its result varies, so that cannot be checked.
    mapped = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(spec, spec, spec, PartitionSpec(rows, None)),
        out_specs=spec,
        check_vma=False,
    )
    return mapped(q, k, v, segments)


def _ways(mesh: jax.sharding.AbstractMesh, axes: str | tuple[str, ...] | None) -> int:
    names = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape[name] for name in names)


def _rows(
    q: Array,
    k: Array,
    v: Array,
    segments: Array,
    *,
    causal: bool,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> Array:
    """Attention over the rows and heads that one device holds; T is a multiple of the tile."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    heads, kv_heads = q.shape[2], k.shape[2]
    kernel = _kernel(q.shape[1], heads, kv_heads, causal, window, softcap, interpret)
    q = (q * q.shape[-1] ** -0.5).astype(q.dtype)
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out = jax.vmap(kernel)(q, k, v, segment_ids=splash.SegmentIds(segments, segments))
    return out.swapaxes(1, 2)


def _kernel(
    length: int,
    heads: int,
    kv_heads: int,
    causal: bool,
    window: int | None,
    softcap: float | None,
    interpret: bool,
) -> Any:
    """The kernel for one row; the mask is worked out while tracing."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = (length, length)
    mask: masks.Mask = masks.FullMask(shape)
    if causal:
        mask = masks.CausalMask(shape)
    if window is not None:
        mask = masks.LocalMask(shape, window_size=(window - 1, 0 if causal else None), offset=0)
    return splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=_blocks(length),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name="attention",
        interpret=interpret,
    )


def _blocks(length: int) -> Any:
    """Tiles as large as divide the row, up to `BLOCK`."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    side = max(s for s in range(TILE, BLOCK + 1, TILE) if length % s == 0)
    return splash.BlockSizes(
        block_q=side,
        block_kv=side,
        block_kv_compute=side,
        block_q_dkv=side,
        block_kv_dkv=side,
        block_kv_dkv_compute=side,
        block_q_dq=side,
        block_kv_dq=side,
    )
