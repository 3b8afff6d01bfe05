"""Cohen's kappa and its interval, against scikit-learn and the textbook's large-sample error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tga_jax.evaluation.kappa import cohen_kappa, kappa_figure
from tga_jax.evaluation.metrics import wilson

# 20 answers that both judges call refusals, 5 and 10 that one of them does, 15 that none does.
FIRST = [True] * 25 + [False] * 25
SECOND = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15


def test_the_textbooks_example_and_random_verdicts() -> None:
    assert cohen_kappa(FIRST, SECOND) == pytest.approx(0.4)
    rng = np.random.default_rng(0)
    for share in (0.05, 0.5, 0.9):
        first = rng.random(80) < share
        second = first ^ (rng.random(80) < 0.2)
        assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))


def test_the_interval_is_as_wide_as_the_large_sample_error_says() -> None:
    first, second = FIRST * 20, SECOND * 20
    figure = kappa_figure(first, second)
    assert figure is not None and figure.count == 1000
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000) / (1 - 0.5)
    assert figure.interval == pytest.approx((0.4 - half, 0.4 + half), abs=0.01)


def test_questions_about_one_image_are_one_cluster() -> None:
    alone = kappa_figure(FIRST, SECOND)
    four = kappa_figure(FIRST * 4, SECOND * 4, [*range(50)] * 4)
    apart = kappa_figure(FIRST * 4, SECOND * 4)
    assert alone is not None and four is not None and apart is not None
    assert four.value == pytest.approx(alone.value)
    assert four.interval == pytest.approx(alone.interval, abs=0.02)
    assert apart.interval[1] - apart.interval[0] < 0.6 * (four.interval[1] - four.interval[0])


def test_judges_that_always_agree_are_not_certain_to() -> None:
    figure = kappa_figure(FIRST, FIRST)
    assert figure is not None and figure.value == 1
    # none of 50 differed, and half would agree by chance
    assert figure.interval == pytest.approx((1 - 2 * wilson(0, 50)[1], 1))


def test_one_word_for_all_answers_has_no_kappa() -> None:
    assert kappa_figure([False] * 9, [False] * 9) is None
    constant = kappa_figure(FIRST, [False] * 50)
    assert constant is not None and constant.value == 0
    assert constant.interval[0] < 0 < constant.interval[1]
