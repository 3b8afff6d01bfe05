"""Many prompts in few rows, against the answers that one batch of all of them gives."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pytest

from tests import tiny
from tga_jax.inference.generate import Decoding, make_generate
from tga_jax.inference.refill import Answered, Group, Refill

NEW, LENGTH, COUNT = 10, 24, 21
ENDS = tuple(range(48, 56))  # an eighth of the vocabulary, so that answers end at unequal times
APOLOGIES = (7, 20, 33)
GREEDY = Decoding(NEW, ENDS, tiny.PAD)
SAMPLED = Decoding(NEW, ENDS, tiny.PAD, temperature=1.3, top_p=0.9)
DECODINGS = pytest.mark.parametrize("decoding", [GREEDY, SAMPLED], ids=["greedy", "sampled"])


@functools.cache
def prompts() -> tuple[Any, ...]:
    """tokens, segments, images, keys of COUNT prompts of unequal length, every third with an
    image."""
    keys = jax.random.split(jax.random.key(0), COUNT)
    return *tiny.prompts(1, COUNT, LENGTH, image_every=3), keys


def groups(order: Sequence[int], size: int) -> Iterator[Group]:
    """Prompts of like shape together, padded to a multiple of 8; the last ones are filled up."""
    tokens, segments, images, keys = prompts()
    shapes: dict[tuple[int, bool], list[int]] = {}
    for row in order:
        shape = -(-int(segments[row].sum()) // 8) * 8, row % 3 == 0
        shapes.setdefault(shape, []).append(row)
    for (length, shown), rows in shapes.items():
        for start in range(0, len(rows), size):
            names = rows[start : start + size]
            chosen = np.resize(names, size)
            cut = tokens[chosen, :length], segments[chosen, :length]
            yield Group(names, *cut, images[chosen, : int(shown)], keys[chosen])


@functools.cache
def together(decoding: Decoding) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and margins of all prompts as one batch."""
    generate = make_generate(tiny.model(), decoding, apologies=APOLOGIES)
    return tuple(map(np.asarray, generate(tiny.params(), *prompts())))  # type: ignore[return-value]


@functools.cache
def refill(decoding: Decoding, rows: int, group: int) -> Refill:
    return Refill(
        tiny.model(), decoding, rows=rows, group=group, lengths=(16, 32), apologies=APOLOGIES
    )


def answers(found: Refill, order: Sequence[int], size: int, shift: Any = None) -> list[Answered]:
    new = found.answers(tiny.params(), groups(order, size), shift)
    return [one for some in new for one in some]


@DECODINGS
@pytest.mark.parametrize("order", ["as they are", "other rows, other neighbours"])
def test_answers_are_those_of_one_batch(decoding: Decoding, order: str) -> None:
    rows = list(range(COUNT))
    if order != "as they are":
        rows = np.random.default_rng(2).permutation(COUNT).tolist()
    found = answers(refill(decoding, 4, 2), rows, 2)
    assert sorted(one.name for one in found) == list(range(COUNT))
    tokens, margins = together(decoding)
    lengths = np.sum(tokens != tiny.PAD, axis=1)
    assert lengths.min() == 1 and lengths.max() == NEW and len(set(lengths)) > 4
    for one in found:
        np.testing.assert_array_equal(one.tokens, tokens[one.name])
        assert one.margin == pytest.approx(float(margins[one.name]), abs=1e-5)


@pytest.mark.parametrize(("rows", "group"), [(1, 1), (3, 2), (8, 8), (64, 16)])
def test_the_number_of_rows_does_not_count(rows: int, group: int) -> None:
    found = answers(refill(GREEDY, rows, group), range(COUNT), group)
    tokens = {one.name: one.tokens for one in found}
    np.testing.assert_array_equal([tokens[i] for i in range(COUNT)], together(GREEDY)[0])


def test_answers_come_as_they_end() -> None:
    asked: list[int] = []

    def noted() -> Iterator[Group]:
        for group in groups(range(COUNT), 2):
            asked.append(len(group.names))
            yield group

    told = 0
    for new in refill(GREEDY, 4, 2).answers(tiny.params(), noted()):
        told += len(new)
        assert sum(asked) - told <= 4 + 2  # in the making, and the group that waits
    assert told == COUNT


def test_one_token_is_all() -> None:
    decoding = Decoding(1, ENDS, tiny.PAD)
    found = answers(refill(decoding, 4, 2), range(COUNT), 2)
    tokens = {one.name: one.tokens for one in found}
    want = together(GREEDY)[0][:, :1]
    np.testing.assert_array_equal([tokens[i] for i in range(COUNT)], want)


def test_no_prompts_no_answers() -> None:
    assert answers(refill(GREEDY, 4, 2), [], 2) == []


def test_a_steered_model_says_what_it_says_in_one_batch() -> None:
    shift = np.zeros((tiny.LAYERS, tiny.WIDTH), np.float32)
    shift[1] = 3 * np.random.default_rng(0).normal(size=tiny.WIDTH)
    generate = make_generate(tiny.model(), GREEDY)
    want = np.asarray(generate(tiny.params(), *prompts(), shift))
    assert not np.array_equal(want, together(GREEDY)[0])
    found = {one.name: one.tokens for one in answers(refill(GREEDY, 4, 2), range(COUNT), 2, shift)}
    np.testing.assert_array_equal([found[i] for i in range(COUNT)], want)


def test_a_second_set_of_questions_compiles_nothing_and_is_warm() -> None:
    found = refill(GREEDY, 4, 2)
    answers(found, range(COUNT), 2)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    again = answers(found, range(COUNT), 2)
    assert not any(one.cold for one in again) and all(one.seconds > 0 for one in again)
    assert not compiled
