"""Where a model comes from: a LLaVA checkpoint, or a vision tower and a language model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tga_jax.errors import UserError
from tga_jax.hf.config import (
    parts_json,
    read_config_json,
    read_decoder_config,
    read_llava_config,
    read_vision_config,
)
from tga_jax.hf.hub import resolve_checkpoint
from tga_jax.hf.processor import read_image_settings
from tga_jax.hf.template_choice import TemplateFacts, template_facts
from tga_jax.hf.tokenizer import TokenizerInfo, load_tokenizer
from tga_jax.hf.weights import load_weights
from tga_jax.models.config import LlavaConfig

VOCAB_MULTIPLE = 64  # embeddings are padded to it when tokens are added

Leaves = Mapping[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model on disk, not yet loaded.

    Attributes:
        config: the model's shapes.
        tokenizer: with image and padding token.
        image_settings: keyword arguments of `tga_jax.data.images.ImageTransform`.
        hf_config: config.json of the LLaVA folder, or {"vision_config", "text_config"} of parts.
        folders: family ("llava", or "vision" and "decoder") -> folder.
        grown: the vocabulary is larger than the files'; tokens were added.
        given: the folders or hub ids as they were named.
    """

    config: LlavaConfig
    tokenizer: TokenizerInfo
    image_settings: dict[str, Any]
    hf_config: dict[str, Any]
    folders: dict[str, Path]
    grown: bool
    given: tuple[str, ...] = ()

    @functools.cached_property
    def template_facts(self) -> TemplateFacts:
        """What the files say about the prompts that the model knows."""
        text = self.hf_config.get("text_config") or {}
        names = (*self.given, self.hf_config.get("_name_or_path"), text.get("_name_or_path"))
        return template_facts(
            self.tokenizer,
            names=tuple(name for name in names if isinstance(name, str)),
            decoder=text.get("model_type", ""),
        )

    @property
    def name(self) -> str:
        """What the model is called in answers and cards."""
        return "+".join(folder.name for folder in self.folders.values())

    def load(self, leaves: Leaves) -> dict[str, jax.Array]:
        """The parameters that the files hold; of parts, the projector is not among them."""
        params: dict[str, jax.Array] = {}
        for family, folder in self.folders.items():
            wanted = _of_family(leaves, family)
            params |= load_weights(folder, wanted, family=family, grow_vocab=self.grown)
        return params


def open_llava(checkpoint: str) -> Source:
    """A LlavaForConditionalGeneration folder or hub id."""
    folder = resolve_checkpoint(checkpoint)
    config = read_llava_config(folder)
    tokenizer = load_tokenizer(folder, image_token_id=config.image_token)
    if tokenizer.image_token_id != config.image_token:
        raise UserError(
            f"{folder / 'config.json'}: image_token_index is {config.image_token} but the "
            f"tokenizer's {tokenizer.image_token} is {tokenizer.image_token_id}; make them agree"
        )
    source = _source(config, tokenizer, folder, read_config_json(folder), {"llava": folder})
    return dataclasses.replace(source, given=(checkpoint,))


def open_parts(
    *, vision: str, llm: str, projector: str, feature_layer: int, feature_select: str
) -> Source:
    """A vision tower's folder and a language model's (or hub ids); the projector is new."""
    folders = {"vision": resolve_checkpoint(vision), "decoder": resolve_checkpoint(llm)}
    tokenizer = load_tokenizer(folders["decoder"])
    config = LlavaConfig(
        vision=read_vision_config(folders["vision"]),
        decoder=read_decoder_config(folders["decoder"]),
        image_token=tokenizer.image_token_id,
        projector=projector,
        feature_layer=feature_layer,
        feature_select=feature_select,
    )
    if feature_select == "default" and not config.vision.class_token:
        raise UserError(
            f"config.model.feature_select='default' drops the class token, which {vision} has not;"
            " set it to 'full'"
        )
    hf_config = parts_json(vision=folders["vision"], llm=folders["decoder"])
    source = _source(config, tokenizer, folders["vision"], hf_config, folders)
    return dataclasses.replace(source, given=(llm,))


def _source(
    config: LlavaConfig,
    tokenizer: TokenizerInfo,
    image_folder: Path,
    hf_config: dict[str, Any],
    folders: dict[str, Path],
) -> Source:
    """With room for added tokens, as LLaVA's published checkpoints have it."""
    grown = tokenizer.vocab_needed > config.decoder.vocab
    if grown:
        vocab = -(-tokenizer.vocab_needed // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
        decoder = dataclasses.replace(config.decoder, vocab=vocab)
        config = dataclasses.replace(config, decoder=decoder)
    settings = read_image_settings(image_folder)
    return Source(config, tokenizer, settings, hf_config, folders, grown)


def _of_family(leaves: Leaves, family: str) -> dict[str, jax.ShapeDtypeStruct]:
    parts = ("vision", "projector", "decoder") if family == "llava" else (family,)
    return {
        path: leaf
        for path, leaf in leaves.items()
        if path.split("/")[0] in parts and "/lora_" not in path
    }
