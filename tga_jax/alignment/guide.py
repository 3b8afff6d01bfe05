"""The guide loss of Text-Guided Alignment (arXiv 2410.12662).

Letters: L guided layers, B samples, D width.

I, R and C are the mean hidden states over the image's, the retrieved text's and the caption's
tokens. A term that a sample does not have (no caption, no retrieved text) is absent: it enters
neither sum nor count, and its gradient is zero.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

FORMS = ("paper", "released", "none")
CENTERS = ("none", "batch", "running")

# The released code's factors of its pair and hinge terms.
RELEASED_PAIR, RELEASED_HINGE = 0.25, 0.1

# Of a float32 state's length: less than this is what rounding leaves of it when the mean of a
# batch of equal states is subtracted.
ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class GuideConfig:
    """What `config.guide` says, with the layers resolved to 0-based indices."""

    form: str
    layers: tuple[int, ...]
    center: str = "none"
    pair_weight: float = 1.0
    hinge_weight: float = 1.0
    answer_weight: float = 0.0
    answer_layers: tuple[int, ...] = ()
    center_decay: float = 0.99  # of the running mean, per step
    detach_caption: bool = True

    @property
    def active(self) -> bool:
        """Whether there is anything to compute."""
        return self.form != "none"

    @property
    def answers(self) -> bool:
        """Whether the answer term counts."""
        return self.active and self.answer_weight > 0

    @property
    def blocks(self) -> int:
        """How many blocks a pass needs to reach the last layer that any term compares."""
        return 1 + max(self.layers + (self.answer_layers if self.answers else ()), default=-1)

    @property
    def centers_by_step(self) -> bool:
        """Whether states are centred by the mean over the step; the answer's never otherwise."""
        return self.active and (self.center == "batch" or self.answers and self.center != "none")


@flax.struct.dataclass
class GuideStates:
    """float32[L, B, D] each, of the guided layers."""

    image: Array
    retrieved: Array
    caption: Array


@flax.struct.dataclass
class AnswerStates:
    """float32[L, B, D] each, where the answer begins: after the image, after the caption."""

    image: Array
    caption: Array


States = TypeVar("States", GuideStates, AnswerStates)


@flax.struct.dataclass
class GuideTerms:
    """float32[B] each: a sample's terms, unweighted by the configuration's weights."""

    pair: Array
    hinge: Array
    cosine: Array  # mean over the layers of cos(I, C), after centring


def safe_cosine(
    a: Float[Array, "*lead width"], b: Float[Array, "*#lead width"]
) -> Float[Array, "*lead"]:
    """Cosine over the last axis, float32; 0 with zero gradient where a vector is zero."""
    dot = jnp.sum(a * b, axis=-1)
    squares = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    # Replaced before the root: its gradient at 0 is infinite, and 0 * inf is NaN.
    defined = squares > 0
    return jnp.where(defined, dot * jax.lax.rsqrt(jnp.where(defined, squares, 1.0)), 0.0)


def guide_terms(states: GuideStates, *, form: str, progress: Float[Array, ""]) -> GuideTerms:
    """Both terms of every sample, whether it has them or not (the caller masks).

    "paper": sum over layers of -cos(I, C) and of log(1 + exp(-(cos(I, C) - cos(R, C)))).
    "released": 0.25 (1 - t) mean exp(-cos(I, C)) and 0.1 (1 - t)^2 mean exp(cos(R, C) -
    cos(I, C)), as the published code means them (there they carry no gradient).

    Args:
        states: pooled hidden states, centred or not.
        form: "paper" or "released".
        progress: float32[], t = step / steps of the stage.
    """
    image = safe_cosine(states.image, states.caption)
    retrieved = safe_cosine(states.retrieved, states.caption)
    if form == "paper":
        pair = jnp.sum(-image, axis=0)
        hinge = jnp.sum(jax.nn.softplus(retrieved - image), axis=0)
    elif form == "released":
        pair = RELEASED_PAIR * (1 - progress) * jnp.mean(jnp.exp(-image), axis=0)
        hinge = RELEASED_HINGE * (1 - progress) ** 2 * jnp.mean(jnp.exp(retrieved - image), axis=0)
    else:
        raise ValueError(f"unknown guide form {form!r}")
    return GuideTerms(pair, hinge, jnp.mean(image, axis=0))


def answer_terms(states: AnswerStates) -> Float[Array, " batch"]:
    """-cos summed over the layers: float32[B]. Not in the paper.

    A refusal is read off the state at the prompt's last token. With the caption in the image's
    place the language model decides there as its text safety has it; the image's prompt is to
    have the same state.
    """
    return jnp.sum(-safe_cosine(states.image, states.caption), axis=0)


def caption_sum(
    caption: Float[Array, "layers batch width"], has_pair: Bool[Array, " batch"]
) -> Float[Array, "layers width"]:
    """The sum of the caption states of the samples with a pair: float32[L, D].

    Args:
        caption: float32[L, B, D].
        has_pair: bool[B], which samples have an image and a caption.
    """
    member = has_pair.astype(caption.dtype)
    # Centred states are small differences: devices that round float32 products must not here.
    return jnp.einsum("b,lbd->ld", member, caption, precision=jax.lax.Precision.HIGHEST)


def caption_mean(
    total: Float[Array, "layers width"], count: Int[Array, ""]
) -> Float[Array, "layers width"]:
    """A sum of caption states over its number of samples: float32[L, D]; 0 without samples."""
    return total / jnp.maximum(count, 1)


def minus_mean(
    states: Float[Array, "*lead width"], mean: Float[Array, "*#lead width"]
) -> Float[Array, "*lead width"]:
    """States minus a mean; exactly 0 where nothing but rounding is left, which has no direction.

    Without that, captions that are all equal would be compared by their rounding errors.
    """
    left, size = states - mean, jnp.sum(states**2, axis=-1, keepdims=True)
    known = jnp.sum(left**2, axis=-1, keepdims=True) > ROUNDING**2 * size
    return jnp.where(known, left, 0.0)


def center(states: States, mean: Float[Array, "layers width"]) -> States:
    """The states minus the mean caption state.

    Raw means of hidden states share one large direction, and matching it is free; centred, the
    cosine speaks of what tells samples apart.

    Args:
        states: float32[L, B, D] each.
        mean: float32[L, D]; no gradient flows through it.
    """
    mean = jax.lax.stop_gradient(mean)[:, None]
    return jax.tree.map(lambda state: minus_mean(state, mean), states)


@flax.struct.dataclass
class RunningMean:
    """The exponential mean of the caption states of each guided layer over the steps."""

    total: Array  # float32[L, D], decayed sum of step means
    weight: Array  # float32[], decayed count of steps

    @classmethod
    def empty(cls, layers: int, width: int) -> RunningMean:
        """The running mean before the first step, which knows no mean yet."""
        return cls(jnp.zeros((layers, width)), jnp.zeros(()))

    def mean(self) -> Float[Array, "layers width"]:
        """The mean, float32[L, D]; 0 before the first one is known."""
        return self.total / jnp.maximum(self.weight, 1e-9)

    def known(self) -> Bool[Array, ""]:
        """Whether any step has given a mean yet: bool[]."""
        return self.weight > 0

    def update(
        self, total: Float[Array, "layers width"], count: Int[Array, ""], decay: float
    ) -> RunningMean:
        """The running mean after a step.

        Args:
            total: float32[L, D], the sum of the caption states over the step's global batch.
            count: int32[], how many samples it runs over; a step without any changes nothing.
            decay: what is kept of the steps before.
        """
        seen = count > 0
        keep, gain = jnp.where(seen, decay, 1.0), jnp.where(seen, 1.0 - decay, 0.0)
        mean = caption_mean(total, count)
        return RunningMean(self.total * keep + gain * mean, self.weight * keep + gain)
