import numpy as np
import pytest

from tga_jax.data.batches import (
    balanced_rows,
    collate,
    default_buckets,
    pick_bucket,
)
from tga_jax.data.example import Example
from tga_jax.errors import UserError


def test_default_buckets_waste_at_most_half_and_end_at_the_longest():
    assert default_buckets(10) == (32,)
    assert default_buckets(96) == (64, 96)
    assert default_buckets(200) == (64, 96, 128, 192, 224)
    for longest in range(1, 3000, 37):
        buckets = default_buckets(longest)
        assert longest <= buckets[-1] < longest + 32
        assert all(
            small < big <= 2 * small for small, big in zip(buckets, buckets[1:], strict=False)
        )


def test_pick_bucket():
    assert [pick_bucket(n, (8, 16)) for n in (0, 8, 9, 16)] == [8, 8, 16, 16]
    with pytest.raises(UserError, match="record 3 has 17 tokens, more than .* 16"):
        pick_bucket(17, (8, 16), name="record 3")


def make_example(name, length, *, caption=0, **changes):
    fields = {
        "id": name,
        "tokens": np.arange(1, length + 1, dtype=np.int32),
        "labels": np.full(length, 7, np.int32),
        "image_spans": (),
        "retrieved_span": None,
        "caption_tokens": np.arange(caption, dtype=np.int32) + 50,
        "caption_span": (1, caption) if caption else None,
        "images": (),
        "tox": False,
        "truncated_tokens": 0,
    }
    return Example(**{**fields, **changes})


def batch(examples, **changes):
    settings = {"pad_id": 9, "buckets": (4, 8), "caption_buckets": (2, 6), "accumulate": 2}
    return collate(examples, **{**settings, **changes})


def test_collate():
    examples = [
        make_example("a", 3, image_spans=((1, 2), (2, 3)), retrieved_span=(0, 1)),
        make_example("b", 5, caption=3),
        make_example("c", 1),
        make_example("d", 2),
    ]
    arrays = batch(examples)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}
    assert arrays["tokens"].shape == (2, 2, 8) and arrays["caption_tokens"].shape == (2, 2, 6)
    assert arrays["tokens"][0].tolist() == [[1, 2, 3, 9, 9, 9, 9, 9], [1, 2, 3, 4, 5, 9, 9, 9]]
    assert arrays["labels"][0, 0].tolist() == [7, 7, 7, -100, -100, -100, -100, -100]
    assert arrays["segments"][1].tolist() == [[1] + [0] * 7, [1, 1] + [0] * 6]
    assert arrays["positions"][0, 0].tolist() == [0, 1, 2, 0, 0, 0, 0, 0]
    assert arrays["image_span"].tolist() == [[[1, 2], [0, 0]], [[0, 0], [0, 0]]]
    assert arrays["retrieved_span"].tolist() == [[[0, 1], [0, 0]], [[0, 0], [0, 0]]]
    assert arrays["caption_tokens"][0].tolist() == [[9] * 6, [50, 51, 52, 9, 9, 9]]
    assert arrays["caption_segments"][0].tolist() == [[0] * 6, [1, 1, 1, 0, 0, 0]]
    assert arrays["caption_span"].tolist() == [[[0, 0], [1, 3]], [[0, 0], [0, 0]]]


def test_collate_takes_the_smallest_buckets_and_refuses_longer_examples():
    arrays = batch([make_example("a", 4), make_example("b", 2)], accumulate=1)
    assert arrays["tokens"].shape == (1, 2, 4) and arrays["caption_tokens"].shape == (1, 2, 2)
    with pytest.raises(UserError, match="record b has 9 tokens, more than the largest length 8"):
        batch([make_example("a", 4), make_example("b", 9)])
    with pytest.raises(UserError, match="caption pass of record b has 7 tokens"):
        batch([make_example("a", 4), make_example("b", 4, caption=7)])


def test_packed_rows_hold_each_sample_as_it_is_alone():
    examples = [
        make_example("a", 3, image_spans=((1, 2),), retrieved_span=(0, 1)),
        make_example("b", 4, image_spans=((2, 3),), caption=3),
        make_example("c", 1),
        make_example("d", 2, retrieved_span=(0, 2)),
    ]
    arrays = batch(examples, accumulate=1, packing=2)
    assert arrays["tokens"][0].tolist() == [[1, 2, 3, 1, 2, 3, 4, 9], [1, 1, 2, 9, 9, 9, 9, 9]]
    assert arrays["segments"][0].tolist() == [[1, 1, 1, 2, 2, 2, 2, 0], [1, 2, 2, 0, 0, 0, 0, 0]]
    assert arrays["positions"][0].tolist() == [[0, 1, 2, 0, 1, 2, 3, 0], [0, 0, 1, 0, 0, 0, 0, 0]]
    # A sample's first token is learnt by nobody: the token before it is another sample's.
    assert arrays["labels"][0, 0].tolist() == [7, 7, 7, -100, 7, 7, 7, -100]
    assert arrays["image_span"][0].tolist() == [[1, 2], [5, 6], [0, 0], [0, 0]]
    assert arrays["retrieved_span"][0].tolist() == [[0, 1], [0, 0], [0, 0], [1, 3]]
    assert arrays["caption_span"][0].tolist() == [[0, 0], [1, 3], [0, 0], [0, 0]]
    assert arrays["caption_tokens"].shape == (1, 4, 6)
    with pytest.raises(UserError, match="records a, b has 9 tokens, more than the largest"):
        batch([make_example("a", 4), make_example("b", 5)], accumulate=1, packing=2)


def test_rows_are_balanced_and_without_packing_nothing_moves():
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 900, 48).tolist()
    assert balanced_rows(lengths, 1) == list(range(48))
    for packing in (2, 3, 4):
        order = balanced_rows(lengths, packing)
        assert sorted(order) == list(range(48))
        rows = np.array(lengths)[order].reshape(-1, packing).sum(axis=1)
        given = np.array(lengths).reshape(-1, packing).sum(axis=1)
        assert rows.max() < 1.15 * rows.mean() < 1.3 * rows.mean() < given.max()
