"""Several sets as one: shares, order, restart, parts of processes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from absl import flags
from PIL import Image

from tests.data.test_loader import assert_same
from tga_jax.data.images import ImageTransform
from tga_jax.data.lazy_records import Known
from tga_jax.data.loader import BatchSource, make_loader
from tga_jax.data.mixture import Mixture, Part, parse_mixture
from tga_jax.data.order import plan_order
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record, Turn
from tga_jax.errors import UserError

TRANSFORM = ImageTransform(8, None, (8, 8), 3, False, (0.5, 0.25, 0.75), (1.0, 1.0, 1.0), 1 / 255)


@pytest.fixture(autouse=True)
def parsed_flags():
    """Grain's worker processes look at absl flags, which `main` has parsed."""
    flags.FLAGS.mark_as_parsed()


def test_parse():
    assert parse_mixture("a.json:2, folder/data:1.5,b.jsonl") == [
        ("a.json", 2.0), ("folder/data", 1.5), ("b.jsonl", 1.0)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", " , ", "a:0", "a:-1", "a:x", ":2", "a:nan", "a:inf"])
def test_parse_refuses(text):
    with pytest.raises(UserError, match=r"config\.data\.mixture"):
        parse_mixture(text)


def plan(parts, *, batch_size=8, steps=200, seed=0):
    count = sum(part.size for part in parts)
    lengths = np.random.default_rng(9).integers(1, 100, count)
    known = Known(lengths, np.arange(count) % 4, np.ones(count, bool))
    return plan_order(known, batch_size=batch_size, steps=steps, seed=seed, parts=parts)


@pytest.mark.parametrize(
    "parts",
    [
        (Part(100, 1.0),),
        (Part(100, 2.0), Part(50, 1.0)),
        (Part(30, 1.0), Part(7000, 9.0)),
        (Part(3, 5.0), Part(200, 1.0), Part(50, 0.01), Part(60, 2.5)),
    ],
)
def test_shares_follow_the_weights_and_uses_within_a_set_are_even(parts):
    order = plan(parts)
    starts = np.cumsum([0, *(part.size for part in parts)])
    total = sum(part.weight for part in parts)
    # Whole chunks of 50 batches; the last chunk's samples are all drawn by then, but for one batch.
    for steps in (50, 100, 200):
        samples = order[:steps].ravel()
        for start, part in zip(starts, parts, strict=False):
            uses = np.bincount(samples, minlength=starts[-1])[start : start + part.size]
            assert abs(uses.sum() - part.weight / total * len(samples)) <= len(parts) + 8
            assert uses.max() - uses.min() <= 2  # one epoch, and one batch still carried


def test_the_order_is_a_pure_function_of_seed_and_step():
    parts = (Part(40, 2.0), Part(90, 1.0))
    np.testing.assert_array_equal(plan(parts), plan(parts))
    np.testing.assert_array_equal(plan(parts, steps=77), plan(parts)[:77])
    assert (plan(parts, seed=1) != plan(parts)).any()
    # Another set's samples come in another order, not the same permutation.
    even = plan((Part(200, 1.0), Part(200, 1.0)), steps=50)
    first = [i for i in even.ravel() if i < 200]
    second = [i - 200 for i in even.ravel() if i >= 200]
    assert first != second and sorted(first) == sorted(second) == list(range(200))


def test_batches_mix_the_sets_and_keep_to_a_modality():
    parts = (Part(400, 1.0), Part(400, 1.0))
    order = plan(parts, steps=400)
    mixed = [0 < np.mean(batch < 400) < 1 for batch in order]
    assert np.mean(mixed) > 0.9
    assert np.mean([len(set(batch % 4 > 0)) == 1 for batch in order]) > 0.95


@pytest.fixture
def sets(tmp_path):
    """Two sets of records with an image each, whose colour says which."""

    def record(kind, number):
        name = f"{kind}{number}.png"
        Image.new("RGB", (9, 9), (number, ord(kind), 0)).save(tmp_path / name)
        turns = (Turn("What?", "a " * number + "cup"),)
        return Record(f"{kind}{number}", (name,), turns, None, None, False)

    return [record("a", i) for i in range(6)], [record("b", i) for i in range(11)]


@pytest.fixture
def make_source(sets, tmp_path, named_tokenizer):
    def make(**changes):
        prompter = Prompter(
            named_tokenizer("byte"), template="vicuna_v1", image_token="<image>", image_tokens=4,
            max_length=512, use_retrieved=True,
        )  # fmt: skip
        records = Mixture(sets, [3.0, 1.0])
        settings = {
            "image_dir": tmp_path, "batch_size": 4, "accumulate": 1, "steps": 50, "seed": 3,
            "buckets": (256, 512), "caption_buckets": (64,), "pad_id": 0, "parts": records.parts,
        }  # fmt: skip
        return BatchSource(records, prompter, TRANSFORM, **{**settings, **changes})

    return make


def test_a_mixture_holds_all_records_one_set_after_the_other(sets):
    mixture = Mixture(sets, [3.0, 1.0])
    assert list(mixture) == sets[0] + sets[1] == mixture[:]
    assert mixture[-1] == sets[1][-1] and len(mixture) == 17
    assert mixture.known.images.tolist() == [1] * 17
    assert not mixture.has_contents
    with pytest.raises(IndexError):
        mixture[17]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_restart_goes_on_with_any_number_of_workers(make_source, workers):
    source = make_source()
    expected = [source[step] for step in range(12)]
    ids = list(itertools.chain(*(source[step].ids for step in range(50))))
    assert sum(name[0] == "a" for name in ids) == 150
    loader = make_loader(source, workers=workers)
    assert_same([next(loader) for _ in range(5)], expected[:5])
    state = loader.get_state()
    loader.close()
    resumed = make_loader(make_source(), workers=2 - workers)
    resumed.set_state(state)
    assert_same([next(resumed) for _ in range(7)], expected[5:])
    resumed.close()


def test_two_processes_together_make_the_batches_of_one(make_source):
    whole = make_source()
    halves = [make_source(rows=rows) for rows in ([0, 1], [2, 3])]
    for step in (0, 7, 8):
        one, two = (half[step] for half in halves)
        assert one.ids == two.ids == whole[step].ids
        np.testing.assert_array_equal(one.arrays["tokens"], whole[step].arrays["tokens"])
        joined = np.concatenate([one.arrays["images"], two.arrays["images"]], axis=1)
        np.testing.assert_array_equal(joined, whole[step].arrays["images"])
