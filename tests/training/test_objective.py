"""The objective of whole batches against plain evaluation, row by row, and finite differences."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.alignment import guide_oracle
from tga_jax.alignment.guide import GuideConfig, RunningMean
from tga_jax.training import passes as passes_module
from tga_jax.training.objective import (
    Objective,
    count_terms,
    loss_metrics,
    loss_sums,
    total_loss,
)
from tga_jax.training.passes import forward

MIXED = ("full", "no_retrieved", "no_caption", "text", "tox", "full", "full")
PROGRESS = 0.25


def _mixed() -> dict[str, np.ndarray]:
    return tiny.batch(MIXED, seed=3)


def _guide(form: str = "paper", layers: tuple[int, ...] = (0, 2), **kwargs: Any) -> GuideConfig:
    return GuideConfig(form, layers, pair_weight=0.7, hinge_weight=1.3, **kwargs)


def _running() -> RunningMean:
    """A mean of a step before."""
    rng = np.random.default_rng(5)
    total = rng.normal(size=(2, tiny.WIDTH)).astype(np.float32)
    return RunningMean(jnp.array(total), jnp.float32(0.5))


@functools.partial(jax.jit, static_argnames="objective")
def _evaluate(params: Any, rows: Any, objective: Objective, running: RunningMean | None) -> Any:
    sums = loss_sums(
        tiny.model(),
        params,
        rows,
        objective=objective,
        progress=jnp.float32(PROGRESS),
        running=running,
    )
    counts = count_terms({k: v[None] for k, v in rows.items()}, objective, running)
    return sums, counts, loss_metrics(sums, counts, objective.guide)


@functools.cache
def _single_rows() -> list[dict[str, np.ndarray]]:
    """Each row of the mixed batch alone: its loss and states [layers, D], None where absent."""
    rows, params = _mixed(), tiny.params()
    run = jax.jit(lambda p, b: forward(tiny.model(), p, b, guided=True, ce_chunk=0))
    out = []
    for i, kind in enumerate(MIXED):
        passes = jax.device_get(run(params, tiny.take(rows, slice(i, i + 1))))
        _, has_retrieved, has_caption = tiny.KINDS[kind]
        out.append(
            {
                "nll": passes.nll.sum(dtype=np.float64),
                "tokens": int(np.sum(rows["labels"][i] != -100)),
                "image": passes.states.image[:, 0],
                "retrieved": passes.states.retrieved[:, 0] if has_retrieved else None,
                "caption": passes.states.caption[:, 0] if has_caption else None,
            }
        )
    return out


def _by_hand(cfg: GuideConfig, mean: np.ndarray | None) -> dict:
    """Means over the rows that have a term, from single-row passes."""
    singles, layers = _single_rows(), list(cfg.layers)
    pairs, hinges, cosines = [], [], []
    for row in singles:
        if row["caption"] is None:
            continue
        own = 0.0 if mean is None else mean
        image, caption = row["image"][layers] - own, row["caption"][layers] - own
        retrieved = None if row["retrieved"] is None else row["retrieved"][layers] - own
        if cfg.form == "paper":
            pair, hinge = guide_oracle.paper(image, retrieved, caption)
        else:
            pair, hinge = guide_oracle.released(image, retrieved, caption, PROGRESS)
        pairs.append(pair)
        hinges += [] if hinge is None else [hinge]
        cosines.append(np.mean([guide_oracle.cosine(*x) for x in zip(image, caption, strict=True)]))
    lm = sum(row["nll"] for row in singles) / sum(row["tokens"] for row in singles)
    loss = lm + 0.7 * np.mean(pairs) + 1.3 * np.mean(hinges)
    return {
        "loss": loss,
        "lm_loss": lm,
        "guide_pair": np.mean(pairs),
        "guide_hinge": np.mean(hinges),
        "image_caption_cos": np.mean(cosines),
    }


def _caption_mean(layers: tuple[int, ...]) -> np.ndarray:
    captions = [row["caption"] for row in _single_rows()]
    return np.mean([x[list(layers)] for x in captions if x is not None], axis=0)


@pytest.mark.parametrize(
    ("form", "center"),
    [("paper", "none"), ("released", "batch"), ("paper", "running")],
)
def test_mixed_batch_is_the_sum_of_what_its_rows_have(form: str, center: str) -> None:
    cfg = _guide(form, center=center)
    running = _running() if center == "running" else None
    _, counts, metrics = _evaluate(tiny.params(), _mixed(), Objective(cfg, ce_chunk=6), running)
    mean = {
        "none": None,
        "batch": _caption_mean(cfg.layers),
        "running": None if running is None else np.asarray(running.mean()),
    }[center]
    expected = _by_hand(cfg, mean)
    assert (int(counts["guide_pair"]), int(counts["guide_hinge"])) == (4, 3)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)


def test_no_block_runs_in_the_caption_pass_of_a_batch_without_captions() -> None:
    # What is computed from parameters that are no numbers is no number.
    unknown = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), tiny.params())
    states = jax.jit(functools.partial(passes_module.caption_states, tiny.model()))
    assert not np.any(states(unknown, tiny.batch(("no_caption", "text"))))
    assert np.all(np.isnan(states(unknown, tiny.batch(("no_caption", "full")))))


def test_form_none_is_the_language_model_loss() -> None:
    objective = Objective(_guide("none"))
    sums, counts, metrics = _evaluate(tiny.params(), _mixed(), objective, None)
    singles = _single_rows()
    expected = sum(row["nll"] for row in singles) / sum(row["tokens"] for row in singles)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert metrics["loss"] == metrics["lm_loss"]
    assert all(np.isnan(metrics[k]) for k in ("guide_pair", "guide_hinge", "image_caption_cos"))
    assert float(total_loss(sums, counts, objective.guide)) == metrics["loss"]


def test_first_step_of_running_centring_has_no_guide_terms() -> None:
    objective = Objective(_guide(center="running"), ce_chunk=6)
    sums, counts, metrics = _evaluate(
        tiny.params(), _mixed(), objective, RunningMean.empty(2, tiny.WIDTH)
    )
    assert (int(counts["guide_pair"]), int(counts["guide_hinge"])) == (0, 0)
    assert metrics["loss"] == metrics["lm_loss"] and np.isnan(metrics["guide_pair"])
    found = np.asarray(sums.captions.pair.compute())
    np.testing.assert_allclose(found, _caption_mean((0, 2)), rtol=1e-4, atol=1e-5)


# --- gradients ---


def _grads(rows: Any, objective: Objective) -> Any:
    def loss(params: Any) -> jax.Array:
        sums = loss_sums(
            tiny.model(), params, rows, objective=objective, progress=0.0, running=None
        )
        counts = count_terms({k: v[None] for k, v in rows.items()}, objective, None)
        return total_loss(sums, counts, objective.guide)

    return jax.jit(jax.grad(loss))(tiny.params())


def test_text_rows_leave_projector_and_vision_alone() -> None:
    objective = Objective(_guide())
    grads = _grads(tiny.batch(("text",) * 3), objective)
    for part in ("vision", "projector"):
        for leaf in jax.tree.leaves(grads[part]):
            np.testing.assert_array_equal(leaf, 0)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(grads["decoder"]))
    assert np.linalg.norm(grads["decoder"]["head"]) > 0


def test_a_batch_without_answers_trains_by_its_guide_alone() -> None:
    rows = tiny.batch(("full",) * 3)
    rows["labels"] = np.full_like(rows["labels"], -100)
    objective = Objective(_guide(), ce_chunk=6)
    _, counts, metrics = _evaluate(tiny.params(), rows, objective, None)
    assert int(counts["lm_loss"]) == 0 and int(counts["guide_pair"]) == 3
    expected = 0.7 * metrics["guide_pair"] + 1.3 * metrics["guide_hinge"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    grads = _grads(rows, objective)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(grads))
    assert np.linalg.norm(grads["projector"]["linear_2"]["kernel"]) > 0


def test_pixels_of_a_text_row_have_no_part_in_anything() -> None:
    rows, objective = _mixed(), Objective(_guide(), ce_chunk=6)
    other = rows["images"].copy()
    other[MIXED.index("text")] = 200
    first = _evaluate(tiny.params(), rows, objective, None)
    second = _evaluate(tiny.params(), rows | {"images": other}, objective, None)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch):
    """Everything in float64, also what the model computes in float32 whatever its dtype."""
    with jax.enable_x64(True):
        monkeypatch.setattr(jnp, "float32", jnp.float64)
        yield


def _guide_loss(rows: Any, cfg: GuideConfig) -> Any:
    """(trained part, rest of the parameters) -> the guide loss alone."""
    objective = Objective(cfg)

    def loss(part: Any, rest: Any) -> jax.Array:
        model = tiny.model(dtype="float64")
        sums = loss_sums(
            model, {**rest, **part}, rows, objective=objective, progress=0.25, running=None
        )
        return 0.7 * sums.terms["guide_pair"].total + 1.3 * sums.terms["guide_hinge"].total

    return jax.jit(jax.value_and_grad(loss))


def _split(part: str) -> tuple[Any, Any]:
    params = jax.tree.map(lambda p: p.astype(np.float64), tiny.params())
    return {part: params[part]}, {k: v for k, v in params.items() if k != part}


def _check_directions(loss: Any, part: Any, rest: Any, grad: Any) -> None:
    rng, h = np.random.default_rng(0), 1e-5
    for _ in range(3):
        direction = jax.tree.map(lambda p: rng.normal(size=p.shape), part)
        ahead, behind = (
            loss(jax.tree.map(lambda p, d, s=s: p + s * h * d, part, direction), rest)[0]
            for s in (1, -1)
        )
        slope = sum(
            np.sum(g * d)
            for g, d in zip(jax.tree.leaves(grad), jax.tree.leaves(direction), strict=True)
        )
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * h), rtol=1e-5)


@pytest.mark.parametrize(("form", "center"), [("paper", "none"), ("released", "batch")])
def test_guide_loss_alone_trains_the_projector(form: str, center: str, float64: None) -> None:
    rows = tiny.batch(("full", "no_retrieved", "text", "full"))
    loss = _guide_loss(rows, _guide(form, center=center))
    part, rest = _split("projector")
    value, grad = loss(part, rest)
    assert value.dtype == np.float64
    assert all(np.linalg.norm(leaf) > 1e-6 for leaf in jax.tree.leaves(grad))
    _check_directions(loss, part, rest, grad)


def test_caption_pass_is_detached(float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tiny.batch(("full", "no_retrieved", "full"))
    rows["images"] = rows["images"][:, :0]  # the decoder alone: it compiles faster
    part, rest = _split("decoder")
    model = tiny.model(dtype="float64")
    states = jax.jit(functools.partial(passes_module.caption_states, model))
    constant = states({**part, **rest}, {k: v for k, v in rows.items() if "caption" in k})

    detached = _guide_loss(rows, _guide())(part, rest)[1]
    attached = _guide_loss(rows, _guide(detach_caption=False))(part, rest)[1]
    monkeypatch.setattr(passes_module, "caption_pass", lambda *_, **__: constant[:, :, None])
    constant_loss = _guide_loss(rows, _guide())
    expected = constant_loss(part, rest)[1]
    _check_directions(constant_loss, part, rest, expected)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), detached, expected
    )
    kernels = [g["decoder"]["blocks"]["q"]["kernel"] for g in (detached, attached)]
    assert np.linalg.norm(kernels[0] - kernels[1]) > 1e-3 * np.linalg.norm(kernels[0])


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "attached"])
@pytest.mark.parametrize("layers", [(0,), (1, 0)], ids=str)
def test_early_layers_have_the_gradient_that_a_pass_through_all_blocks_gives(
    layers: tuple[int, ...], detach: bool, float64: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tiny.batch(("full", "no_caption", "full"))
    rows["images"] = rows["images"][:, :0]
    part, rest = _split("decoder")
    cfg = _guide(layers=layers, detach_caption=detach)
    assert cfg.blocks == max(layers) + 1 < 3
    early = _guide_loss(rows, cfg)(part, rest)
    monkeypatch.setattr(GuideConfig, "blocks", 3)
    whole = _guide_loss(rows, cfg)(part, rest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), early, whole)


def test_bfloat16_sums_and_states_are_float32() -> None:
    run = functools.partial(forward, tiny.model(dtype="bfloat16"), guided=True, ce_chunk=4)
    passes = jax.eval_shape(run, tiny.params(), _mixed())
    assert {x.dtype for x in jax.tree.leaves(passes)} == {jnp.dtype("float32")}


def test_bfloat16_embedding_gradient_is_summed_in_float32() -> None:
    """A frequent token's places are many: a bfloat16 sum over 1000 of them is 3% off."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(6, 8, (4, 512)).astype(np.int32)
    weights = jnp.asarray(rng.normal(size=(4, 512, tiny.WIDTH)), jnp.bfloat16)
    wanted = np.zeros((tiny.VOCAB, tiny.WIDTH))
    np.add.at(wanted, tokens, np.asarray(weights, np.float64))

    def loss(params: Any) -> jax.Array:
        embeddings = tiny.model(dtype="bfloat16").embed(params, tokens, None)
        return jnp.sum((embeddings * weights).astype(jnp.float32))

    grad = jax.jit(jax.grad(loss))(tiny.params())["decoder"]["embed"]
    np.testing.assert_allclose(grad, wanted, rtol=1e-4, atol=1e-4)
