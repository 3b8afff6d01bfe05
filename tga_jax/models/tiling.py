"""Tiles: how LLaVA-NeXT and LLaVA-OneVision show images of any size to a tower of one size.

An image is scaled into the best of a few resolutions, each a grid of tiles of the tower's size;
before these tiles comes the whole image, squeezed into one. The features of the grid's padding are
left out, and each row of features ends with a learnt vector, the newline.

An image's size alone decides which feature each of its tokens shows (`Layout`), so the host
computes that, and on the device unpadding, newlines and merging are one gather of the features.
Letters: B rows, T length, M tiles of a row, K tokens of an image, P tokens of a tile, S sources.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import flax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from tga_jax.models.config import LlavaConfig

Size = tuple[int, int]  # height and width
NEWLINE = 0  # the source that is no feature of a tile
MERGE_ABOVE = 1.1  # a grid may be so many times as wide as `Tiling.most` tiles, as in OneVision


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """What the tokens of one image show.

    Attributes:
        tiles: how many the image is given to the tower as.
        tile_tokens: P.
        sources: int32[K, S]: `NEWLINE`, or 1 + the place of a feature among those of the tiles. S
            is 1, or 4 where grids may be merged, whose tokens lie between four features.
        weights: float32[K, S], by which the sources are added up.
        pooled: bool[K], which tokens count in means over the image.
    """

    tiles: int
    tile_tokens: int
    sources: np.ndarray
    weights: np.ndarray
    pooled: np.ndarray

    @property
    def tokens(self) -> int:
        """How many tokens the image takes."""
        return len(self.sources)

    def shifted(self, tiles: int) -> np.ndarray:
        """The sources int32[K, S] where so many tiles of other images stand before its own."""
        features = tiles * self.tile_tokens
        return np.where(self.sources == NEWLINE, NEWLINE, self.sources + features)


@flax.struct.dataclass
class TiledImages:
    """The images of a batch in tiles, and what the tokens of its rows show of them.

    Attributes:
        tiles: all tiles of a row, image after image.
        sources: as `Layout` has them, of image tokens; features are counted through the row.
        weights: likewise; None where S is 1.
    """

    tiles: UInt8[Array, "batch tiles side side 3"]
    sources: Int[Array, "batch length sources"]
    weights: Float[Array, "batch length sources"] | None


def images_of(batch: Mapping[str, Array]) -> Array | TiledImages:
    """The images of a batch as `Llava.embed` takes them: uint8[B, M, side, side, 3], or tiled."""
    if "image_sources" not in batch:
        return batch["images"]
    return TiledImages(batch["images"], batch["image_sources"], batch.get("image_weights"))


def placed(
    features: Float[Array, "batch features width"], images: TiledImages
) -> Float[Array, "batch length width"]:
    """What each token shows: the features of its sources, by their weights."""

    def source(number: int) -> Array:
        index = images.sources[..., number, None]
        return jnp.take_along_axis(features, index, axis=1)

    if images.weights is None:
        return source(0)
    count = images.weights.shape[-1]
    whole = sum(source(i) * images.weights[..., i, None] for i in range(count))
    return jnp.asarray(whole, features.dtype)


def best_resolution(size: Size, pinpoints: Sequence[Size]) -> Size:
    """The resolution that keeps most of an image's pixels, and of those the smallest."""

    def kept(pinpoint: Size) -> tuple[int, int]:
        scale = min(pinpoint[1] / size[1], pinpoint[0] / size[0])
        pixels = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return pixels, -pinpoint[0] * pinpoint[1]

    return max(pinpoints, key=kept)


@functools.lru_cache(128)
def layout_of(size: Size, config: LlavaConfig, *, newlines: bool = False) -> Layout:
    """What the tokens of an image show, for a model with a `Tiling`.

    Args:
        size: of the image, in pixels.
        config: of the model.
        newlines: whether newlines count in means over the image.
    """
    tiling, side = config.tiling, config.vision.image_size
    assert tiling is not None
    rows, columns = (length // side for length in best_resolution(size, tiling.pinpoints))
    patches = side // config.vision.patch_size
    tile = patches**2
    grid = 1 + tile + np.arange(rows * columns * tile).reshape(rows, columns, patches, patches)
    grid = _unpadded(grid.swapaxes(1, 2).reshape(rows * patches, columns * patches), size)
    sources, weights = grid[..., None], np.ones((*grid.shape, 1))
    if tiling.most is not None:
        sources, weights = _merged(grid, _merged_size(grid.shape, tiling.most * tile))
    alone = np.eye(1, sources.shape[-1])  # of several sources only the first counts
    whole = np.arange(1, 1 + tile)[:, None] * np.ones_like(alone)
    sources = _joined(whole, sources, NEWLINE).astype(np.int32)
    return Layout(
        tiles=1 + rows * columns,
        tile_tokens=tile,
        sources=sources,
        pooled=newlines | (sources[:, 0] != NEWLINE),
        weights=_joined(np.repeat(alone, tile, axis=0), weights, alone).astype(np.float32),
    )


def most_tokens(config: LlavaConfig) -> int:
    """A number of tokens that no image exceeds; without merging the most that one can take."""
    tiling, tile, side = config.tiling, config.image_tokens, config.vision.image_size
    if tiling is None:
        return tile
    most = math.inf if tiling.most is None else int(MERGE_ABOVE**2 * tiling.most * tile)
    patches = side // config.vision.patch_size
    grids = ((height // side, width // side) for height, width in tiling.pinpoints)
    return tile + max(
        int(min(rows * columns * tile, most)) + rows * patches for rows, columns in grids
    )


def _joined(whole: np.ndarray, grid: np.ndarray, newline: np.ndarray | int) -> np.ndarray:
    """[P, S] of the whole image, then [rows, columns, S] of the grid, each row with its newline."""
    height, _, sources = grid.shape
    ends = np.broadcast_to(newline, (height, 1, sources))
    return np.concatenate([whole, np.concatenate([grid, ends], axis=1).reshape(-1, sources)])


def _unpadded(grid: np.ndarray, size: Size) -> np.ndarray:
    """The part of the grid that an image of this size covers, as transformers cuts it out."""
    height, width = grid.shape
    if size[1] / size[0] > width / height:
        kept = int(round(size[0] * (width / size[1]), 7))
        cut = (height - kept) // 2
        return grid[cut : height - cut]
    kept = int(round(size[1] * (height / size[0]), 7))
    cut = (width - kept) // 2
    return grid[:, cut : width - cut]


def _merged_size(shape: tuple[int, ...], most: int) -> Size:
    """The size that a grid of features is brought to, where it has far more than `most`."""
    height, width = shape
    ratio = math.sqrt(height * width / most)
    if ratio <= MERGE_ABOVE:
        return height, width
    return int(height // ratio), int(width // ratio)


def _merged(grid: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear interpolation: for each new place four of the old ones, and their weights."""
    low, high, share = zip(*map(_between, grid.shape, size), strict=True)
    rows = [(low[0], 1 - share[0]), (high[0], share[0])]
    columns = [(low[1], 1 - share[1]), (high[1], share[1])]
    pairs = [(row, column) for row in rows for column in columns]
    sources = np.stack([grid[np.ix_(row[0], column[0])] for row, column in pairs], axis=-1)
    weights = np.stack([np.outer(row[1], column[1]) for row, column in pairs], axis=-1)
    return sources, weights


def _between(count: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the centres of `wanted` places lie among those of `count`: below, above, share."""
    at = np.maximum((np.arange(wanted) + 0.5) * (count / max(wanted, 1)) - 0.5, 0)
    low = np.floor(at).astype(int)
    return low, np.minimum(low + 1, count - 1), at - low
