"""Which keys an attention's queries see.

Letters: B batch, T queries, S keys.
"""

from __future__ import annotations

import flax
from jaxtyping import Array, Bool


@flax.struct.dataclass
class Visibility:
    """Which key each query sees: same segment, and (causal) not later, and within the window.

    Segment 0 is padding and is seen by nobody. Within a segment positions rise by one a token.
    """

    q_positions: Array  # int32[B, T]
    kv_positions: Array  # int32[B, S]
    q_segments: Array  # int32[B, T]
    kv_segments: Array  # int32[B, S]
    causal: bool = flax.struct.field(pytree_node=False, default=True)
    window: int | None = flax.struct.field(pytree_node=False, default=None)
    windowed: Array | None = None  # bool[]: whether the window applies; None: it does

    def mask(self) -> Bool[Array, "batch queries keys"]:
        """bool[B, T, S]: True where the query sees the key."""
        q, k = self.q_positions[:, :, None], self.kv_positions[:, None, :]
        seen = (self.q_segments[:, :, None] == self.kv_segments[:, None, :]) & (
            self.kv_segments[:, None, :] > 0
        )
        if self.causal:
            seen &= k <= q
        if self.window is not None:
            near = q - k < self.window
            seen &= near if self.windowed is None else near | ~self.windowed
        return seen
