"""Images in tiles on the host: pixels and numbers of tokens against transformers, arrays, rooms."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor, LlavaNextProcessor, LlavaOnevisionProcessor

from tests.hf_models import PINPOINTS, write_tile_processor
from tga_jax.data.example import Example
from tga_jax.data.images import ImageTransform
from tga_jax.data.loader import example_pixels
from tga_jax.data.prompts import Prompter, TooLong
from tga_jax.data.records import Question, Record, Turn
from tga_jax.data.tiles import ImageLayouts, TileTransform, tile_arrays
from tga_jax.errors import UserError
from tga_jax.hf.processor import read_image_settings
from tga_jax.models.config import DecoderConfig, LlavaConfig, Tiling, VisionConfig
from tga_jax.models.tiling import NEWLINE, layout_of, most_tokens

NAMES = ["LlavaNext", "LlavaOnevision"]
SIZES = [(60, 40), (40, 60), (97, 31), (13, 90), (2, 3), (1, 1), (300, 200), (33, 500), (641, 480)]
DECODER = DecoderConfig(vocab=9, width=8, layers=1, heads=1, kv_heads=1, head_dim=8, ffn=8)


def config_of(name: str, *, side: int = 32, patch: int = 8, pinpoints=PINPOINTS, most=4):
    """A LLaVA of which only the images matter."""
    vision = VisionConfig(
        side, patch, width=8, layers=2, heads=2, ffn=8, class_token=name == "LlavaNext"
    )
    tiling = Tiling(tuple(map(tuple, pinpoints)), None if name == "LlavaNext" else most)
    select = "default" if name == "LlavaNext" else "full"
    return LlavaConfig(vision, DECODER, image_token=5, feature_select=select, tiling=tiling)


def make_image(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    image = Image.fromarray(pixels.astype(np.uint8))
    return image.resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("name", NAMES)
def test_tiles_are_transformers_pixels(tmp_path: Path, name: str) -> None:
    write_tile_processor(tmp_path, name)
    theirs, settings = AutoImageProcessor.from_pretrained(tmp_path), read_image_settings(tmp_path)
    transform = TileTransform(ImageTransform(**settings), config_of(name).tiling)
    mean, std = np.array(settings["mean"]), np.array(settings["std"])
    for size in SIZES:
        image = make_image(*size)
        wanted = theirs(images=image, return_tensors="np")["pixel_values"][0]
        ours = ((transform(image) * settings["rescale"] - mean) / std).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(ours, wanted, atol=1e-5)


def image_tokens_of_transformers(name: str, size: tuple[int, int]) -> int:
    """What the processor of a published model would write for an image of (height, width)."""
    if name == "LlavaNext":
        processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
        processor.patch_size, processor.num_additional_image_tokens = 14, 1
        processor.image_processor = type("P", (), {"image_grid_pinpoints": NEXT})
        return processor._get_number_of_features(*size, 336, 336) - 1
    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    processor.num_image_tokens, processor.vision_aspect_ratio = 729, "anyres_max_9"
    processor.image_processor = type("P", (), {"image_grid_pinpoints": ONEVISION})
    return processor._get_number_of_features(*size, 384, 384)


NEXT = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION = [[a * 384, b * 384] for a in range(1, 7) for b in range(1, 7)]
PUBLISHED = {
    "LlavaNext": config_of("LlavaNext", side=336, patch=14, pinpoints=NEXT),
    "LlavaOnevision": config_of("LlavaOnevision", side=384, patch=14, pinpoints=ONEVISION, most=9),
}


@pytest.mark.parametrize("name", NAMES)
def test_published_models_get_as_many_tokens_as_in_transformers(name: str) -> None:
    """Of 400 sizes, from one pixel to a panorama."""
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(0, np.log(6000), (400, 2))).astype(int).tolist()
    for size in [(336, 336), (384, 384), (480, 640), (427, 640), (2304, 2304), (1, 5000), *sizes]:
        found = layout_of(tuple(size), PUBLISHED[name]).tokens
        assert found == image_tokens_of_transformers(name, tuple(size)), size
        assert found <= most_tokens(PUBLISHED[name])


def test_known_numbers_of_tokens() -> None:
    """By hand: 576 of the whole image; of 48 x 48 features the rows that 640 x 480 covers."""
    assert most_tokens(PUBLISHED["LlavaNext"]) == 576 + 48 * 48 + 48
    layout = layout_of((480, 640), PUBLISHED["LlavaNext"])
    assert (layout.tiles, layout.tokens) == (5, 576 + 36 * 48 + 36)
    square = layout_of((1152, 1152), PUBLISHED["LlavaOnevision"])
    assert (square.tiles, square.tokens) == (10, 729 + 81 * 81 + 81)
    largest = layout_of((4000, 4000), PUBLISHED["LlavaOnevision"])
    assert (largest.tiles, largest.tokens) == (37, 729 + 81 * 81 + 81)


def record(*names: str, contents: tuple[bytes, ...] = (), tox: bool = False) -> Record:
    return Record(
        id="r", images=names, turns=(Turn("What?", "A cup."),), caption=None, retrieved=None,
        tox=tox, contents=contents,
    )  # fmt: skip


def test_sizes_are_those_of_files_archives_and_prepared_bytes(tmp_path: Path) -> None:
    image = make_image(60, 40)
    image.save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "folder.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "b.png")
    content = io.BytesIO()
    image.save(content, "PNG")
    layouts = ImageLayouts(config_of("LlavaNext"))
    wanted = layout_of((40, 60), config_of("LlavaNext"))
    found = layouts.of(record("a.png", "folder/b.png"), tmp_path)
    found += layouts.of(record("c.png", contents=(content.getvalue(),)), Path())
    assert [layout.tokens for layout in found] == [wanted.tokens] * 3
    (blank,) = layouts.of(record("gone.png", tox=True), Path())
    assert blank.tokens == layout_of((32, 32), config_of("LlavaNext")).tokens
    with pytest.raises(UserError, match="record r: image 'gone.png': no such file"):
        layouts.of(record("gone.png"), tmp_path)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match="record r: image text.png: not a readable image"):
        layouts.of(record("text.png"), tmp_path)


def test_onevision_takes_one_image_a_sample(tmp_path: Path) -> None:
    make_image(60, 40).save(tmp_path / "a.png")
    layouts = ImageLayouts(config_of("LlavaOnevision"))
    assert len(layouts.of(record("a.png"), tmp_path)) == 1
    with pytest.raises(UserError, match="record r: has 2 images; LLaVA-OneVision"):
        layouts.of(record("a.png", "a.png"), tmp_path)


def example(*sizes: tuple[int, int], before: int, after: int, config: LlavaConfig) -> Example:
    """Text, an image, text, an image, ..., text; `before` and `after`: of first and last text."""
    layouts, tokens, spans = [layout_of(size, config) for size in sizes], [1] * before, []
    for layout in layouts:
        spans.append((len(tokens), len(tokens) + layout.tokens))
        tokens += [5] * layout.tokens + [1]
    tokens += [1] * after
    nothing = np.zeros(0, np.int32)
    return Example(
        id="e", tokens=np.array(tokens), labels=nothing, image_spans=tuple(spans),
        retrieved_span=None, caption_tokens=nothing, caption_span=None,
        images=("a.png",) * len(sizes), tox=False, truncated_tokens=0, layouts=tuple(layouts),
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_packed_rows_count_tiles_through_the_row(name: str) -> None:
    """Each token finds its own feature where all tiles of a row lie one behind the other."""
    config = config_of(name)
    first = example((60, 40), (97, 31), before=2, after=3, config=config)
    text = example(before=4, after=0, config=config)
    last = example((100, 100), before=1, after=1, config=config)
    length = 2 * len(first.tokens) + len(last.tokens)
    arrays = tile_arrays([[first, text, last], [last]], length)
    start, tiles = 0, 0
    for one in (first, text, last):
        for span, layout in zip(one.image_spans, one.layouts, strict=True):
            inside = slice(start + span[0], start + span[1])
            sources, own = arrays["image_sources"][0, inside], layout.sources
            assert ((sources == NEWLINE) == (own == NEWLINE)).all()
            assert (sources[own != NEWLINE] == own[own != NEWLINE] + 16 * tiles).all()
            np.testing.assert_array_equal(arrays["unpooled"][0, inside], ~layout.pooled)
            if name == "LlavaOnevision":
                np.testing.assert_array_equal(arrays["image_weights"][0, inside], layout.weights)
            tiles += layout.tiles
        start += len(one.tokens)
    assert ("image_weights" in arrays) == (name == "LlavaOnevision")
    newlines = sum((~layout.pooled).sum() for one in (first, last) for layout in one.layouts)
    assert arrays["unpooled"][0].sum() == newlines > 0
    assert tile_arrays([[text]], 9) == {}


def test_rows_have_room_for_one_of_a_few_numbers_of_tiles() -> None:
    settings = (None, (336, 336), None, 3, False, (0.5,) * 3, (0.5,) * 3, 1 / 255)
    transform = TileTransform(ImageTransform(*settings), PUBLISHED["LlavaNext"].tiling)
    rooms = [transform.room(tiles) for tiles in range(14)]
    assert rooms == [0, 1, 2, 3, 4, 5, 6, 8, 8, 12, 12, 12, 12, 16]
    assert transform.rooms(2) == len({transform.room(tiles) for tiles in range(11)})


def test_an_image_that_changed_since_it_was_counted_is_named(tmp_path: Path) -> None:
    config = config_of("LlavaNext")
    settings = (None, (32, 32), None, 3, False, (0.5,) * 3, (0.5,) * 3, 1 / 255)
    transform = TileTransform(ImageTransform(*settings), config.tiling)
    make_image(60, 60).save(tmp_path / "a.png")
    counted = example((30, 60), before=1, after=1, config=config)
    assert counted.layouts[0].tiles != 5
    with pytest.raises(UserError, match=r"record e: image a.png: has another size"):
        example_pixels(counted, 0, image_dir=tmp_path, transform=transform)


def test_a_prompt_has_as_many_tokens_as_each_image_is_large(
    tmp_path: Path, named_tokenizer: Any
) -> None:
    """Also where a later turn is left out, and its image with it."""
    make_image(60, 40).save(tmp_path / "a.png")
    make_image(97, 31).save(tmp_path / "b.png")
    config = config_of("LlavaNext")
    wanted = [layout_of(size, config).tokens for size in ((40, 60), (31, 97))]
    turns = (Turn("<image>\nWhat?", "A cup."), Turn("<image>\nAnd this?", "A saw."))
    both = dataclasses.replace(record("a.png", "b.png"), turns=turns)

    def prompter(max_length: int) -> Prompter:
        return Prompter(
            named_tokenizer("byte"), template="vicuna_v1", image_token="<image>", image_tokens=16,
            layouts=ImageLayouts(config), max_length=max_length, use_retrieved=False,
        )  # fmt: skip

    whole = prompter(600).encode(both, tmp_path)
    image_id = named_tokenizer("byte").convert_tokens_to_ids("<image>")
    assert [end - start for start, end in whole.image_spans] == wanted
    for span in whole.image_spans:
        assert (whole.tokens[slice(*span)] == image_id).all()
    assert (whole.tokens == image_id).sum() == sum(wanted)
    short = prompter(len(whole.tokens) - 1).encode(both, tmp_path)
    assert (len(short.layouts), short.images) == (1, ("a.png",))
    assert prompter(600).check(both, tmp_path) == (0, 0)
    with pytest.raises(TooLong, match="record r: its"):
        prompter(80).encode(both, tmp_path)
    asked = prompter(600).encode_question(Question(1, "b.png", "What?"), tmp_path)
    assert [end - start for start, end in asked.image_spans] == wanted[1:]
