"""Where a model comes from: a LLaVA checkpoint, or a vision tower and a language model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import jax

from tga_jax.errors import UserError
from tga_jax.hf.config import (
    llava_config,
    parts_json,
    read_config_json,
    read_decoder_config,
    read_llava_config,
    read_vision_config,
)
from tga_jax.hf.hub import origin_of, resolve_checkpoint
from tga_jax.hf.kinds import is_original
from tga_jax.hf.original import read_original
from tga_jax.hf.processor import check_tiles, read_image_settings
from tga_jax.hf.template_choice import TemplateFacts, template_facts
from tga_jax.hf.tokenizer import TokenizerInfo, load_tokenizer
from tga_jax.hf.weights import load_weights
from tga_jax.models.config import LlavaConfig
from tga_jax.models.llava import PARTS, part_of

VOCAB_MULTIPLE = 64  # embeddings are padded to it when tokens are added

Leaves = Mapping[str, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model on disk, not yet loaded.

    Attributes:
        config: the model's shapes.
        tokenizer: with image and padding token.
        image_settings: keyword arguments of `tga_jax.data.images.ImageTransform`.
        hf_config: config.json of the LLaVA folder (of the original layout: what it would be as a
            LlavaForConditionalGeneration), or {"vision_config", "text_config"} of parts.
        folders: family ("llava"; "original", maybe with "vision"; or "vision" and "decoder")
            -> folder.
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

    @property
    def decoder_type(self) -> str:
        """The language model's type, a key of `decoders.DECODERS`."""
        return str(self.hf_config["text_config"].get("model_type", "llama"))

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

    @property
    def origin(self) -> str:
        """The path or hub id of each part, with its revision where that is known."""
        return " + ".join(map(origin_of, self.folders.values()))

    def load(self, leaves: Leaves) -> dict[str, jax.Array]:
        """The parameters that the files hold; of parts, the projector is not among them."""
        params: dict[str, jax.Array] = {}
        for family, folder in self.folders.items():
            wanted = _of_family(leaves, family, self.folders.keys() - {family})
            params |= load_weights(folder, wanted, family=family, grow_vocab=self.grown)
        return params


def open_llava(checkpoint: str) -> Source:
    """A LLaVA's folder or hub id: LlavaForConditionalGeneration, or the LLaVA repository's layout.

    Raises:
        UserError: it is none, or one that we do not have.
    """
    folder = resolve_checkpoint(checkpoint)
    if is_original(read_config_json(folder)):
        return dataclasses.replace(_open_original(folder), given=(checkpoint,))
    config = read_llava_config(folder)
    tokenizer = load_tokenizer(folder, image_token_id=config.image_token)
    if tokenizer.image_token_id != config.image_token:
        raise UserError(
            f"{folder / 'config.json'}: image_token_index is {config.image_token} but the "
            f"tokenizer's {tokenizer.image_token} is {tokenizer.image_token_id}; make them agree"
        )
    source = _source(config, tokenizer, folder, read_config_json(folder), {"llava": folder})
    return dataclasses.replace(source, given=(checkpoint,))


def _open_original(folder: Path) -> Source:
    """The image's token is added to the tokenizer, which in that layout knows none."""
    original, tokenizer = read_original(folder), load_tokenizer(folder)
    content = original.config | {"image_token_index": tokenizer.image_token_id}
    vocab = max(content["text_config"]["vocab_size"], tokenizer.vocab_needed)
    roomy = content | {"text_config": content["text_config"] | {"vocab_size": vocab}}
    config = llava_config(roomy, file=folder / "config.json")
    vocab = content["text_config"]["vocab_size"]
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, vocab=vocab))
    folders = {"original": folder}
    if not original.tower_inside:
        folders["vision"] = original.tower
    source = _source(config, tokenizer, original.tower, content, folders)
    settings = source.image_settings | {"pad_to_square": original.pad_to_square}
    return dataclasses.replace(source, image_settings=settings)


def checkpoint_shapes(folder: Path) -> LlavaConfig:
    """The shapes of a LLaVA's folder in either layout, without opening its tokenizer.

    Raises:
        UserError: it is none, or one that we do not have.
    """
    if not is_original(read_config_json(folder)):
        return read_llava_config(folder)
    content = read_original(folder).config
    last = content["text_config"]["vocab_size"] - 1
    return llava_config(content | {"image_token_index": last}, file=folder / "config.json")


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
    check_tiles(image_folder, config)
    return Source(config, tokenizer, settings, hf_config, folders, grown)


def _of_family(leaves: Leaves, family: str, others: Set[str]) -> dict[str, jax.ShapeDtypeStruct]:
    """The leaves that a folder of this family holds; not those that the others' folders do."""
    whole = family in ("llava", "original")
    parts = set(PARTS) - others if whole else {family}
    return {path: leaf for path, leaf in leaves.items() if part_of(path) in parts}
