"""Guide terms and centring against plain loops, gradients against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.alignment import guide_oracle
from tga_jax.alignment import guide
from tga_jax.alignment.guide import GuideConfig, GuideStates, RunningMean

LAYERS, BATCH, WIDTH = 3, 5, 7
PROGRESS = 0.3


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def _arrays(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0.3, 1, (LAYERS, BATCH, WIDTH)) for _ in range(3)]


def _states(*arrays: np.ndarray) -> GuideStates:
    return GuideStates(*map(jnp.asarray, arrays))


def _oracle(form: str, image, retrieved, caption) -> tuple[float, float]:
    if form == "paper":
        return guide_oracle.paper(image, retrieved, caption)
    return guide_oracle.released(image, retrieved, caption, PROGRESS)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_terms_equal_plain_evaluation(form: str) -> None:
    image, retrieved, caption = _arrays()
    terms = guide.guide_terms(
        _states(image, retrieved, caption), form=form, progress=jnp.float64(PROGRESS)
    )
    for b in range(BATCH):
        pair, hinge = _oracle(form, image[:, b], retrieved[:, b], caption[:, b])
        np.testing.assert_allclose(terms.pair[b], pair, rtol=1e-12)
        np.testing.assert_allclose(terms.hinge[b], hinge, rtol=1e-12)
        mean = np.mean([guide_oracle.cosine(image[j, b], caption[j, b]) for j in range(LAYERS)])
        np.testing.assert_allclose(terms.cosine[b], mean, rtol=1e-12)


def test_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        guide.guide_terms(_states(*_arrays()), form="nonsense", progress=jnp.float64(0))


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("which", ["image", "retrieved", "caption"])
def test_gradient_equals_finite_differences(form: str, which: str) -> None:
    states = dict(zip(("image", "retrieved", "caption"), _arrays(1), strict=True))
    fixed = {name: jnp.asarray(value) for name, value in states.items()}

    def loss(x: jax.Array) -> jax.Array:
        terms = guide.guide_terms(
            GuideStates(**{**fixed, which: x}), form=form, progress=jnp.float64(PROGRESS)
        )
        return jnp.sum(0.7 * terms.pair + 1.3 * terms.hinge)

    grad = np.asarray(jax.grad(loss)(fixed[which]))
    assert np.all(np.linalg.norm(grad, axis=-1) > 1e-3)
    h, evaluate = 1e-5, jax.jit(loss)
    for index in np.ndindex(grad.shape[0], 2, WIDTH):
        step = np.zeros_like(grad)
        step[index] = h
        slope = (evaluate(states[which] + step) - evaluate(states[which] - step)) / (2 * h)
        np.testing.assert_allclose(grad[index], slope, rtol=1e-6, atol=1e-9)


def test_cosine_of_a_zero_vector_is_zero_with_zero_gradient() -> None:
    a, zero = jnp.array([1.0, 2.0]), jnp.zeros(2)
    for args in ((a, zero), (zero, a), (zero, zero)):
        assert guide.safe_cosine(*args) == 0
        for grad in jax.grad(guide.safe_cosine, argnums=(0, 1))(*args):
            np.testing.assert_array_equal(grad, 0)


def test_rows_without_a_text_have_finite_values_and_no_gradient() -> None:
    image, retrieved, caption = _arrays(2)
    retrieved[:, 1] = 0  # an empty span's mean
    caption[:, 2] = 0
    retrieved[:, 3] = caption[:, 3] = image[:, 3] = 0
    pair = jnp.array([True, True, False, False, True])
    hinge = jnp.array([True, False, False, False, True])

    def loss(states: GuideStates) -> jax.Array:
        terms = guide.guide_terms(states, form="paper", progress=jnp.float64(0))
        masked = jnp.where(pair, terms.pair, 0.0) + jnp.where(hinge, terms.hinge, 0.0)
        return jnp.sum(masked)

    value, grads = jax.value_and_grad(loss)(_states(image, retrieved, caption))
    assert np.isfinite(value)
    for grad in jax.tree.leaves(grads):
        assert np.all(np.isfinite(grad))
        np.testing.assert_array_equal(grad[:, 2:4], 0)
    np.testing.assert_array_equal(grads.retrieved[:, 1], 0)
    assert np.all(np.linalg.norm(grads.image[:, [0, 1, 4]], axis=-1) > 0)


# --- centring ---

HAS_PAIR = np.array([True, True, True, False, True])


def _mean(caption: np.ndarray) -> np.ndarray:
    """float64[layers, width], over the samples that have a pair."""
    chosen = [caption[:, b] for b in range(BATCH) if HAS_PAIR[b]]
    return sum(chosen) / len(chosen)


def test_batch_mean_is_over_the_samples_with_a_pair() -> None:
    image, retrieved, caption = _arrays(3)
    total = guide.caption_sum(jnp.asarray(caption), jnp.asarray(HAS_PAIR))
    mean = guide.caption_mean(total, jnp.int32(HAS_PAIR.sum()))
    np.testing.assert_allclose(mean, _mean(caption), rtol=1e-12)
    states = guide.center(_states(image, retrieved, caption), mean)
    for raw, centred in zip((image, retrieved, caption), jax.tree.leaves(states), strict=True):
        np.testing.assert_allclose(centred, raw - np.asarray(mean)[:, None], rtol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 7, 33])
def test_equal_captions_have_no_terms_and_no_gradient(count: int) -> None:
    """In float32 a mean of equal states differs from them by rounding, which must not count."""
    rng = np.random.default_rng(count)
    caption = np.tile(rng.normal(3, 1, (LAYERS, 1, WIDTH)), (1, count, 1)).astype(np.float32)
    image, retrieved = (rng.normal(size=caption.shape).astype(np.float32) for _ in range(2))
    total = guide.caption_sum(jnp.asarray(caption), jnp.ones(count, bool))
    mean = guide.caption_mean(total, jnp.int32(count))

    def loss(image: jax.Array) -> tuple[jax.Array, guide.GuideTerms]:
        states = guide.center(
            GuideStates(image, jnp.asarray(retrieved), jnp.asarray(caption)), mean
        )
        terms = guide.guide_terms(states, form="paper", progress=jnp.float32(0))
        return jnp.sum(terms.pair + terms.hinge), terms

    gradient, terms = jax.grad(loss, has_aux=True)(jnp.asarray(image))
    np.testing.assert_array_equal(terms.pair, 0)
    np.testing.assert_allclose(terms.hinge, LAYERS * np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 0)


def test_a_small_difference_of_captions_counts() -> None:
    """A thousandth of a state is far more than rounding."""
    base = np.random.default_rng(0).normal(3, 1, (LAYERS, 1, WIDTH))
    caption = (base * (1 + np.array([[[0.0], [1e-3]]]))).astype(np.float32)
    mean = caption.mean(axis=1)
    left = guide.minus_mean(jnp.asarray(caption), jnp.asarray(mean)[:, None])
    np.testing.assert_array_equal(left, caption - mean[:, None])


def test_a_batch_without_a_pair_has_the_mean_zero() -> None:
    total = guide.caption_sum(jnp.asarray(_arrays()[2]), jnp.zeros(BATCH, bool))
    np.testing.assert_array_equal(guide.caption_mean(total, jnp.int32(0)), 0)


def test_no_gradient_flows_through_the_mean() -> None:
    arrays = _arrays(4)

    def loss(mean: jax.Array) -> jax.Array:
        states = guide.center(_states(*arrays), mean)
        return jnp.sum(guide.guide_terms(states, form="paper", progress=jnp.float64(0)).pair)

    np.testing.assert_array_equal(jax.grad(loss)(jnp.asarray(_mean(arrays[2]))), 0)


def test_means_are_summed_in_full_precision_on_any_device() -> None:
    """Centred states are small differences of large means: no TF32 or bfloat16 passes here."""
    args = jnp.ones((LAYERS, BATCH, WIDTH), jnp.float32), jnp.asarray(HAS_PAIR)
    text = str(jax.make_jaxpr(guide.caption_sum)(*args))
    assert "dot_general" not in text or "HIGHEST" in text


def test_running_mean_is_bias_corrected() -> None:
    decay, running = 0.9, RunningMean.empty(LAYERS, WIDTH)
    np.testing.assert_array_equal(running.mean(), 0)
    assert not running.known()
    history: list[np.ndarray] = []
    for step in range(4):
        caption = _arrays(10 + step)[2]
        total = guide.caption_sum(jnp.asarray(caption), jnp.asarray(HAS_PAIR))
        running = running.update(total, jnp.int32(HAS_PAIR.sum()), decay)
        history.append(_mean(caption))
        weights = [decay ** (step - i) for i in range(step + 1)]
        expected = sum(w * m for w, m in zip(weights, history, strict=True)) / sum(weights)
        # float32 state, whatever the precision of the step's sums
        np.testing.assert_allclose(running.mean(), expected, rtol=1e-5, atol=1e-6)
    assert running.known()


def test_a_step_without_a_caption_leaves_the_running_mean_alone() -> None:
    total = jnp.ones((LAYERS, WIDTH))
    before = RunningMean.empty(LAYERS, WIDTH).update(total, jnp.int32(2), 0.9)
    after = before.update(total * 0, jnp.int32(0), 0.9)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    other = before.update(total * 5, jnp.int32(1), 0.9)
    assert np.all(np.asarray(other.mean()) > np.asarray(before.mean()))


def test_form_none_is_inactive() -> None:
    assert not GuideConfig("none", (0,)).active
    assert GuideConfig("paper", (0,)).active and GuideConfig("released", (0,)).active
