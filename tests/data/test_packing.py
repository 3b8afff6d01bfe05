"""Batches of packed rows: the same samples and images as without, whoever makes them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from PIL import Image

from tests.data.test_loader import COUNT, TRANSFORM, assert_same, make_record
from tga_jax.data.loader import BatchSource, make_loader
from tga_jax.data.prompts import Prompter
from tga_jax.errors import UserError


@pytest.fixture(autouse=True)
def parsed_flags():
    """Grain's worker processes look at absl flags, which `main` has parsed."""
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def make_source(tmp_path: Path, named_tokenizer):
    """Row 0 is text only, row 1 has two images, row 2 is a text safety sample."""
    records = [make_record(n, images=(f"{n}.png",), tox=n == 2) for n in range(COUNT)]
    records[0] = make_record(0, images=())
    records[1] = make_record(1, images=("1.png", "7.png"))
    for number in range(COUNT):
        Image.new("RGB", (9, 12), (number, 0, 0)).save(tmp_path / f"{number}.png")

    def make(**changes):
        prompter = Prompter(
            named_tokenizer("byte"), template="vicuna_v1", image_token="<image>", image_tokens=4,
            max_length=512, use_retrieved=True,
        )  # fmt: skip
        settings = {
            "image_dir": tmp_path, "batch_size": 8, "accumulate": 2, "steps": 7, "seed": 3,
            "buckets": (256, 512, 768), "caption_buckets": (64, 128), "pad_id": 0, "packing": 2,
        }  # fmt: skip
        return BatchSource(records, prompter, TRANSFORM, **{**settings, **changes})

    return make


def samples_of(batch) -> list[list[tuple]]:
    """Of each micro-batch: every sample's id, tokens, labels, spans' tokens and images."""
    arrays, out, names = batch.arrays, [], iter(batch.ids)
    for micro in range(len(arrays["tokens"])):
        here = {name: array[micro] for name, array in arrays.items()}
        packing = len(here["image_span"]) // len(here["tokens"])
        found = []
        for sample in range(len(here["image_span"])):
            row = sample // packing
            mine = here["segments"][row] == 1 + sample % packing
            tokens, labels = here["tokens"][row][mine], here["labels"][row][mine]
            spans = [here[name][sample] for name in ("image_span", "retrieved_span")]
            texts = [tuple(here["tokens"][row][slice(*span)]) for span in spans]
            before = here["segments"][row] < 1 + sample % packing
            skipped = int(
                np.sum(here["tokens"][row][before & (here["segments"][row] > 0)] == IMAGE)
            )
            own = slice(skipped // 4, (skipped + int(np.sum(tokens == IMAGE))) // 4)
            images = here["images"][row][own]
            found.append(
                (next(names), tuple(tokens), tuple(labels), *texts, images.tobytes(),
                 tuple(here["caption_tokens"][sample]), tuple(here["positions"][row][mine]))
            )  # fmt: skip
        out.append(sorted(found))
    return out


IMAGE = None


@pytest.fixture(autouse=True)
def image_token(named_tokenizer, monkeypatch):
    token = named_tokenizer("byte").convert_tokens_to_ids("<image>")
    monkeypatch.setattr(f"{__name__}.IMAGE", token)


@pytest.mark.parametrize("packing", [2, 4])
def test_a_packed_micro_batch_holds_the_same_samples(make_source, packing):
    plain, packed = make_source(packing=1), make_source(packing=packing, buckets=(2048,))
    for step in range(len(plain)):
        assert samples_of(packed[step]) == samples_of(plain[step])
        assert packed[step].arrays["tokens"].shape[1] == 4 // packing


@pytest.mark.slow
def test_restart_workers_and_processes_make_no_difference(make_source):
    source = make_source()
    expected = [source[step] for step in range(len(source))]
    for workers in (0, 2):
        loader = make_loader(make_source(), workers=workers)
        assert_same([next(loader) for _ in range(3)], expected[:3])
        state = loader.get_state()
        loader.close()
        resumed = make_loader(make_source(), workers=2 - workers)
        resumed.set_state(state)
        assert_same(list(itertools.islice(resumed, 4)), expected[3:])
        resumed.close()
    halves = [make_source(rows=[row])[2] for row in (0, 1)]
    assert halves[0].ids == halves[1].ids == expected[2].ids
    joined = np.concatenate([half.arrays["images"] for half in halves], axis=1)
    np.testing.assert_array_equal(joined, expected[2].arrays["images"])


def test_a_packing_that_does_not_fit(make_source):
    with pytest.raises(UserError, match="batch_size 8 .* accumulate 2 times packing 3"):
        make_source(packing=3)
