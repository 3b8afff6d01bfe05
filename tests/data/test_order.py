"""Every sample is used equally often, in batches of one modality and like lengths."""

from collections import Counter

import numpy as np
import pytest

from tga_jax.data.lazy_records import Known
from tga_jax.data.order import plan_order


@pytest.mark.parametrize(("samples", "batch_size"), [(23, 4), (24, 4), (5, 8), (3, 10), (1, 3)])
def test_every_sample_is_used_equally_often(samples, batch_size):
    has_image = np.arange(samples) % 3 > 0
    known = Known(np.arange(samples), 2 * has_image, np.arange(samples) % 5 > 0)
    order = plan_order(known, batch_size=batch_size, steps=3 * samples, seed=1)
    assert order.shape == (3 * samples, batch_size)
    for step in range(1, len(order) + 1):
        uses = np.bincount(order[:step].ravel(), minlength=samples)
        assert uses.max() - uses.min() <= 1
    assert set(np.bincount(order.ravel())) == {3 * batch_size}


def test_order_depends_on_seed_and_epoch_and_only_grows_with_steps():
    def plan(**changes):
        settings = {"batch_size": 4, "steps": 10, "seed": 5, **changes}
        return plan_order(Known(np.ones(20), *np.ones((2, 20), bool)), **settings)

    np.testing.assert_array_equal(plan(), plan())
    np.testing.assert_array_equal(plan(steps=30)[:10], plan())
    assert (plan(seed=6) != plan()).any()
    assert (plan()[:5] != plan()[5:]).any()
    assert Counter(plan()[:5].ravel()) == Counter(range(20))


def test_batches_are_of_one_modality_and_like_lengths():
    rng = np.random.default_rng(0)
    lengths, has_image = rng.integers(1, 1000, 2000), rng.random(2000) < 0.6
    known = Known(lengths, has_image, np.ones(2000, bool))
    order = plan_order(known, batch_size=8, steps=249, seed=0)
    assert np.mean([len(set(has_image[batch])) == 1 for batch in order]) > 0.99
    spread = np.ptp(lengths[order], axis=1)
    assert np.median(spread) < 30  # about 870 for random batches
    # Sorted neighbours, but in random order: batches next to each other aren't alike.
    means = lengths[order].mean(axis=1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def test_samples_without_an_answer_are_spread_over_the_batches():
    """They are shorter than all others, and would fill batches of their own by their length."""
    rng = np.random.default_rng(0)
    answered = rng.random(4000) < 0.75
    lengths = np.where(answered, rng.integers(50, 1000, 4000), rng.integers(10, 40, 4000))
    known = Known(lengths, np.ones(4000, bool), answered)
    order = plan_order(known, batch_size=8, steps=500, seed=0)
    without = 8 - answered[order].sum(axis=1)
    assert 1 <= without.min() and without.max() <= 3  # 2 of 8, rounded
    with_answer = [lengths[batch][answered[batch]] for batch in order]
    assert np.median([np.ptp(found) for found in with_answer]) < 50
