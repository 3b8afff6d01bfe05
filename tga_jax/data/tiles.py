"""Images in tiles, of models that take images of any size: pixels, tokens, arrays of a batch.

`models/tiling.py` says which tiles an image has and what its tokens show. Letters: A micro-batches,
b rows, T tokens, S sources.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tga_jax.data.example import Example
from tga_jax.data.images import ImageTransform, image_size, resolve_image
from tga_jax.data.records import Record
from tga_jax.errors import UserError
from tga_jax.models.config import LlavaConfig, Tiling
from tga_jax.models.tiling import Layout, Size, best_resolution, layout_of


@dataclass(frozen=True)
class TileTransform:
    """Image -> uint8[tiles, side, side, 3], as transformers' LlavaNextImageProcessor prepares it.

    The first tile is the whole image, squeezed; the others are, row after row, the image at its
    best resolution, in the middle of black. It has the parts of an `ImageTransform` that are used.

    Attributes:
        whole: makes the first tile.
        tiling: of the model.
    """

    whole: ImageTransform
    tiling: Tiling

    @property
    def size(self) -> Size:
        """(height, width) of a tile."""
        return self.whole.size

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Returns the tiles of an RGB image."""
        side, (height, width) = self.size[0], self._resolution(image)
        canvas = Image.new("RGB", (width, height))
        shown = image.resize(_fitting(image.size, (width, height)), resample=self.whole.resample)
        canvas.paste(shown, ((width - shown.width) // 2, (height - shown.height) // 2))
        pixels = np.asarray(canvas).reshape(height // side, side, width // side, side, 3)
        tiles = pixels.swapaxes(1, 2).reshape(-1, side, side, 3)
        return np.concatenate([self.whole(image)[None], tiles])

    def check_size(self, size: Size) -> None:
        """Refuse an image of this height and width, as the transform of the first tile does."""
        self.whole.check_size(size)

    def blank(self) -> np.ndarray:
        """Returns the tiles of an image of the mean colour, of a tile's size."""
        return self(Image.fromarray(self.whole.blank()))

    def room(self, tiles: int) -> int:
        """For how many tiles a row has room that holds `tiles`: one of a few numbers."""
        return room_for(tiles, self._most)

    def rooms(self, images: int) -> int:
        """How many different rooms there are for rows of up to so many images."""
        return len({self.room(tiles) for tiles in range(1 + images * self._most)})

    @property
    def _most(self) -> int:
        return self.tiling.most_tiles(self.size[0])

    def _resolution(self, image: Image.Image) -> Size:
        return best_resolution((image.height, image.width), self.tiling.pinpoints)


def room_for(tiles: int, most: int) -> int:
    """The least of 0, 1, 2, 3, 4, 6, 8, 12, ... and `most`, those of one image, that holds them."""
    steps = (half << power for power in range(tiles.bit_length() + 1) for half in (2, 3))
    return min(size for size in (0, 1, most, *steps) if size >= tiles)


def _fitting(size: Size, room: Size) -> Size:
    """(width, height) of an image of this one that fills the room, as transformers rounds it."""
    across, down = room[0] / size[0], room[1] / size[1]
    if across < down:
        return room[0], min(math.ceil(size[1] * across), room[1])
    return min(math.ceil(size[0] * down), room[0]), room[1]


@dataclass(frozen=True)
class ImageLayouts:
    """Says what the tokens of a record's images show, from the images' sizes alone.

    Attributes:
        config: of the model, which has a `Tiling`.
        newlines: whether newlines count in means over an image.
    """

    config: LlavaConfig
    newlines: bool = False

    def of(self, record: Record, image_dir: Path) -> tuple[Layout, ...]:
        """The layout of each image of a record; only the images' headers are read.

        Raises:
            UserError: an image is not there or not readable, or there are several and only one may
                be.
        """
        tiling = self.config.tiling
        # LLaVA-OneVision shows several images otherwise: padded to squares, without tiles.
        if tiling is not None and tiling.most is not None and len(record.images) > 1:
            raise UserError(
                f"record {record.id}: has {len(record.images)} images; LLaVA-OneVision is "
                "supported with one image a sample"
            )
        return tuple(self._of(record, number, image_dir) for number in range(len(record.images)))

    def _of(self, record: Record, number: int, image_dir: Path) -> Layout:
        if record.tox:
            side = self.config.vision.image_size
            return self._layout((side, side))
        name = record.images[number]
        where = f"record {record.id}: image {name}"
        if record.contents:
            size = image_size(io.BytesIO(record.contents[number]), where=where)
        else:
            place = resolve_image(image_dir, name, record_id=record.id)
            size = image_size(place, where=where)
        return self._layout(size)

    def _layout(self, size: Size) -> Layout:
        return layout_of(size, self.config, newlines=self.newlines)


def tile_counts(example: Example) -> list[int]:
    """How many tiles each image of an example has; one of a model without tiles."""
    return [layout.tiles for layout in example.layouts] or [1] * len(example.images)


def tile_arrays(rows: Sequence[Sequence[Example]], length: int) -> dict[str, np.ndarray]:
    """What the tokens of rows show of their images; {} where no image is in tiles.

    Args:
        rows: the examples of each row.
        length: T.

    Returns:
        image_sources int32[b, T, S], features counted through the row; image_weights
        float32[b, T, S], where S is more than 1; unpooled bool[b, T], the tokens that are in no
        mean.
    """
    layouts = [layout for row in rows for example in row for layout in example.layouts]
    if not layouts:
        return {}
    count = layouts[0].sources.shape[1]
    sources = np.zeros((len(rows), length, count), np.int32)
    weights = np.zeros(sources.shape, np.float32)
    unpooled = np.zeros(sources.shape[:2], bool)
    for row, examples in enumerate(rows):
        tiles = start = 0
        for example in examples:
            for span, layout in zip(example.image_spans, example.layouts, strict=True):
                inside = slice(start + span[0], start + span[1])
                sources[row, inside] = layout.shifted(tiles)
                weights[row, inside] = layout.weights
                unpooled[row, inside] = ~layout.pooled
                tiles += layout.tiles
            start += len(example.tokens)
    weighted = {"image_weights": weights} if count > 1 else {}
    return {"image_sources": sources, "unpooled": unpooled, **weighted}
