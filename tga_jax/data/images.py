"""Images: from a name in a record to uint8 pixels, exactly as LLaVA and CLIP prepare them.

Pixels stay uint8 until they are on the device; the model code computes
`(pixels * rescale - mean) / std` there in float32.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from tga_jax.data.image_files import ImagePlace, Member, name_inside, place_of
from tga_jax.errors import UserError

ImageFile = ImagePlace | str | BinaryIO  # on a disk, in an archive, or in memory
MAX_PIXELS = 100_000_000

# Only raster formats: Pillow would start Ghostscript for an EPS file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")

# Pillow warns on its own between 89 and 179 Mpx; `load_image` decides that here, with one line.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# It warns once that transparency is dropped, which `load_image` does on purpose.
warnings.filterwarnings("ignore", message="Palette images with Transparency")


def resolve_image(image_dir: Path | str, name: str, *, record_id: str) -> ImagePlace:
    """Returns where image `name` lies, which must be inside `image_dir`, or in an archive there.

    Raises:
        UserError: for a path outside of it, "..", a symlink that leads outside, a missing file.
    """
    where = f"record {record_id}: image {name!r}"
    root = Path(image_dir)
    try:
        if name_inside(root, name) is None:
            raise UserError(f"{where}: must be a name inside the image folder, without '..'")
        path = place_of(root, name)
        file = path.archive if isinstance(path, Member) else path
        resolved = file.resolve()
        exists = file.is_file()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{where}: cannot be opened in {root}") from error
    if not resolved.is_relative_to(root.resolve()):
        raise UserError(f"{where}: is a link that leaves the image folder {root}")
    if not exists and root == Path():
        raise UserError(
            f"{where}: no such file in the current folder; set config.data.image_dir to the folder "
            "of the images"
        )
    if not exists:
        raise UserError(f"{where}: no such file in {root}")
    return path


def load_image(path: ImagePlace | str, *, record_id: str) -> Image.Image:
    """Decodes an image to RGB with `Image.convert("RGB")`, as LLaVA does.

    So transparency is dropped, not composited; EXIF orientation is not applied; of an animation
    the first frame is used; the content decides the format, not the file's extension. Only values
    of more than 8 bits, which LLaVA would clip to white, are scaled first; see `to_8_bits`.

    Raises:
        UserError: for a file that is no image, is truncated, or has over `MAX_PIXELS` pixels.
    """
    return decode_image(path, where=f"record {record_id}: image {path}")


def decode_image(file: ImageFile, *, where: str) -> Image.Image:
    """As `load_image`, of a file that may be in memory; `where` is what an error starts with."""
    with open_image(file, where=where) as image:
        return to_8_bits(image).convert("RGB")


def image_size(file: ImageFile, *, where: str) -> tuple[int, int]:
    """Returns an image's height and width, for which its header is read alone.

    Raises:
        UserError: as `load_image` does for a header.
    """
    with open_image(file, where=where) as image:
        return image.height, image.width


def check_image(file: ImageFile, *, where: str) -> tuple[bool, tuple[int, int]]:
    """Returns whether an image's values are of more than 8 bits, and its height and width.

    The file is decoded to its end, as a truncated one can't be told by its header. A JPEG is
    decoded at an eighth of its size, which is faster and reads the same bytes.

    Raises:
        UserError: as `load_image` does.
    """
    with open_image(file, where=where) as image:
        size = image.height, image.width
        image.draft(image.mode, (1, 1))
        image.load()
        return is_deep(image), size


@contextlib.contextmanager
def open_image(file: ImageFile, *, where: str) -> Iterator[Image.Image]:
    """Opens an image; whatever is wrong with it, then or inside, becomes a `UserError`.

    Args:
        file: on a disk, in an archive, or in memory.
        where: what an error starts with.

    Raises:
        UserError: as `load_image` does.
    """
    try:
        source = io.BytesIO(file.read_bytes()) if isinstance(file, Member) else file
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{where}: the image is too large ({error}; at most {MAX_PIXELS} pixels are "
            "allowed); shrink it"
        ) from error
    except UnidentifiedImageError as error:  # whose text has the address of a file in memory
        raise UserError(f"{where}: not a readable image (of no known format)") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: not a readable image ({reason})") from error


def is_deep(image: Image.Image) -> bool:
    """Whether an image is of one channel of 16-bit, 32-bit or float values."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_8_bits(image: Image.Image) -> Image.Image:
    """Scales an image whose values are of more than 8 bits by their range; returns others as such.

    The range is the smallest usual one that holds the values: 0..1 (of floats), 0..255, which
    changes nothing, or 0..65535; where none does, it is from their minimum to their maximum. NaN
    and infinite values become 0.
    """
    if not is_deep(image):
        return image
    values = np.asarray(image).astype(np.float64)
    values = np.where(np.isfinite(values), values, 0.0)
    low, high = float(values.min()), float(values.max())
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    fitting = [top for top in usual if low >= 0 and high <= top]
    low, high = (0.0, fitting[0]) if fitting else (low, high)
    scaled = (values - low) * (255 / ((high - low) or 1.0))
    return Image.fromarray(np.round(scaled).astype(np.uint8))


@dataclass(frozen=True)
class ImageTransform:
    """CLIP's image processing up to the crop: image -> uint8[H, W, 3].

    The steps, each optional, in the order of transformers' LlavaImageProcessor: pad to a square,
    resize, centre crop. `mean`, `std` and `rescale` are only carried for the model code.

    Attributes:
        shortest_edge: length in pixels that the shorter edge is resized to.
        resize: (height, width) to resize to; instead of `shortest_edge`.
        crop: (height, width) of the centre crop; zeros surround a smaller image.
        resample: a Pillow filter number; 3 is bicubic, CLIP's.
        pad_to_square: put the image in the middle of a square of the mean colour first.
        mean: per channel, of pixels scaled to 0..1.
        std: per channel, of pixels scaled to 0..1.
        rescale: factor from uint8 to that scale, 1/255.
    """

    shortest_edge: int | None
    resize: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int
    pad_to_square: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float

    def __post_init__(self) -> None:
        if self.shortest_edge and self.resize:
            raise ValueError("shortest_edge and resize exclude each other")
        if not (self.crop or self.resize or (self.shortest_edge and self.pad_to_square)):
            raise UserError(
                "image processor: without a crop or a fixed size the images of a batch would "
                "differ in size; set do_center_crop, a height and width, or do_pad"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what comes out."""
        edge = self.shortest_edge or 0
        return self.crop or self.resize or (edge, edge)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Returns uint8[H, W, 3] of an RGB image; refuses what `check_size` refuses."""
        self.check_size((image.height, image.width))
        if self.pad_to_square:
            image = expand_to_square(image, self._mean_colour())
        if self.resize or self.shortest_edge:
            height, width = self._resized((image.height, image.width))
            image = image.resize((width, height), resample=self.resample)
        pixels = np.asarray(image, dtype=np.uint8)
        return center_crop(pixels, self.crop) if self.crop else pixels

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse a height and width of which a step would make more than `MAX_PIXELS` pixels."""
        if self.pad_to_square:
            size = max(size), max(size)
        for height, width in (size, self._resized(size)):
            if height * width > MAX_PIXELS:
                made = f"{width} x {height} pixels"
                raise UserError(f"it is too long or too wide: it would become {made}")

    def room(self, images: int) -> int:
        """For how many images a row has room that holds `images`."""
        return images

    def rooms(self, images: int) -> int:
        """How many different rooms there are for rows of up to so many images."""
        return images

    def blank(self) -> np.ndarray:
        """Returns uint8[H, W, 3] of the mean colour: the image of a "tox" row."""
        return np.broadcast_to(np.asarray(self._mean_colour(), np.uint8), (*self.size, 3)).copy()

    def _mean_colour(self) -> tuple[int, ...]:
        return tuple(int(value * 255) for value in self.mean)

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """transformers' get_resize_output_image_size: the longer edge is rounded down."""
        if self.resize or not self.shortest_edge:
            return self.resize or size
        longer_edge = int(self.shortest_edge * max(size) / min(size))
        if size[1] <= size[0]:
            return longer_edge, self.shortest_edge
        return self.shortest_edge, longer_edge


def expand_to_square(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    """LLaVA's expand2square: the image in the middle of a square of one colour."""
    edge = max(image.size)
    square = Image.new("RGB", (edge, edge), colour)
    square.paste(image, ((edge - image.width) // 2, (edge - image.height) // 2))
    return square


def center_crop(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """transformers' center_crop: uint8[h, w, 3] -> uint8[*size, 3], with zeros where none is."""
    target = np.zeros((*size, pixels.shape[2]), pixels.dtype)
    rows = _crop_slices(pixels.shape[0], size[0])
    columns = _crop_slices(pixels.shape[1], size[1])
    target[rows[1], columns[1]] = pixels[rows[0], columns[0]]
    return target


def _crop_slices(length: int, target: int) -> tuple[slice, slice]:
    """Returns which part of an axis is kept, and where it lies in the result."""
    if length >= target:
        start = (length - target) // 2
        return slice(start, start + target), slice(0, target)
    start = ceil((target - length) / 2)
    return slice(0, length), slice(start, start + length)


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """An error inside is given what it is about, such as "record 7: image a.png"."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def check_header(
    image_dir: Path | str,
    name: str,
    *,
    check_size: Callable[[tuple[int, int]], None],
    record_id: str,
) -> None:
    """Refuse an image whose header shows that `load_pixels` can make no pixels of it.

    Args:
        image_dir: the image folder, or an archive.
        name: the image's name in it.
        check_size: of the transform; refuses a height and width.
        record_id: for errors.
    """
    path = resolve_image(image_dir, name, record_id=record_id)
    where = f"record {record_id}: image {path}"
    size = image_size(path, where=where)
    with naming(where):
        check_size(size)


def load_pixels(
    image_dir: Path | str,
    name: str,
    *,
    transform: Callable[[Image.Image], np.ndarray],
    record_id: str,
    content: bytes | None = None,
) -> np.ndarray:
    """Returns what `transform` makes of a record's image; every error names record and file.

    Args:
        image_dir: the image folder, or an archive; not read where `content` is given.
        name: the image's name in it.
        transform: image -> pixels.
        record_id: for errors.
        content: the file's bytes, of prepared data.
    """
    if content is None:
        path: ImagePlace | str = resolve_image(image_dir, name, record_id=record_id)
        image = load_image(path, record_id=record_id)
    else:
        path = name
        image = decode_image(io.BytesIO(content), where=f"record {record_id}: image {name}")
    with naming(f"record {record_id}: image {path}"):
        return transform(image)
