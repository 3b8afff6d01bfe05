"""CLIPModel folders: reading one into our CLIP, and writing one that transformers loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import replacing_folder
from tga_jax.hf.config import clip_config, read_config_json
from tga_jax.hf.config_export import to_hf_clip_config
from tga_jax.hf.hub import resolve_checkpoint
from tga_jax.hf.processor import image_processor_config, read_image_settings
from tga_jax.hf.saving import save_part
from tga_jax.hf.tokenizer import load_fast, save_fast, write_json
from tga_jax.hf.weights import load_weights
from tga_jax.models.config import ClipConfig


@dataclasses.dataclass(frozen=True, eq=False)
class ClipSource:
    """A CLIP on disk, not yet loaded.

    Attributes:
        config: the model's shapes.
        tokenizer: puts begin and end token around a text by itself.
        image_settings: keyword arguments of `tga_jax.data.images.ImageTransform`.
        hf_config: config.json.
        folder: where it is.
    """

    config: ClipConfig
    tokenizer: Any
    image_settings: dict[str, Any]
    hf_config: dict[str, Any]
    folder: Path

    def load(self, leaves: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """The parameters of a `tga_jax.models.clip.Clip`, by flat path, in these shapes, dtypes
        and shardings."""
        return load_weights(self.folder, leaves, family="clip")

    def tokenise(self, texts: Sequence[str], *, multiple: int = 8) -> tuple[np.ndarray, np.ndarray]:
        """`clip_tokens` with the model's own tokenizer and length."""
        return clip_tokens(self.tokenizer, texts, length=self.config.text.length, multiple=multiple)


def open_clip(checkpoint: str) -> ClipSource:
    """A CLIPModel folder or hub id.

    Raises:
        UserError: it is none, or its tokenizer does not end a text as its model needs it.
    """
    folder = resolve_checkpoint(checkpoint)
    hf_config = read_config_json(folder)
    config = clip_config(hf_config, file=folder / "config.json")
    tokenizer = load_fast(folder)
    last = tokenizer("a").input_ids[-1]
    if last != tokenizer.eos_token_id or config.text.end_token not in (2, last):
        raise UserError(
            f"{folder}: its tokenizer ends a text with token {last}, its config.json reads texts at"
            f" token {config.text.end_token} (text_config.eos_token_id); make them agree"
        )
    if max(tokenizer.get_vocab().values()) >= config.text.vocab:
        raise UserError(
            f"{folder}: its tokenizer has more tokens than text_config.vocab_size"
            f" {config.text.vocab}; put the model's own tokenizer files there"
        )
    return ClipSource(config, tokenizer, read_image_settings(folder), hf_config, folder)


def clip_tokens(
    tokenizer: Any, texts: Sequence[str], *, length: int, multiple: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Texts as tokens, padded on the right.

    Args:
        tokenizer: puts begin and end token around a text by itself.
        texts: any number of them.
        length: the most tokens; a longer text loses its tail and keeps its end token.
        multiple: rows are as long as the longest text, rounded up to a multiple of this (at most
            `length`), so that few shapes occur.

    Returns:
        int32[B, T], and the mask int32[B, T], 0 at padding.
    """
    found = tokenizer(list(texts), truncation=True, max_length=length).input_ids
    longest = max(map(len, found))
    width = min(-(-longest // multiple) * multiple, length)
    tokens = np.full((len(found), width), tokenizer.pad_token_id, np.int32)
    mask = np.zeros((len(found), width), np.int32)
    for row, ids in enumerate(found):
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, 1
    return tokens, mask


def export_clip(
    folder: Path,
    *,
    params: Mapping[str, jax.Array],
    config: ClipConfig,
    tokenizer: Any,
    image_settings: dict[str, Any],
    dtype: str,
    source_config: dict[str, Any] | None = None,
) -> None:
    """Writes what CLIPModel, CLIPProcessor and AutoTokenizer load, whole or not at all.

    The same arguments give the same bytes. One process only.

    Args:
        folder: the final place; an existing folder there is replaced.
        params: of a `tga_jax.models.clip.Clip`, by flat path.
        config: of the model.
        tokenizer: a fast one that puts begin and end token around a text by itself.
        image_settings: keyword arguments of ImageTransform.
        dtype: of the weights, such as "float16".
        source_config: the config.json that the model came from; None for a new one.

    Raises:
        UserError: when `folder` is a file.
    """
    with replacing_folder(folder) as partial:
        source = dict(source_config or {})
        source["text_config"] = dict(source.get("text_config") or {}) | {
            "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        content = to_hf_clip_config(config, source=source, dtype=dtype)
        write_json(partial / "config.json", content)
        settings = {"processor_class": "CLIPProcessor", "model_max_length": config.text.length}
        save_fast(partial, tokenizer, settings=settings)
        image = image_processor_config(image_settings, processor_class="CLIPProcessor")
        write_json(partial / "preprocessor_config.json", image)
        save_part(params, partial, family="clip", dtype=dtype)
