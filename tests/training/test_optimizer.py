"""AdamW and its schedule against a few lines of numpy, and the table of what is trained."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tga_jax.errors import UserError
from tga_jax.training.freezing import learning_rate_factors
from tga_jax.training.optimizer import OptimizerConfig, make_optimizer, schedule

SHAPES = {
    "decoder/blocks/q/kernel": (2, 3, 4),
    "decoder/blocks/q/bias": (2, 4),
    "decoder/blocks/q/lora_a": (2, 3, 2),
    "decoder/embed": (5, 3),
    "decoder/head": (3, 5),
    "decoder/norm/scale": (3,),
    "vision/class_token": (4,),
}
DECAYED = {"decoder/blocks/q/kernel", "decoder/embed", "decoder/head"}
FACTORS = {p: 1.0 for p in SHAPES} | {"decoder/head": 0.1, "decoder/norm/scale": 2.0}
CONFIG = OptimizerConfig(
    learning_rate=0.01,
    steps=20,
    warmup_fraction=0.15,
    final_fraction=0.1,
    weight_decay=0.05,
    clip_norm=1.5,
    b2=0.98,
)


def _rate(cfg: OptimizerConfig, step: int) -> float:
    warmup = math.ceil(cfg.steps * cfg.warmup_fraction) if cfg.steps > 1 else 0
    if step < warmup:
        return cfg.learning_rate * step / warmup
    share = min((step - warmup) / (cfg.steps - warmup), 1.0)
    low = cfg.final_fraction
    return cfg.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share)))


def _numpy_adamw(params: dict, all_grads: list[dict], cfg: OptimizerConfig) -> dict:
    m = {p: np.zeros(x.shape) for p, x in params.items()}
    v = {p: np.zeros(x.shape) for p, x in params.items()}
    for step, grads in enumerate(all_grads):
        norm = math.sqrt(sum(float(np.sum(g**2)) for g in grads.values()))
        clip = min(1.0, cfg.clip_norm / norm) if cfg.clip_norm > 0 else 1.0
        for p in params:
            g = grads[p] * clip
            m[p] = cfg.b1 * m[p] + (1 - cfg.b1) * g
            v[p] = cfg.b2 * v[p] + (1 - cfg.b2) * g**2
            update = (m[p] / (1 - cfg.b1 ** (step + 1))) / (
                np.sqrt(v[p] / (1 - cfg.b2 ** (step + 1))) + cfg.eps
            )
            if p in DECAYED:
                update = update + cfg.weight_decay * params[p]
            params[p] = params[p] - _rate(cfg, step) * FACTORS[p] * update
    return params


@pytest.mark.parametrize("clip", [1.5, 0.0])
def test_steps_equal_numpy_adamw(clip: float) -> None:
    cfg = OptimizerConfig(**{**CONFIG.__dict__, "clip_norm": clip})
    rng = np.random.default_rng(0)
    start = {p: rng.normal(size=s) for p, s in SHAPES.items()}
    # Some steps within the norm, some far beyond it.
    grads = [
        {p: rng.normal(size=s) * scale for p, s in SHAPES.items()} for scale in (0.01, 3, 0.1) * 3
    ]
    optimizer = make_optimizer(cfg, FACTORS)
    params = {p: jnp.asarray(x, jnp.float32) for p, x in start.items()}
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for g in grads:
        as_float32 = {p: jnp.asarray(x, jnp.float32) for p, x in g.items()}
        params, state = update(params, state, as_float32)
    expected = _numpy_adamw(dict(start), grads, cfg)
    for path, wanted in expected.items():
        np.testing.assert_allclose(params[path], wanted, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    "cfg", [CONFIG, OptimizerConfig(1.0, 10), OptimizerConfig(1.0, 1), OptimizerConfig(1.0, 100)]
)
def test_schedule(cfg: OptimizerConfig) -> None:
    rate = schedule(cfg)
    for step in range(cfg.steps + 1):
        np.testing.assert_allclose(rate(step), _rate(cfg, step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("steps", "warmup"), [(10, 1), (100, 3), (101, 4), (5197, 156)])
def test_warm_up_steps_are_rounded_up(steps: int, warmup: int) -> None:
    """So a short run does not begin at the full rate; 5,197 steps are the paper's second stage."""
    rate = schedule(OptimizerConfig(1.0, steps))
    assert float(rate(0)) == 0 and float(rate(warmup)) == 1
    assert float(rate(warmup - 1)) < 1 and float(rate(warmup + 1)) < 1


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert float(schedule(OptimizerConfig(0.5, 10, warmup_fraction=0.0))(0)) == 0.5


# --- the table ---


def test_first_pattern_that_matches_the_whole_path_counts() -> None:
    table = (("decoder/blocks/.*", 0.5), ("decoder/blocks/q/bias", 3.0), ("decoder/embed", None))
    factors = learning_rate_factors(SHAPES, (*table, ("decoder", 9.0), (".*", 1.0)))
    assert factors["decoder/blocks/q/kernel"] == factors["decoder/blocks/q/bias"] == 0.5
    assert factors["decoder/embed"] is None
    assert factors["decoder/head"] == factors["vision/class_token"] == 1.0  # not by "decoder"


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ((("decoder/.*", 1.0),), "vision/class_token"),
        ((), "decoder/blocks/q/kernel"),
        (((".*", None),), "every parameter"),
        ((("decoder/(.*", 1.0), (".*", 1.0)), r"decoder/(.*"),
    ],
)
def test_a_table_with_a_mistake(table: tuple, named: str) -> None:
    with pytest.raises(UserError) as error:
        learning_rate_factors(SHAPES, table)
    assert named in str(error.value) and "\n" not in str(error.value)


# --- how moments are kept ---

LARGE = {"decoder/blocks/q/kernel": (2, 128, 256), "decoder/norm/scale": (128,)}


def _numpy_factored(all_grads: list[np.ndarray]) -> np.ndarray:
    """Adafactor's update of a stack of matrices (arXiv 1804.04235, algorithm 4), with momentum."""
    rows = columns = m = np.zeros(())
    for step, g in enumerate(all_grads, start=1):
        decay = 1 - step**-0.8
        rows = decay * rows + (1 - decay) * np.mean(g**2, axis=2, keepdims=True)
        columns = decay * columns + (1 - decay) * np.mean(g**2, axis=1, keepdims=True)
        u = g / np.sqrt(rows * columns / np.mean(rows, axis=1, keepdims=True))
        u /= max(1.0, float(np.sqrt(np.mean(u**2))))
        m = 0.9 * m + 0.1 * u
    return m / (1 - 0.9 ** len(all_grads))


def test_factored_moments_equal_the_papers_formula() -> None:
    cfg = OptimizerConfig(0.01, 10, warmup_fraction=0, clip_norm=0, moments="factored")
    path, rng = "decoder/blocks/q/kernel", np.random.default_rng(0)
    optimizer = make_optimizer(cfg, dict.fromkeys(LARGE, 1.0))
    params = {p: jnp.zeros(shape) for p, shape in LARGE.items()}
    state, grads, updates = optimizer.init(params), [], {}
    for _ in range(3):
        grads.append(rng.normal(size=LARGE[path]) * rng.uniform(0.1, 3, (1, 128, 1)))
        tree = {path: jnp.asarray(grads[-1], jnp.float32), "decoder/norm/scale": jnp.ones(128)}
        updates, state = optimizer.update(tree, state, params)
    wanted = -schedule(cfg)(2) * _numpy_factored(grads)
    # The first moment is kept in bfloat16.
    np.testing.assert_allclose(updates[path], wanted, atol=0.01 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("moments", "per_weight"), [("float32", 8), ("bfloat16", 6), ("factored", 2)]
)
def test_bytes_of_moments(moments: str, per_weight: int) -> None:
    cfg = OptimizerConfig(0.01, 10, moments=moments)
    params = {"decoder/blocks/q/kernel": jnp.zeros((2, 512, 1024))}
    state = make_optimizer(cfg, dict.fromkeys(params, 1.0)).init(params)
    held = sum(x.nbytes for x in jax.tree.leaves(state))
    assert held / (2 * 512 * 1024) == pytest.approx(per_weight, rel=0.01)


@pytest.mark.parametrize("moments", ["bfloat16", "factored"])
def test_smaller_moments_descend_like_adam(moments: str) -> None:
    """A badly scaled least-squares problem: as far down as with Adam, within a factor."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(256, 128)) * np.geomspace(0.1, 3, 128), jnp.float32)
    wanted = inputs @ jnp.asarray(rng.normal(size=(128, 128)), jnp.float32)

    def loss(params: dict) -> jax.Array:
        return jnp.mean((inputs @ params["decoder/head"] - wanted) ** 2)

    def last(kind: str) -> float:
        cfg = OptimizerConfig(0.05, 100, clip_norm=0, moments=kind)
        optimizer = make_optimizer(cfg, {"decoder/head": 1.0})
        params = {"decoder/head": jnp.zeros((128, 128))}

        def step(carry: tuple, _: None) -> tuple:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, length=100)
        return float(loss(params))

    start = float(loss({"decoder/head": jnp.zeros((128, 128))}))
    assert last("float32") < 0.02 * start
    assert last(moments) < 2 * last("float32") + 1e-3 * start
