import pickle

import numpy as np
import pytest
from absl import flags
from PIL import Image

from tga_jax.data.images import ImageTransform
from tga_jax.data.loader import BatchSource, make_loader
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record, Turn
from tga_jax.errors import UserError

TRANSFORM = ImageTransform(
    shortest_edge=8,
    resize=None,
    crop=(8, 8),
    resample=3,
    pad_to_square=False,
    mean=(0.5, 0.25, 0.75),
    std=(1.0, 1.0, 1.0),
    rescale=1 / 255,
)
COUNT = 11


def make_record(number, *, images, tox=False):
    turns = (Turn(f"What is in image {number}?", "a " * number + "cup"),)
    return Record(f"r{number}", images, turns, f"cup {number}", None, tox)


@pytest.fixture(autouse=True)
def parsed_flags():
    """Grain's worker processes look at absl flags, which `main` has parsed."""
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def image_dir(tmp_path):
    for number in range(COUNT):
        Image.new("RGB", (9, 12), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.fixture
def records():
    """Row 0 is text only, row 1 has two images, row 2 is a text safety sample."""
    records = [make_record(n, images=(f"{n}.png",), tox=n == 2) for n in range(COUNT)]
    records[0] = make_record(0, images=())
    records[1] = make_record(1, images=("1.png", "7.png"))
    return records


@pytest.fixture
def make_source(image_dir, records, named_tokenizer):
    def make(records=records, *, tokenizer="byte", template="vicuna_v1", **changes):
        prompter = Prompter(
            named_tokenizer(tokenizer),
            template=template,
            image_token="<image>",
            image_tokens=4,
            max_length=512,
            use_retrieved=True,
        )
        settings = {
            "image_dir": image_dir,
            "batch_size": 4,
            "accumulate": 2,
            "steps": 7,
            "seed": 3,
            "buckets": (128, 256, 512),
            "caption_buckets": (64, 128),
            "pad_id": 0,
        }
        return BatchSource(records, prompter, TRANSFORM, **{**settings, **changes})

    return make


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for ours, theirs in zip(batches, expected, strict=True):
        assert (ours.ids, ours.rows) == (theirs.ids, theirs.rows)
        assert ours.arrays.keys() == theirs.arrays.keys()
        for name in ours.arrays:
            np.testing.assert_array_equal(ours.arrays[name], theirs.arrays[name])


def test_a_batch_holds_its_samples_images(make_source):
    source = make_source()
    for step in range(len(source)):
        batch = source[step]
        images = batch.arrays["images"]
        most = max({0: 0, 1: 2}.get(int(name[1:]), 1) for name in batch.ids)
        assert images.shape == (2, 2, most, 8, 8, 3) and images.dtype == np.uint8
        for row, name in zip(images.reshape(4, most, 8, 8, 3), batch.ids, strict=True):
            number = int(name[1:])
            colours = {0: [], 1: [[1, 0, 0], [7, 0, 0]], 2: [[127, 63, 191]]}
            expected = colours.get(number, [[number, 0, 0]])
            expected += [[0, 0, 0]] * (most - len(expected))
            assert row[:, 0, 0].tolist() == expected
            assert (row == row[:, :1, :1]).all()


@pytest.mark.parametrize(
    ("tokenizer", "template", "first"),
    [("byte", "plain", True), ("byte-bos", "plain", False), ("byte", "vicuna_v1", False)],
)
def test_whether_images_come_first(make_source, tokenizer, template, first):
    assert make_source(tokenizer=tokenizer, template=template).image_first() is first


def test_text_only_batches_have_no_images(make_source, records):
    batch = make_source([records[0]])[0]
    assert batch.arrays["images"].shape == (2, 2, 0, 8, 8, 3)
    assert batch.ids == ("r0",) * 4


def test_a_process_loads_its_own_rows_only(make_source, records, image_dir):
    whole = make_source()[2]
    part = make_source(rows=[1])[2]
    np.testing.assert_array_equal(part.arrays["images"], whole.arrays["images"][:, [1]])
    np.testing.assert_array_equal(part.arrays["tokens"], whole.arrays["tokens"])
    assert part.ids == whole.ids and part.rows == (1,)
    for path in image_dir.iterdir():
        path.unlink()
    assert make_source(rows=[])[2].arrays["images"].shape[1] == 0


def test_the_loader_gives_the_sources_batches_and_resumes(make_source):
    source = make_source()
    expected = [source[step] for step in range(len(source))]
    loader = make_loader(source)
    assert_same([next(loader) for _ in range(3)], expected[:3])
    state = loader.get_state()
    assert_same(list(loader), expected[3:])
    loader.set_state(state)
    assert_same(list(loader), expected[3:])
    loader.close()
    other = make_loader(source, start_step=6, prefetch=0)
    assert_same(list(other), expected[6:])
    other.set_state({"step": len(source)})
    assert list(other) == []


@pytest.mark.slow
def test_worker_processes_give_the_same_batches_and_states(make_source):
    source = make_source()
    loader = make_loader(source, start_step=2, workers=2)
    batches = [next(loader) for _ in range(3)]
    state = loader.get_state()
    loader.close()
    assert_same(batches, [source[step] for step in range(2, 5)])
    resumed = make_loader(source, workers=0)
    resumed.set_state(state)
    assert_same([next(resumed)], [source[5]])


@pytest.mark.parametrize(("workers", "prefetch"), [(0, 0), (0, 2), (1, 2)])
def test_user_errors_come_through_unchanged(make_source, image_dir, workers, prefetch):
    (image_dir / "5.png").write_bytes(b"no image")
    source = make_source()
    with pytest.raises(UserError) as expected:
        for step in range(len(source)):
            source[step]
    loader = make_loader(source, workers=workers, prefetch=prefetch)
    with pytest.raises(UserError) as error:
        list(loader)
    loader.close()
    assert str(error.value) == str(expected.value)
    assert "record r5" in str(error.value) and "5.png" in str(error.value)


def test_a_source_can_travel_to_a_worker(make_source):
    source = make_source()
    assert_same([pickle.loads(pickle.dumps(source))[1]], [source[1]])


def test_settings_that_do_not_fit(make_source):
    with pytest.raises(UserError, match="no records"):
        make_source([])
    with pytest.raises(UserError, match="batch_size 4 is not a multiple of accumulate 3"):
        make_source(accumulate=3)
