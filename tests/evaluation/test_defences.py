"""What the defences are compared by: the choice of a strength, and the seconds of a question."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import Benchmark, load
from tga_jax.evaluation.benchmarks.registry import parse_entries
from tga_jax.evaluation.development import check_apart, few_images
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.pace import Time, seconds_a_question, seconds_row
from tga_jax.evaluation.steering import Direction, Steering, Tried, check_strengths, choose
from tga_jax.files import write_json


def test_the_strength_that_refuses_most_harmful_images_within_the_bound() -> None:
    tried = [
        Tried(0.0, 1, 50, 0, 100), Tried(0.5, 9, 50, 2, 100), Tried(1.0, 30, 50, 5, 100),
        Tried(1.5, 30, 50, 4, 100), Tried(2.0, 49, 50, 6, 100),
    ]  # fmt: skip
    assert choose(tried, 0.05) == 1.0  # 1.5 is no better, 2.0 refuses too many harmless ones
    assert choose(tried, 0.06) == 2.0
    assert choose(tried, 0.02) == 0.5
    assert choose(tried, 0.0) == 0.0
    assert choose(tried[3:], 0.01) == 0.0  # where none fits: no steering


def test_a_strength_that_breaks_the_model_is_not_taken_for_a_cautious_one() -> None:
    # Seen on a small model: its answers are no words, so that nothing counts as a refusal.
    tried = [Tried(0.0, 115, 150, 28, 50), Tried(0.25, 150, 150, 50, 50), Tried(1.0, 0, 150, 0, 50)]
    assert choose(tried, 0.05) == 0.0
    assert choose([*tried, Tried(0.1, 116, 150, 2, 50)], 0.05) == 0.1


def test_a_strength_that_refuses_harmless_texts_is_not_taken() -> None:
    # Seen on a real model: 1 of 120 harmful images won, and 31% of the harmless texts refused.
    def tried(*texts: int) -> list[Tried]:
        plain = Tried(0.0, 0, 120, 0, 40, texts[0], 100)
        return [plain, *(Tried(i, i, 120, 0, 40, texts[i], 100) for i in range(1, len(texts)))]

    assert choose(tried(0, 5, 31), 0.05) == 1.0
    assert choose(tried(0, 6, 31), 0.05) == 0.0
    assert choose(tried(8, 8, 9), 0.05) == 1.0  # no more than the model refuses anyway


def test_nothing_is_added_where_the_model_gives_no_direction() -> None:
    defence = Steering(None, 0.0)
    assert defence.shift is None and defence.settings == {"name": "steering", "strength": 0.0}


def test_what_is_added_is_the_direction_at_its_layer() -> None:
    shift = Steering(Direction(2, 3, "texts", (1.0, -2.0)), 0.5).shift
    assert shift.dtype == np.float32
    np.testing.assert_array_equal(shift, [[0, 0], [0.5, -1], [0, 0]])


@pytest.mark.parametrize("strengths", [(), (1.0, -0.5), ("1",)])
def test_strengths_that_are_none(strengths: tuple) -> None:
    with pytest.raises(UserError, match="config.evaluate.steering.strengths"):
        check_strengths(strengths)


def test_a_question_costs_all_passes_at_their_warm_pace(tmp_path: Path) -> None:
    warm, cold = Time(1.0, False), Time(9.0, True)
    # Ten questions at one second, five of them asked again at two: 20 seconds for ten.
    passes = {"": [cold] * 4 + [warm] * 6, "again": [Time(2.0, False)] * 5, "defence": []}
    assert seconds_a_question(passes, 10) == {"seconds": 2.0, "questions": 10}
    alone = seconds_a_question({"": [cold] * 2}, 4)
    assert alone == {"seconds": 4.5, "questions": 4, "with_compiling": True}
    assert seconds_a_question({"": []}, 4) is None
    assert seconds_row(tmp_path) == []
    write_json(tmp_path / "seconds.json", alone)
    (row,) = seconds_row(tmp_path)
    assert (row.metric, row.figure.value, row.figure.count) == ("seconds", 4.5, 4)
    assert row.more == {"with_compiling": True}


def test_a_choice_on_few_images_says_so() -> None:
    def images(count: int, harmful: bool) -> list[EvalItem]:
        # Two questions about each image: images count.
        return [
            EvalItem(f"{n} {text}", text, f"{harmful}{n}.png", Path("x"), harmful=harmful)
            for n in range(count)
            for text in ("What?", "Who?")
        ]

    texts = [EvalItem(n, f"text {n}", harmful=True) for n in range(40)]
    assert few_images(images(30, True) + images(30, False)) == ""
    said = few_images(texts + images(4, True) + images(29, False))
    assert said.startswith("chosen on 4 harmful and 29 harmless images, which are few")
    assert "harmful and" not in few_images(images(4, False), kinds=[False])


@pytest.mark.parametrize("ours", ["", "?wrap=role_play", "?wrap=figstep"])
@pytest.mark.parametrize("theirs", ["", "?wrap=in_context", "?wrap=figstep"])
def test_a_text_that_is_asked_is_no_development_data_however_it_is_wrapped(
    tmp_path: Path, ours: str, theirs: str
) -> None:
    (tmp_path / "x.csv").write_text("prompt,label\nHow do I bake?,safe\n")
    (tmp_path / "y.csv").write_text("prompt,label\nHow do I boil?,safe\n")

    def benchmark(name: str, options: str) -> Benchmark:
        (entry,) = parse_entries(f"{name}=texts:{tmp_path / name}{options}")
        return load(entry, drawings=tmp_path / "run" / f"{name}{options}")

    with pytest.raises(UserError, match="what benchmark x.csv asks too, like 'How do I bake"):
        check_apart([benchmark("x.csv", ours)], [benchmark("x.csv", theirs)])
    check_apart([benchmark("y.csv", ours)], [benchmark("x.csv", theirs)])
