"""Generated answers against full forward passes without a cache, and what sampling draws."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tga_jax.inference.generate import Decoding, choose, make_generate

NEW, LENGTH = 5, 16
KEYS = jax.random.split(jax.random.key(0), 4)


@functools.cache
def _prompts() -> dict[str, np.ndarray]:
    """Four prompts of unequal length, two with an image."""
    rng = np.random.default_rng(1)
    tokens = np.full((4, LENGTH), tiny.PAD, np.int32)
    lengths = (9, 3, LENGTH, 6)
    for row, length in enumerate(lengths):
        tokens[row, :length] = rng.integers(tiny.IMAGE_TOKEN + 1, tiny.VOCAB, length)
    for row in (0, 2):
        tokens[row, 1 : 1 + tiny.PATCHES] = tiny.IMAGE_TOKEN
    segments = (np.arange(LENGTH) < np.array(lengths)[:, None]).astype(np.int32)
    images = rng.integers(0, 256, (4, 1, tiny.SIDE, tiny.SIDE, 3)).astype(np.uint8)
    return {"tokens": tokens, "segments": segments, "images": images}


@functools.cache
def _generator(decoding: Decoding) -> Any:
    return make_generate(tiny.model(), decoding)


def _generate(prompts: dict[str, Any], decoding: Decoding, keys: jax.Array = KEYS) -> np.ndarray:
    return np.asarray(
        _generator(decoding)(
            tiny.params(), prompts["tokens"], prompts["segments"], prompts["images"], keys
        )
    )


@jax.jit
def _next_logits(params: Any, tokens: jax.Array, images: jax.Array, length: jax.Array) -> Any:
    """A full forward pass over one row: float32[V] after its first `length` tokens."""
    model, place = tiny.model(), jnp.arange(tokens.shape[1])[None]
    out = model.decode(
        params,
        model.embed(params, tokens, images),
        positions=place,
        segments=(place < length).astype(jnp.int32),
    )
    return model.logits(params, out.hidden[0, length - 1])


@functools.cache
def _greedy_by_full_forwards() -> np.ndarray:
    prompts, answers = _prompts(), np.zeros((4, NEW), np.int32)
    for row in range(4):
        length = int(prompts["segments"][row].sum())
        tokens = np.full((1, LENGTH + NEW), tiny.PAD, np.int32)
        tokens[0, :length] = prompts["tokens"][row, :length]
        for count in range(NEW):
            logits = _next_logits(
                tiny.params(), tokens, prompts["images"][row : row + 1], length + count
            )
            answers[row, count] = tokens[0, length + count] = int(jnp.argmax(logits))
    return answers


GREEDY = Decoding(NEW, eos_ids=(), pad_id=tiny.PAD)


def test_greedy_equals_full_forward_passes() -> None:
    answers = _generate(_prompts(), GREEDY)
    np.testing.assert_array_equal(answers, _greedy_by_full_forwards())
    assert len({tuple(row) for row in answers}) == 4


def test_padding_follows_the_end() -> None:
    full = _greedy_by_full_forwards()
    ends = (int(full[0, 1]), int(full[1, 0]))
    answers = _generate(_prompts(), Decoding(NEW, eos_ids=ends, pad_id=3))
    for row, whole in zip(answers, full, strict=True):
        stops = [i for i, token in enumerate(whole) if token in ends]
        end = stops[0] + 1 if stops else NEW
        np.testing.assert_array_equal(row[:end], whole[:end])
        np.testing.assert_array_equal(row[end:], 3)
    assert answers[0, 2] == 3 and answers[1, 1] == 3


SAMPLING = Decoding(NEW, eos_ids=(), pad_id=tiny.PAD, temperature=1.5, top_p=0.9)


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLING], ids=["greedy", "sampling"])
def test_an_answer_depends_on_neither_neighbours_nor_padding(decoding: Decoding) -> None:
    prompts, answers = _prompts(), _generate(_prompts(), decoding)
    order = np.array([2, 0, 3, 1])
    shuffled = _generate(tiny.take(prompts, order), decoding, KEYS[order])
    np.testing.assert_array_equal(shuffled, answers[order])
    # Other neighbours, other padding tokens, and other pixels in the rows without an image.
    tokens, images = prompts["tokens"].copy(), prompts["images"].copy()
    tokens[prompts["segments"] == 0] = 17
    tokens[2, 7:] = 23
    images[[1, 3]] = 0
    changed = _generate(prompts | {"tokens": tokens, "images": images}, decoding)
    np.testing.assert_array_equal(changed[[0, 1, 3]], answers[[0, 1, 3]])


def test_longer_padding_gives_the_same_answer() -> None:
    prompts = tiny.take(_prompts(), slice(1, 2))
    wide = {k: np.pad(v, ((0, 0), (0, 4))) for k, v in prompts.items() if k != "images"}
    answer = _generate(wide | {"images": prompts["images"]}, GREEDY, KEYS[:1])
    np.testing.assert_array_equal(answer, _greedy_by_full_forwards()[1:2])


def test_samples_are_decided_by_the_key() -> None:
    first = _generate(_prompts(), SAMPLING)
    np.testing.assert_array_equal(first, _generate(_prompts(), SAMPLING))
    other = _generate(_prompts(), SAMPLING, jax.random.split(jax.random.key(1), 4))
    assert not np.array_equal(first, other)


# --- one token's distribution ---

LOGITS = np.log(np.array([0.05, 0.4, 0.02, 0.3, 0.13, 0.1], np.float32))


def _draws(decoding: Decoding, count: int = 20_000) -> np.ndarray:
    keys = jax.random.split(jax.random.key(7), count)
    drawn = choose(jnp.broadcast_to(LOGITS, (count, len(LOGITS))), keys, decoding)
    return np.bincount(drawn, minlength=len(LOGITS))


def _chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    kept = probabilities > 0
    assert counts[~kept].sum() == 0
    expected = counts.sum() * probabilities[kept]
    return float(np.sum((counts[kept] - expected) ** 2 / expected))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_softmax(temperature: float) -> None:
    wanted = np.exp(LOGITS.astype(np.float64) / temperature)
    counts = _draws(Decoding(1, (), 0, temperature=temperature))
    assert _chi_square(counts, wanted / wanted.sum()) < 20.5  # 5 degrees, one in a thousand


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.0, [1]), (0.3, [1]), (0.69, [1, 3]), (0.75, [1, 3, 4]), (0.999, [0, 1, 2, 3, 4, 5])],
)
def test_top_p_keeps_the_smallest_set(top_p: float, kept: list[int]) -> None:
    wanted = np.zeros(len(LOGITS))
    wanted[kept] = np.exp(LOGITS[kept])
    counts = _draws(Decoding(1, (), 0, temperature=1.0, top_p=top_p))
    assert _chi_square(counts, wanted / wanted.sum()) < 20.5


def test_temperature_zero_is_the_likeliest() -> None:
    assert _draws(Decoding(1, (), 0), 10).tolist() == [0, 10, 0, 0, 0, 0]
