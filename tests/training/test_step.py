"""Whole optimizer steps: accumulation, freezing, and the released form's schedule."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tga_jax.alignment.guide import GuideConfig
from tga_jax.parallel.mesh import make_mesh
from tga_jax.training.freezing import learning_rate_factors
from tga_jax.training.objective import Objective
from tga_jax.training.optimizer import OptimizerConfig, make_optimizer, schedule
from tga_jax.training.state import new_state, param_leaves
from tga_jax.training.step import TrainState, accumulate, jit_step, make_train_step

TABLE = ((r"vision/.*", None), (r"decoder/embed", None), (r".*/norm\d?/.*", 0.5), (r".*", 1.0))
KINDS = ("full", "no_retrieved", "text", "full", "full", "no_caption", "full", "no_retrieved")
ANSWERS = (2, 3, 9, 2, 4, 3, 8, 2)  # very unequal in number between the micro-batches


@dataclasses.dataclass(frozen=True)
class Run:
    """What some steps leave."""

    start: TrainState
    end: TrainState
    metrics: list[dict[str, float]]


def run(
    *,
    form: str = "paper",
    center: str = "none",
    accumulate: int = 1,
    rate: float = 0.02,
    same_batch: bool = False,
    answers: bool = False,
    kinds: tuple[str, ...] = KINDS,
) -> Run:
    """`_run`, once for the same arguments however they are written."""
    return _run(form, center, accumulate, rate, same_batch, answers, kinds)


@functools.cache
def _run(
    form: str,
    center: str,
    accumulate: int,
    rate: float,
    same_batch: bool,
    answers: bool,
    kinds: tuple[str, ...],
) -> Run:
    """Three steps of the tiny model on one device (without pixels it compiles in half the time)."""
    mesh = make_mesh(data=-1, fsdp=1, tensor=1)
    factors = learning_rate_factors(tiny.flat_params(), TABLE)
    leaves = param_leaves(tiny.model(), mesh, dtype="float32", factors=factors)
    params = {p: jax.device_put(x, leaves[p].sharding) for p, x in tiny.flat_params().items()}
    # eps: Adam's first steps would blow the noise of near-zero gradients up to whole steps.
    settings = OptimizerConfig(rate, 8, warmup_fraction=0, weight_decay=0.1, eps=1e-2)
    trained = {p: f for p, f in factors.items() if f is not None}
    optimizer = make_optimizer(settings, trained)
    cfg = GuideConfig(
        form,
        (0, 2),
        center=center,
        center_decay=0.5,
        answer_weight=float(answers),
        answer_layers=(1,),
    )
    objective = Objective(cfg, ce_chunk=8)
    state = new_state(
        params,
        factors=factors,
        optimizer=optimizer,
        objective=objective,
        width=tiny.WIDTH,
        mesh=mesh,
    )
    start = jax.tree.map(np.array, state)
    step = make_train_step(
        tiny.model(), objective, optimizer, learning_rate=schedule(settings), steps=8
    )
    traces: list[TrainState] = []
    compiled = jit_step(lambda state, batch: (traces.append(state), step(state, batch))[1], state)
    metrics = []
    for i in range(3):
        rows = tiny.batch(kinds, seed=0 if same_batch else i, answers=ANSWERS)
        rows["images"] = rows["images"][:, :0]  # token embeddings stand in
        state, values = compiled(state, tiny.micro_batches(rows, accumulate))
        metrics.append({k: float(v) for k, v in values.items()})
    assert len(traces) == 1
    return Run(start, jax.device_get(state), metrics)


@pytest.mark.parametrize(
    ("center", "parts", "answers"),
    [
        pytest.param("none", 4, False, marks=pytest.mark.slow),
        ("running", 2, True),
        ("batch", 4, True),
        pytest.param("batch", 8, True, marks=pytest.mark.slow),
    ],
)
def test_accumulation_changes_nothing(center: str, parts: int, answers: bool) -> None:
    whole = run(center=center, answers=answers)
    split = run(center=center, answers=answers, accumulate=parts)
    assert not answers or np.isfinite(whole.metrics[0]["guide_answer"])
    for one, other in zip(whole.metrics, split.metrics, strict=True):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=5e-5, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), whole.end, split.end
    )


@pytest.mark.parametrize("parts", [1, 4])
def test_a_sample_that_is_its_own_mean_has_no_term(parts: int) -> None:
    """Minus its own state nothing is left of it: it is not counted, and so not reported as 0."""
    kinds = ("text",) * 3 + ("full",) + ("no_caption",) * 4
    alone = run(center="batch", answers=True, accumulate=parts, kinds=kinds).metrics[0]
    for name in ("guide_pair", "guide_hinge", "guide_answer", "image_caption_cos"):
        assert np.isnan(alone[name]), name
    np.testing.assert_allclose(alone["loss"], alone["lm_loss"], rtol=1e-6)
    raw = run(answers=True, kinds=kinds).metrics[0]
    assert np.isfinite(raw["guide_pair"]) and np.isfinite(raw["guide_answer"])


def test_running_centre_starts_with_the_second_step() -> None:
    first, second, _ = run(center="running").metrics
    assert np.isnan(first["guide_pair"]) and np.isfinite(second["guide_pair"])
    np.testing.assert_allclose(first["loss"], first["lm_loss"], rtol=1e-6)


def test_gradient_is_a_mean_over_all_answer_tokens_not_over_micro_batches() -> None:
    """A known answer: micro-batches of 1 and 3 terms."""
    count = 4.0

    def loss(w: dict, micro: dict) -> tuple[jax.Array, jax.Array]:
        total = jnp.sum(micro["tokens"] * w["w"])
        return total / count, total

    batch = {"tokens": jnp.array([[8.0, 0.0, 0.0], [1.0, 2.0, 5.0]])}
    grads, sums = accumulate(jax.grad(loss, has_aux=True), {"w": jnp.float32(2)}, batch)
    assert float(grads["w"]) == 4.0 and float(sums) == 32.0


def test_frozen_parameters_stay_and_have_no_optimizer_state() -> None:
    result = run()
    start, end = result.start, result.end
    assert set(end.frozen) == {p for p in tiny.flat_params() if p.startswith("vision/")} | {
        "decoder/embed"
    }
    for path, leaf in start.frozen.items():
        np.testing.assert_array_equal(end.frozen[path], leaf)
    for path, leaf in start.trained.items():
        unused = path.startswith("projector/") and path.endswith("bias")  # no pixels, no decay
        assert np.array_equal(end.trained[path], leaf) == unused, path
    moments = [leaf for leaf in jax.tree.leaves(end.opt_state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * sum(x.size for x in end.trained.values())
    keys = {
        key.key
        for path, _ in jax.tree_util.tree_flatten_with_path(end.opt_state)[0]
        for key in path
        if isinstance(key, jax.tree_util.DictKey)
    }
    assert keys == set(end.trained)


def test_released_form_fades_with_the_share_of_steps_done() -> None:
    """Nothing moves at learning rate 0, and the batch is made the same: only t changes."""
    metrics = run(form="released", rate=0.0, same_batch=True).metrics
    for done, values in enumerate(metrics):
        left = 1 - done / 8
        pair, hinge = metrics[0]["guide_pair"], metrics[0]["guide_hinge"]
        np.testing.assert_allclose(values["guide_pair"], left * pair, rtol=1e-5)
        np.testing.assert_allclose(values["guide_hinge"], left**2 * hinge, rtol=1e-5)
        np.testing.assert_allclose(values["image_caption_cos"], metrics[0]["image_caption_cos"])


def test_reported_learning_rate_is_the_schedules() -> None:
    rates = [m["learning_rate"] for m in run().metrics]
    expected = [0.02 * 0.5 * (1 + np.cos(np.pi * i / 8)) for i in range(3)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
