"""A tiny LLaVA, its random parameters, and random batches of every kind of row.

Letters: B rows, T tokens, C caption tokens, P image tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from tga_jax.models.config import Compute, DecoderConfig, LlavaConfig, VisionConfig
from tga_jax.models.llava import Llava, PixelNorm

VOCAB, IMAGE_TOKEN, PAD, SIDE, WIDTH, LAYERS = 64, 5, 0, 16, 16, 3
LENGTH, CAPTION_LENGTH = 24, 8
CONFIG = LlavaConfig(
    VisionConfig(image_size=SIDE, patch_size=8, width=16, layers=3, heads=2, ffn=32),
    DecoderConfig(vocab=VOCAB, width=WIDTH, layers=LAYERS, heads=4, kv_heads=2, head_dim=4, ffn=32),
    image_token=IMAGE_TOKEN,
)
PATCHES = CONFIG.image_tokens  # 4
NORM = PixelNorm((0.5,) * 3, (0.25,) * 3)

# What a row has: (image, retrieved text, caption). "tox" rows have a blank image.
KINDS = {
    "full": (True, True, True),
    "no_retrieved": (True, False, True),
    "no_caption": (True, True, False),
    "text": (False, False, False),
    "tox": (True, True, False),
}


def model(*, dtype: str = "float32", remat: str = "none") -> Llava:
    """The model without parameters."""
    return Llava(CONFIG, NORM, Compute(dtype=dtype, remat=remat))


@functools.cache
def _drawn(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    boxed = jax.eval_shape(model().init, jax.random.key(0))

    def draw(path: Any, box: nn.LogicallyPartitioned) -> np.ndarray:
        name, leaf = path[-1].key, box.value
        # Matrices keep a signal's size; norms are away from one and biases from zero.
        size = leaf.shape[-2] ** -0.5 if name in ("kernel", "head") else 0.2
        return (rng.normal(0, size, leaf.shape) + (name == "scale")).astype(np.float32)

    return jax.tree_util.tree_map_with_path(
        draw, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )


def params(seed: int = 0) -> Any:
    """Nested random parameters, numpy float32."""
    return jax.tree.map(np.copy, _drawn(seed))


def flat_params(seed: int = 0) -> dict[str, np.ndarray]:
    """The same by path."""
    return flatten_dict(params(seed), sep="/")


def batch(
    kinds: Sequence[str] = ("full",) * 4, *, seed: int = 0, answers: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Rows of these kinds as arrays of [B, ...], with the keys that the objective reads.

    Args:
        kinds: of `KINDS`.
        seed: of tokens, pixels and lengths.
        answers: answer tokens of every row; random without.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(2, 6, len(kinds)) if answers is None else answers
    rows = [_row(rng, kind, int(n)) for kind, n in zip(kinds, drawn, strict=True)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _row(rng: np.random.Generator, kind: str, answer: int) -> dict[str, np.ndarray]:
    image, retrieved, caption = KINDS[kind]
    tokens, spans = [1], {"retrieved_span": (0, 0), "image_span": (0, 0)}

    def text(count: int) -> list[int]:
        return rng.integers(IMAGE_TOKEN + 1, VOCAB, count).tolist()

    if retrieved:
        tokens += text(1)
        start = len(tokens)
        tokens += text(int(rng.integers(2, 5)))
        spans["retrieved_span"] = (start, len(tokens))
    if image:
        spans["image_span"] = (len(tokens), len(tokens) + PATCHES)
        tokens += [IMAGE_TOKEN] * PATCHES
    tokens += text(int(rng.integers(2, 4)))
    prompt = len(tokens)
    tokens += text(answer)
    caption_tokens = [1, *text(int(rng.integers(4, CAPTION_LENGTH)))] if caption else []
    spans["caption_span"] = (2, len(caption_tokens)) if caption else (0, 0)
    both = image and caption
    spans["answer_span"] = (prompt - 1, prompt) if both else (0, 0)
    spans["caption_answer_span"] = (
        (len(caption_tokens) - 1, len(caption_tokens)) if both else (0, 0)
    )
    main = _padded(tokens, LENGTH)
    labels = np.where(np.arange(LENGTH) >= prompt, main, -100)
    labels[len(tokens) :] = -100
    segments = (np.arange(LENGTH) < len(tokens)).astype(np.int32)
    pixels = rng.integers(0, 256, (1, SIDE, SIDE, 3)).astype(np.uint8)
    return {
        "tokens": main,
        "labels": labels.astype(np.int32),
        "segments": segments,
        "positions": np.arange(LENGTH, dtype=np.int32) * segments,
        "images": pixels if image and kind != "tox" else np.zeros_like(pixels),
        "caption_tokens": _padded(caption_tokens, CAPTION_LENGTH),
        "caption_segments": (np.arange(CAPTION_LENGTH) < len(caption_tokens)).astype(np.int32),
        **{name: np.array(span, np.int32) for name, span in spans.items()},
    }


def _padded(tokens: list[int], length: int) -> np.ndarray:
    return np.array(tokens + [PAD] * (length - len(tokens)), np.int32)


def micro_batches(rows: dict[str, Any], accumulate: int) -> dict[str, Any]:
    """[B, ...] -> [A, B / A, ...]."""
    return {k: v.reshape(accumulate, len(v) // accumulate, *v.shape[1:]) for k, v in rows.items()}


def take(rows: dict[str, Any], chosen: Any) -> dict[str, Any]:
    """Some rows of [B, ...] arrays."""
    return {k: v[chosen] for k, v in rows.items()}


def prompts(seed: int, count: int, length: int, *, image_every: int) -> tuple[np.ndarray, ...]:
    """Prompts of unequal length, one in `image_every` with an image.

    Returns:
        tokens and segments int32[count, length], images uint8[count, 1, side, side, 3].
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(PATCHES + 2, length + 1, (count, 1))
    segments = (np.arange(length) < lengths).astype(np.int32)
    tokens = rng.integers(IMAGE_TOKEN + 1, VOCAB, (count, length)).astype(np.int32)
    tokens[::image_every, 1 : 1 + PATCHES] = IMAGE_TOKEN
    images = rng.integers(0, 256, (count, 1, SIDE, SIDE, 3)).astype(np.uint8)
    return np.where(segments > 0, tokens, PAD), segments, images
