"""Draws a scene as a small RGB image, deterministic from (scene, seed).

The shapes come from the Material Design Icons font that the package fonticon-materialdesignicons7
ships. Objects are dark and backgrounds light, so that every pair of colours has contrast and a
small vision encoder need not learn each shape twice (dark on light and light on dark).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tga_jax.errors import UserError
from tga_jax.miniature.scene import Scene

OBJECT_RGB = {
    "black": (20, 20, 20), "red": (185, 20, 30), "green": (10, 100, 40), "blue": (25, 50, 190),
    "purple": (115, 20, 140), "brown": (105, 60, 20),
}  # fmt: skip
BACKGROUND_RGB = {
    "white": (248, 248, 248), "gray": (185, 185, 185), "yellow": (250, 230, 90),
    "pink": (252, 180, 205), "orange": (250, 172, 85), "cyan": (130, 222, 238),
    "lime": (180, 235, 110), "lilac": (200, 182, 248),
}  # fmt: skip
OFFSETS = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "center": (0, 0)}
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
SIDE = {"small": (0.42, 0.48), "large": (0.62, 0.70)}  # of the image's side
SIDE_OF_TWO = {"small": (0.34, 0.38), "large": (0.50, 0.56)}  # two objects share the image
SIDE_OF_SECOND = (0.36, 0.42)
GLYPH_PIXELS = 128  # of the cached shapes, before they are scaled down


@dataclass(frozen=True)
class DrawSettings:
    """How images vary beyond their scene; `side_pixels` is the image's height and width."""

    side_pixels: int = 48
    rotation_degrees: float = 12.0
    flip_share: float = 0.0  # of the objects, mirrored; doubles the shapes to be learned
    colour_jitter: float = 10.0  # standard deviation, of 255
    gradient: float = 14.0  # largest change of brightness from the centre to an edge, of 255
    noise: float = 6.0  # standard deviation of a pixel, of 255


def icon_font() -> tuple[str, object]:
    """The icon font's file and its class of names (attribute = icon name).

    Raises:
      UserError: the package is not installed.
    """
    try:
        from fonticon_mdi7 import MDI7
    except ImportError as error:
        raise UserError(
            "the miniature world needs its icon font: pip install fonticon-materialdesignicons7"
        ) from error
    return MDI7.__font_file__, MDI7


@cache
def glyph(icon: str) -> Image.Image:
    """The shape of an icon: a grey image of GLYPH_PIXELS squared, 255 inside, centred.

    Raises:
      UserError: the font has no icon of that name.
    """
    path, names = icon_font()
    character = getattr(names, icon, "").rpartition(".")[2]
    if not character:
        raise UserError(f"icon {icon!r} is not in {path}: take a name that the font has")
    font = ImageFont.truetype(path, GLYPH_PIXELS)
    canvas = Image.new("L", (2 * GLYPH_PIXELS, 2 * GLYPH_PIXELS))
    ImageDraw.Draw(canvas).text((GLYPH_PIXELS // 2, GLYPH_PIXELS // 2), character, 255, font=font)
    shape = canvas.crop(canvas.getbbox())
    square = Image.new("L", (max(shape.size), max(shape.size)))
    left, top = ((square.width - side) // 2 for side in shape.size)
    square.paste(shape, (left, top))
    return square.resize((GLYPH_PIXELS, GLYPH_PIXELS), Image.Resampling.LANCZOS)


def draw(scene: Scene, seed: int, settings: DrawSettings = DrawSettings()) -> np.ndarray:
    """The image of a scene: uint8[side, side, 3]; the same scene and seed, the same pixels."""
    rng = np.random.default_rng([seed, scene.digest()])
    side = settings.side_pixels
    background = _jitter(BACKGROUND_RGB[scene.background], rng, settings)
    colour = _jitter(OBJECT_RGB[scene.colour], rng, settings)
    sides = SIDE_OF_TWO if scene.second else SIDE
    mask = _placed(scene.concept.icon, sides[scene.size], scene.place, rng, settings)
    if scene.second:
        other = _placed(scene.second.icon, SIDE_OF_SECOND, OPPOSITE[scene.place], rng, settings)
        mask = np.maximum(mask, other)
    slope = rng.uniform(-settings.gradient, settings.gradient, 2).astype(np.float32)
    line = np.linspace(-1, 1, side, dtype=np.float32)
    shade = slope[0] * line[:, None] + slope[1] * line[None, :]
    image = background + shade[..., None] + mask[..., None] * (colour - background)
    noise = rng.standard_normal((side, side, 3), dtype=np.float32)
    return np.clip(image + settings.noise * noise, 0, 255).astype(np.uint8)


def _jitter(rgb: Sequence[int], rng: np.random.Generator, settings: DrawSettings) -> np.ndarray:
    return np.asarray(rgb, np.float32) + rng.normal(0, settings.colour_jitter, 3).astype(np.float32)


def _placed(
    icon: str,
    sides: tuple[float, float],
    place: str,
    rng: np.random.Generator,
    settings: DrawSettings,
) -> np.ndarray:
    """The icon's mask in the image, float32[side, side] in 0..1: turned, mirrored, moved."""
    shape = glyph(icon)
    if rng.random() < settings.flip_share:
        shape = shape.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    angle = rng.uniform(-settings.rotation_degrees, settings.rotation_degrees)
    shape = shape.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    side = settings.side_pixels
    length = round(side * rng.uniform(*sides) * shape.width / GLYPH_PIXELS)
    shape = shape.resize((length, length), Image.Resampling.BOX)
    room = (side - length) / 2
    corner = []
    for direction in OFFSETS[place]:
        jitter = rng.uniform(-0.12, 0.12) if direction == 0 else -direction * rng.uniform(0, 0.15)
        corner.append(round(float(np.clip(room * (1 + direction + jitter), 0, 2 * room))))
    mask = np.zeros((side, side), np.float32)
    mask[corner[1] : corner[1] + length, corner[0] : corner[0] + length] = np.asarray(shape)
    return mask / 255
