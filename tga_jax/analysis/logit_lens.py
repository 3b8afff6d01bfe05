"""Where refusal is decided: the logit lens at the last prompt position, layer by layer.

Letters: L layers, B samples, V vocabulary, D width, A apology tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np

from tga_jax.errors import UserError

Array = jax.Array
NONE = -1


@flax.struct.dataclass
class Lens:
    """What the logit lens says of every layer and sample.

    P_j is the softmax of the head on layer j's state, D_j = log P_j - log P_{j-1}, and P_0 that of
    the embeddings, so that layer 1 has a D too.
    """

    turns: Array  # bool[L, B]: the argmax of D_j is an apology
    leads: Array  # bool[L, B]: the argmax of P_j is an apology
    apology_log_prob: Array  # float32[L, B]: log of the apologies' summed probability
    ratio_sum: Array  # float32[L, V]: sum of D_j over the samples, each by its weight


def logit_lens(
    states: Array,
    log_probs: Callable[[Array], Array],
    *,
    apologies: Sequence[int],
    weights: Array,
) -> Lens:
    """Reads the states one layer after the other: only two layers' [B, V] exist at once.

    Args:
        states: [1 + L, B, D] at the last prompt position; entry 0 is of the embeddings.
        log_probs: [B, D] -> float32[B, V], the model's final norm, head and log-softmax.
        apologies: token ids.
        weights: float32[B], of the samples in `ratio_sum`.
    """

    def layer(before: Array, state: Array) -> tuple[Array, Lens]:
        now = log_probs(state)
        ratios = now - before
        return now, Lens(
            turns=jnp.isin(jnp.argmax(ratios, axis=-1), jnp.array(apologies)),
            leads=jnp.isin(jnp.argmax(now, axis=-1), jnp.array(apologies)),
            apology_log_prob=family_log_prob(now, apologies),
            ratio_sum=jnp.einsum("b,bv->v", weights, ratios, precision=jax.lax.Precision.HIGHEST),
        )

    return jax.lax.scan(layer, log_probs(states[0]), states[1:])[1]


def first_safety_layer(turns: Array) -> Array:
    """The 1-based first layer whose D_j turns to an apology: bool[L, B] -> int32[B].

    -1 where there is none.
    """
    first = 1 + jnp.argmax(turns, axis=0)
    return jnp.where(jnp.any(turns, axis=0), first, NONE).astype(jnp.int32)


def family_log_prob(log_probs: Array, apologies: Sequence[int]) -> Array:
    """Log of the summed probability of the apology tokens: float32[..., V] -> float32[...]."""
    return jax.nn.logsumexp(log_probs[..., jnp.array(apologies)], axis=-1)


def refusal_direction(refused: Array, answered: Array) -> tuple[Array, Array, Array]:
    """Difference of the mean states of refused and answered prompts, each float32[L, D].

    Returns:
        unit directions float32[L, D]; the answered mean's projection and the distance of the two
        means along it, float32[L] each. A layer whose means are equal has a zero direction.
    """
    difference = refused - answered
    length = jnp.linalg.norm(difference, axis=-1)
    direction = difference / jnp.where(length > 0, length, 1.0)[:, None]
    return direction, jnp.sum(direction * answered, axis=-1), length


def scaled_projection(states: Array, direction: Array, zero: Array, length: Array) -> Array:
    """States along the direction, answered texts at 0 and refused at 1: [L, B, D] -> [L, B].

    NaN at a layer whose direction is zero.
    """
    product = jnp.einsum("lbd,ld->lb", states, direction, precision=jax.lax.Precision.HIGHEST)
    along = product - zero[:, None]
    return jnp.where(length[:, None] > 0, along / length[:, None], jnp.nan)


def locate(mean_ratios: np.ndarray, top1_share: np.ndarray, apologies: Sequence[int]) -> str:
    """The safety layers as 1-based text like "4-6", from harmful texts.

    From the first layer at which the argmax of the mean D_j is an apology, to the first layer
    from there on at which an apology is the most likely token of half of the texts; to the layer
    of the largest share where it never comes to half.

    Args:
        mean_ratios: float[L, V], the mean D_j.
        top1_share: float[L], the share of the texts whose most likely token is an apology.
        apologies: token ids.

    Raises:
        UserError: no layer turns to an apology, or none ever makes one most likely.
    """
    found = np.flatnonzero(np.isin(np.argmax(mean_ratios, axis=-1), list(apologies)))
    if not len(found):
        raise UserError(
            "no safety layers: at no layer is an apology token the one that gains most over the "
            "harmful texts; use a model with a safety mechanism"
        )
    if not np.any(top1_share[found[0] :] > 0):
        raise UserError(
            f"no safety layers: from layer {found[0] + 1} on, where an apology token gains most, "
            "it comes first for none of the harmful texts; use a model with a safety mechanism"
        )
    first = int(found[0])
    half = np.flatnonzero(top1_share[first:] >= 0.5)
    last = first + int(half[0] if len(half) else np.argmax(top1_share[first:]))
    return f"{first + 1}-{last + 1}" if last > first else f"{first + 1}"
