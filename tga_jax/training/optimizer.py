"""AdamW with warm-up and cosine, per-parameter learning-rate factors, and clipping."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The settings of the optimizer of a stage."""

    learning_rate: float
    steps: int
    warmup_fraction: float = 0.03
    final_fraction: float = 0.0  # of the learning rate, at the last step
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    moments: str = "float32"  # one of `MOMENTS`


MOMENTS = ("float32", "bfloat16", "factored")


def schedule(cfg: OptimizerConfig) -> optax.Schedule:
    """Linear warm-up from 0, then half a cosine down to the final fraction.

    The steps of the warm-up are rounded up, as Hugging Face's trainer does; but one step alone has
    none, as it would be one at rate 0.
    """
    warmup = min(math.ceil(cfg.steps * cfg.warmup_fraction), cfg.steps - 1)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else cfg.learning_rate,
        peak_value=cfg.learning_rate,
        warmup_steps=warmup,
        decay_steps=cfg.steps,
        end_value=cfg.learning_rate * cfg.final_fraction,
    )


def _moments(cfg: OptimizerConfig) -> list[optax.GradientTransformation]:
    """Adam's, or Adafactor's with Adam's first one (arXiv 1804.04235, without its own step size).

    Bytes a parameter beside itself: float32 8, bfloat16 6, factored a little over 2.
    """
    if cfg.moments == "factored":
        return [
            optax.scale_by_factored_rms(),
            optax.clip_by_block_rms(1.0),
            optax.ema(cfg.b1, debias=True, accumulator_dtype=jnp.bfloat16),
        ]
    dtype = jnp.dtype(cfg.moments)
    return [optax.scale_by_adam(b1=cfg.b1, b2=cfg.b2, eps=cfg.eps, mu_dtype=dtype)]


def make_optimizer(
    cfg: OptimizerConfig, factors: Mapping[str, float]
) -> optax.GradientTransformation:
    """AdamW on a flat dict of trained parameters.

    Args:
        cfg: settings.
        factors: learning-rate factor of every trained parameter.
    """

    def decayed(params: Mapping[str, Array]) -> dict[str, bool]:
        # Matrices only: norms, biases and the LoRA factors are left alone.
        return {p: p.rsplit("/", 1)[-1] in ("kernel", "embed", "head") for p in params}

    def scale(updates: dict[str, Array], params: object = None) -> dict[str, Array]:
        del params
        return {p: u if factors[p] == 1.0 else u * factors[p] for p, u in updates.items()}

    return optax.chain(
        optax.clip_by_global_norm(cfg.clip_norm) if cfg.clip_norm > 0 else optax.identity(),
        *_moments(cfg),
        optax.add_decayed_weights(cfg.weight_decay, mask=decayed),
        optax.stateless(scale),
        optax.scale_by_learning_rate(schedule(cfg)),
    )
