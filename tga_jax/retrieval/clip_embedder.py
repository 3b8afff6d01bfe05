"""A CLIP folder as jobs use it: loaded onto the mesh, and its embeddings, batch by batch."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tga_jax.cluster import hosts
from tga_jax.data.images import ImageTransform, load_pixels
from tga_jax.errors import UserError
from tga_jax.files import move, read_json
from tga_jax.hf.checkpoint_digest import checkpoint_digest
from tga_jax.hf.clip import ClipSource, open_clip
from tga_jax.models.clip import Clip
from tga_jax.models.llava import PixelNorm
from tga_jax.parallel.sharding import (
    batch_sharding,
    batch_shards,
    local_rows,
    param_shardings,
    replicated,
    shapes,
)
from tga_jax.run.inference_batches import place
from tga_jax.run.work import ArrayRows
from tga_jax.training.metrics import Progress
from tga_jax.training.step import nested

Image = tuple[Path, str, str]  # image folder, name inside it, the record's id


def clip_model_of(config: Any, image_settings: dict[str, Any]) -> Clip:
    """The model of a config and the image preparation that goes with it."""
    s = image_settings
    return Clip(config, PixelNorm(tuple(s["mean"]), tuple(s["std"]), s["rescale"]))


def load_clip(source: ClipSource, mesh: Mesh) -> tuple[Clip, dict[str, jax.Array]]:
    """The CLIP of a folder and its parameters in float32, on the mesh."""
    model = clip_model_of(source.config, source.image_settings)
    boxed = jax.eval_shape(model.init, jax.random.key(0))
    shardings = param_shardings(boxed, mesh)
    leaves = {
        path: jax.ShapeDtypeStruct(shape, "float32", sharding=shardings[path])
        for path, shape in shapes(boxed).items()
    }
    return model, source.load(leaves)


def check_clip(clip: str, before: Sequence[str]) -> None:
    """Refuse a CLIP that is not given or cannot be opened, unless job `miniature` makes it."""
    if not clip:
        raise UserError("no CLIP: set config.retrieval.clip to a CLIPModel folder")
    if "miniature" not in before:
        open_clip(clip)


class ClipEmbedder:
    """Texts and images -> float32[B, E] of length 1; loaded when first used.

    The mesh may be of several processes, which then divide every batch and all have its result.
    """

    def __init__(
        self, clip: str, mesh: Mesh, *, batch_size: int, say: Callable[[str], None]
    ) -> None:
        """Opens a CLIP folder.

        Args:
            clip: the folder, or a hub id.
            mesh: the devices to run on.
            batch_size: of texts or images; it is rounded up to what the mesh divides.
            say: is told when the weights are loaded.

        Raises:
            UserError: there is no such folder, or the batch size is not positive.
        """
        if not clip:
            raise UserError("no CLIP: set config.retrieval.clip to a CLIPModel folder")
        self.name, self._mesh, self._say = clip, mesh, say
        self.source = open_clip(clip)
        self.digest = checkpoint_digest([self.source.folder])
        self.width: int = self.source.config.embedding
        self.transform = ImageTransform(**self.source.image_settings)
        if batch_size < 1:
            raise UserError(f"config.retrieval.batch_size={batch_size} must be at least 1")
        ways = batch_shards(mesh)
        self.batch_size = -(-batch_size // ways) * ways
        self.seconds = 0.0  # on the devices, of the last batch of images

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """At most `batch_size` texts; the tail of a long one is cut off, as CLIP does."""
        tokens, mask = self.source.tokenise(texts)
        embed, _ = self._programs
        return np.asarray(embed(self._params, self._put(tokens), self._put(mask)))[: len(texts)]

    def images(self, pixels: Sequence[np.ndarray | None]) -> np.ndarray:
        """At most `batch_size` prepared images, uint8[side, side, 3] each.

        None is one that cannot be read, which has zeros, or one whose row another process holds.
        """
        whole = np.zeros((self.batch_size, *self.transform.size, 3), np.uint8)
        readable = np.array([one is not None for one in pixels])
        for row, one in enumerate(pixels):
            if one is not None:
                whole[row] = one
        _, embed = self._programs
        began = time.monotonic()
        out = np.asarray(embed(self._params, self._put(whole), self._put(readable)))
        self.seconds = time.monotonic() - began
        return out[: len(pixels)]

    def pixels(self, image: Image) -> np.ndarray:
        """uint8[side, side, 3]; a UserError names an image that cannot be read."""
        folder, name, record_id = image
        return load_pixels(folder, name, transform=self.transform, record_id=record_id)

    def image_batches(
        self, images: Sequence[Image], bad: Callable[[int, UserError], None]
    ) -> Iterator[np.ndarray]:
        """Embeddings of images, `batch_size` at a time; the next are decoded meanwhile.

        Of several processes each decodes the images whose rows its own devices hold. An image
        that cannot be read is told to `bad`, which may raise, in every process, and has zeros.
        """
        mine = local_rows(self._mesh, self.batch_size)

        def prepare(start: int) -> dict[int, np.ndarray | UserError]:
            rows = [row for row in mine if start + row < len(images)]
            read = readers.map(self._try_pixels, [images[start + row] for row in rows])
            return dict(zip(rows, read, strict=True))

        starts = range(0, len(images), self.batch_size)
        with ThreadPoolExecutor(os.cpu_count()) as readers, ThreadPoolExecutor(1) as ahead:
            waiting = [ahead.submit(prepare, start) for start in starts[:1]]
            for number, start in enumerate(starts):
                found = waiting.pop().result()
                if number + 1 < len(starts):
                    waiting.append(ahead.submit(prepare, starts[number + 1]))
                errors = {row: one for row, one in found.items() if isinstance(one, UserError)}
                pixels = {row: one for row, one in found.items() if isinstance(one, np.ndarray)}
                size = min(self.batch_size, len(images) - start)
                out = self.images([pixels.get(row) for row in range(size)])
                if not np.all(np.any(out, axis=1)):  # all processes have the same zeros
                    for row, text in _of_all(errors):
                        bad(start + row, UserError(text))
                yield out

    def _try_pixels(self, image: Image) -> np.ndarray | UserError:
        try:
            return self.pixels(image)
        except UserError as error:
            return error

    @functools.cached_property
    def _loaded(self) -> tuple[Clip, Any]:
        self._say(f"loading {self.name}")
        model, params = load_clip(self.source, self._mesh)
        return model, nested(params)

    @functools.cached_property
    def scale(self) -> float:
        """The factor by which CLIP multiplies cosines before a softmax."""
        return float(np.exp(np.asarray(self._params["logit_scale"], np.float32)))

    @property
    def _params(self) -> Any:
        return self._loaded[1]

    @functools.cached_property
    def _programs(self) -> tuple[Any, Any]:
        model, whole = self._loaded[0], replicated(self._mesh)
        return (
            jax.jit(model.embed_texts, out_shardings=whole),
            jax.jit(
                lambda params, pixels, readable: jnp.where(
                    readable[:, None], model.embed_images(params, pixels), 0.0
                ),
                out_shardings=whole,
            ),
        )

    def _put(self, rows: np.ndarray) -> jax.Array:
        """Filled up to a whole batch with repeats, the samples over the mesh."""
        filling = np.repeat(rows[-1:], self.batch_size - len(rows), axis=0)
        return place(np.concatenate([rows, filling]), batch_sharding(self._mesh))


def _of_all(errors: Mapping[int, UserError]) -> list[tuple[int, str]]:
    """The errors that all processes found, by row."""
    mine = [(row, str(error)) for row, error in errors.items()]
    return sorted((row, text) for found in hosts.all_gather(mine) for row, text in found)


def embed_to_file(
    path: Path,
    signature: dict[str, Any],
    shape: tuple[int, int],
    batches: Callable[[int], Iterator[np.ndarray]],
    *,
    batch_size: int,
) -> None:
    """Writes float32[shape] as a .npy file; a killed run goes on at the batch it was at.

    Of several processes all call this, and the first one writes.

    Args:
        path: the file; beside it lie PATH.partial and PATH.json, what it was made from.
        signature: all that decides the numbers; a file of the same is left as it is.
        shape: rows and columns.
        batches: row -> the batches from there on.
        batch_size: rows of every batch but the last.
    """
    about = path.with_name(path.name + ".json")
    partial = ArrayRows(
        path.with_name(path.name + ".partial"), signature, shape, about=about, batch_size=batch_size
    )

    def begin() -> int:
        """How many rows there are; all of them where the file was finished before."""
        if path.exists():
            if read_json(about, missing_ok=True) == partial.signature:
                return shape[0]
            path.unlink()
        return partial.open()

    done = hosts.broadcast_from_first(begin)
    progress = Progress(path.name, shape[0], start=done)
    for batch in batches(done) if done < shape[0] else ():
        if hosts.is_first():
            partial.append(batch)
        done += len(batch)
        progress.show(done)
    if hosts.is_first() and not path.exists():
        move(partial.path, path)
