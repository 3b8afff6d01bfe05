"""The guide loss of Text-Guided Alignment (arXiv 2410.12662).

Letters: L guided layers, B samples, D width, F prompt formats.

I, R and C are the mean hidden states over the image's, the retrieved text's and the caption's
tokens. A term that a sample does not have (no caption, no retrieved text) is absent: it enters
neither sum nor count, and its gradient is zero.
"""

from __future__ import annotations

import dataclasses

import flax
import jax
import jax.numpy as jnp

Array = jax.Array

FORMS = ("paper", "released", "none")
CENTERS = ("none", "batch", "running")

# The released code's factors of its pair and hinge terms.
RELEASED_PAIR, RELEASED_HINGE = 0.25, 0.1


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


@flax.struct.dataclass
class GuideStates:
    """float32[L, B, D] each, of the guided layers."""

    image: Array
    retrieved: Array
    caption: Array


@flax.struct.dataclass
class AnswerStates:
    """float32[L, B, D] each, where the answer begins: after the picture, after the caption."""

    image: Array
    caption: Array


@flax.struct.dataclass
class GuideTerms:
    """float32[B] each: a sample's terms, unweighted by the configuration's weights."""

    pair: Array
    hinge: Array
    cosine: Array  # mean over the layers of cos(I, C), after centring


def safe_cosine(a: Array, b: Array) -> Array:
    """Cosine over the last axis, float32; 0 with zero gradient where a vector is zero."""
    dot = jnp.sum(a * b, axis=-1)
    squares = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
    # Replaced before the root: its gradient at 0 is infinite, and 0 * inf is NaN.
    defined = squares > 0
    return jnp.where(defined, dot * jax.lax.rsqrt(jnp.where(defined, squares, 1.0)), 0.0)


def guide_terms(states: GuideStates, *, form: str, progress: Array) -> GuideTerms:
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


def answer_terms(states: AnswerStates) -> Array:
    """-cos summed over the layers: float32[B]. Not in the paper.

    A refusal is read off the state at the prompt's last token. With the caption in the picture's
    place the language model decides there as its text safety has it; the picture's prompt is to
    have the same state.
    """
    return jnp.sum(-safe_cosine(states.image, states.caption), axis=0)


def format_sums(caption: Array, has_pair: Array, formats: Array, num_formats: int) -> Array:
    """Sums of caption states per prompt format: float32[L, F, D].

    Args:
        caption: float32[L, B, D].
        has_pair: bool[B], samples that have an image and a caption.
        formats: int32[B], each sample's prompt format.
        num_formats: F.
    """
    member = jax.nn.one_hot(formats, num_formats) * has_pair[:, None]
    # Centred states are small differences: devices that round float32 products must not here.
    return jnp.einsum("bf,lbd->lfd", member, caption, precision=jax.lax.Precision.HIGHEST)


def format_counts(has_pair: Array, formats: Array, num_formats: int) -> Array:
    """Samples with an image and a caption per prompt format: float32[F]."""
    return jnp.sum(jax.nn.one_hot(formats, num_formats) * has_pair[:, None], axis=0)


def format_means(sums: Array, counts: Array) -> Array:
    """`format_sums` over `format_counts`: float32[L, F, D]; 0 for a format without samples."""
    return sums / jnp.maximum(counts, 1.0)[None, :, None]


def center(states: GuideStates, means: Array, formats: Array) -> GuideStates:
    """States minus the mean caption state of their sample's prompt format.

    Raw means of hidden states share one large direction, and matching it is free; centred, the
    cosine speaks of what tells samples apart.

    Args:
        states: float32[L, B, D] each.
        means: float32[L, F, D]; no gradient flows through them.
        formats: int32[B].
    """
    own = jax.lax.stop_gradient(means)[:, formats]
    return GuideStates(states.image - own, states.retrieved - own, states.caption - own)


@flax.struct.dataclass
class RunningMean:
    """Exponential mean of the caption states per layer and prompt format."""

    total: Array  # float32[L, F, D], decayed sum of step means
    weight: Array  # float32[F], decayed count of steps

    @classmethod
    def empty(cls, layers: int, formats: int, width: int) -> RunningMean:
        """Before the first step."""
        return cls(jnp.zeros((layers, formats, width)), jnp.zeros((formats,)))

    def means(self) -> Array:
        """float32[L, F, D]; 0 for a format that was never seen."""
        return self.total / jnp.maximum(self.weight, 1e-9)[None, :, None]

    def known(self, formats: Array) -> Array:
        """bool[B]: whether there is a mean for a sample's format yet."""
        return self.weight[formats] > 0

    def update(self, sums: Array, counts: Array, decay: float) -> RunningMean:
        """With a step's sums (float32[L, F, D]) and counts (float32[F]) over its global batch."""
        seen = counts > 0
        keep = jnp.where(seen, decay, 1.0)
        mean = format_means(sums, counts)
        gain = jnp.where(seen, 1.0 - decay, 0.0)
        total = self.total * keep[None, :, None] + gain[None, :, None] * mean
        return RunningMean(total, self.weight * keep + gain)
