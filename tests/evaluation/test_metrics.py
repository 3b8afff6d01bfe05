"""Statistics against brute force, and against scipy where it has them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from tga_jax.evaluation import metrics

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (517, 1680)])
def test_wilson_solves_the_score_equation(k: int, n: int) -> None:
    low, high = metrics.wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for bound in (low, high):
        if 1e-9 < bound < 1 - 1e-9:  # |share - bound| is z standard errors at the bound
            assert abs(k / n - bound) == pytest.approx(
                1.959964 * math.sqrt(bound * (1 - bound) / n)
            )


def test_nothing_known_of_nothing() -> None:
    assert metrics.wilson(0, 0) == (0, 1)


@pytest.mark.parametrize("values", [3, 1000])  # many ties, and hardly any
def test_auc_counts_pairs(values: int) -> None:
    positive, negative = RNG.integers(0, values, 37) + 1, RNG.integers(0, values, 23)
    pairs = [(p > n) + (p == n) / 2 for p, n in itertools.product(positive, negative)]
    assert metrics.auc(positive, negative) == pytest.approx(np.mean(pairs), abs=1e-12)
    wanted = stats.mannwhitneyu(positive, negative).statistic / (37 * 23)
    assert metrics.auc(positive, negative) == pytest.approx(wanted, abs=1e-12)


def test_delongs_interval_is_that_of_resampling() -> None:
    positive, negative = RNG.normal(1, 1, 150), RNG.normal(0, 2, 200)
    figure = metrics.auc_figure(positive, negative)
    drawn = metrics.bootstrap(metrics.auc, positive, negative, draws=2000)
    np.testing.assert_allclose(figure.interval, drawn, atol=0.01)


def test_values_that_are_all_alike_are_not_taken_for_certain() -> None:
    room = metrics.wilson(0, 20)[1]
    assert metrics.auc_figure([1.0] * 20, [0.0] * 30).interval == (1 - room, 1)
    none = metrics.matched_figure([0.0] * 20, list(range(1, 40)), 0.05)
    assert (none.value, none.interval) == (0, (0, room))
    same = metrics.paired_difference([True] * 20, [True] * 20)
    assert (same.value, same.interval) == (0, (-room, room))
    assert metrics.paired_difference([True] * 20, [False] * 20).interval == (1 - room, 1)
    f1 = metrics.yes_no_figures([True, False] * 10, [True, False] * 10)["f1"]
    assert f1.interval == (1 - metrics.wilson(0, 10)[1], 1)  # no true "no" enters it


def test_delongs_variance_by_its_definition() -> None:
    positive, negative = RNG.integers(0, 6, 9), RNG.integers(0, 5, 7)
    score = np.array([[(p > n) + (p == n) / 2 for n in negative] for p in positive])
    variance = np.var(score.mean(1), ddof=1) / 9 + np.var(score.mean(0), ddof=1) / 7
    low, high = metrics.auc_figure(positive, negative).interval
    half = min(high - score.mean(), score.mean() - low)
    assert half == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5) or high == 1 or low == 0


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.29, 1.0])
@pytest.mark.parametrize("values", [4, 10**6])
def test_the_matched_threshold_is_the_lowest_that_keeps_the_rate(rate: float, values: int) -> None:
    benign, harmful = RNG.integers(0, values, 100).astype(float), RNG.integers(0, values, 60)
    kept = [t for t in [-math.inf, *benign] if np.mean(benign > t) <= rate]
    wanted = min(kept)
    assert metrics.matched_threshold(benign, rate) == wanted
    assert metrics.matched_share(harmful, benign, rate) == np.mean(harmful > wanted)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (2, 11), (40, 17)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    first = [True] * b + [False] * c + [True, False] * 9
    second = [False] * b + [True] * c + [True, False] * 9
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert metrics.mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail), abs=1e-12)


def test_a_paired_interval_is_narrower_than_an_unpaired_one() -> None:
    first = RNG.random(300) < 0.5
    second = first ^ (RNG.random(300) < 0.05)  # nearly the same answers
    figure = metrics.paired_difference(first.tolist(), second.tolist())
    assert figure.value == pytest.approx(first.mean() - second.mean())
    difference = first.astype(float) - second
    normal = 1.96 * difference.std() / math.sqrt(300)
    np.testing.assert_allclose(
        figure.interval, (figure.value - normal, figure.value + normal), atol=0.006
    )


def test_yes_and_no_by_hand() -> None:
    said = [True] * 6 + [False] * 4
    label = [True, True, True, False, False, False, False, False, True, False]
    figures = metrics.yes_no_figures(said, label)
    values = {name: figure.value for name, figure in figures.items()}
    assert values == pytest.approx(
        {"accuracy": 0.6, "precision": 0.5, "recall": 0.75, "f1": 0.6, "yes_ratio": 0.6}
    )
    assert [figures[name].count for name in values] == [10, 6, 4, 10, 10]
    assert all(f.interval[0] <= f.value <= f.interval[1] for f in figures.values())
    never = metrics.yes_no_figures([False, False], [True, False])
    assert never["precision"].value == never["f1"].value == 0


def test_questions_about_one_image_count_as_one() -> None:
    """60 images, each with one outcome five times, tell no more than 60 outcomes."""
    once = (RNG.random(60) < 0.4).tolist()
    five, images = [o for o in once for _ in range(5)], [i for i in range(60) for _ in range(5)]
    wide, single = metrics.share(five, images).interval, metrics.share(once).interval
    np.testing.assert_allclose(wide, single, atol=0.03)
    naive = metrics.share(five).interval
    assert wide[1] - wide[0] > 1.8 * (naive[1] - naive[0])
    assert metrics.share(once, range(60)).interval == single
    room = metrics.wilson(0, 4)[1]
    assert metrics.share([False] * 20, [i % 4 for i in range(20)]).interval == (0, room)


def test_pairs_of_models_are_clustered_too() -> None:
    first = [o for o in RNG.random(40) < 0.6 for _ in range(5)]
    second = [o for o in RNG.random(40) < 0.5 for _ in range(5)]
    images = [i for i in range(40) for _ in range(5)]
    wide = metrics.paired_difference(first, second, clusters=images).interval
    naive = metrics.paired_difference(first, second).interval
    assert wide[1] - wide[0] > 1.8 * (naive[1] - naive[0])
    once = metrics.mcnemar(first[::5], second[::5])
    assert metrics.cluster_p_value(first, second, images) == pytest.approx(once, abs=0.03)
    assert metrics.cluster_p_value(first, first, images) == 1


def test_clusters_in_both_groups_of_margins() -> None:
    positive, negative = RNG.normal(1, 1, 40), RNG.normal(0, 1, 50)
    groups = ([*range(40)] * 4, [*range(40, 90)] * 4)
    four = metrics.auc_figure([*positive] * 4, [*negative] * 4, groups)
    once = metrics.auc_figure(positive, negative)
    assert four.value == pytest.approx(once.value)
    np.testing.assert_allclose(four.interval, once.interval, atol=0.03)


def test_yes_and_no_of_clusters() -> None:
    said, label = (RNG.random(50) < 0.5).tolist(), (RNG.random(50) < 0.5).tolist()
    images = [i for i in range(50) for _ in range(6)]
    six = metrics.yes_no_figures([s for s in said for _ in range(6)],
                                 [y for y in label for _ in range(6)], images)  # fmt: skip
    once = metrics.yes_no_figures(said, label)
    for name, figure in six.items():
        assert figure.value == pytest.approx(once[name].value)
        np.testing.assert_allclose(figure.interval, once[name].interval, atol=0.05)


@pytest.mark.parametrize("yes", [3, 10])
def test_precision_of_few_yes_is_of_the_images_that_have_one(yes: int) -> None:
    said = [i < 6 * yes and i % 6 == 0 for i in range(3000)]
    images = [i // 6 for i in range(3000)]
    found = metrics.yes_no_figures(said, said, images)["precision"]
    assert (found.value, found.count) == (1.0, yes)
    np.testing.assert_allclose(found.interval, metrics.wilson(yes, yes))


def test_a_yes_that_nobody_said_has_no_precision() -> None:
    for images in (None, [0, 0, 1, 1]):
        found = metrics.yes_no_figures([False] * 4, [True, False] * 2, images)["precision"]
        assert (found.value, found.interval, found.count) == (0.0, (0.0, 1.0), 0)


@pytest.mark.parametrize("questions", [1, 5])
def test_a_single_harmful_item_tells_next_to_nothing(questions: int) -> None:
    negative, images = [*RNG.normal(0, 1, 100)], [*range(100)]
    groups = ([-1] * questions, images * questions)
    found = metrics.auc_figure([0.1] * questions, negative * questions, groups)
    low, high = found.interval
    assert low < 0.1 and high > 0.9
