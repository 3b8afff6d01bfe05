"""A complete Hugging Face folder: what LlavaForConditionalGeneration and AutoProcessor load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from tga_jax.files import replacing_folder
from tga_jax.hf.chat_template import chat_template
from tga_jax.hf.config_export import to_hf_config
from tga_jax.hf.model_card import CardFacts, model_card
from tga_jax.hf.processor import write_processor
from tga_jax.hf.saving import save_weights
from tga_jax.hf.tokenizer import TokenizerInfo, save_tokenizer, write_json
from tga_jax.models.config import LlavaConfig


def export_folder(
    folder: Path,
    *,
    params: Mapping[str, jax.Array],
    config: LlavaConfig,
    source_config: dict[str, Any],
    tokenizer: TokenizerInfo,
    image_settings: dict[str, Any],
    template: str,
    system: str | None,
    trained: bool,
    dtype: str,
    card: CardFacts,
    write: bool = True,
) -> None:
    """Writes the folder under another name and renames it when it is complete.

    So an interrupted export is never seen under the final name, and an earlier export stays until
    the new one is whole. The same arguments give the same bytes.
    Of several processes all call this.

    Args:
        folder: the final place; an existing folder there is replaced.
        params: parameters by flat path; adapters are merged.
        config: of the model.
        source_config: config.json of the source, or `hf.config.parts_json` of its two parts.
        tokenizer: its `eos_ids` become the end tokens of the generation config.
        image_settings: keyword arguments of ImageTransform, as in training.
        template: name of the training's prompt template.
        system: what replaced the template's system text in training, or None.
        trained: whether the model was trained with the template.
        dtype: of the weights, such as "bfloat16".
        card: what the model card says.
        write: False in all processes but the one that writes.

    Raises:
        UserError: when `folder` is a file, or the tokenizer has no chat template to keep.
    """
    decoder = source_config["text_config"].get("model_type", "llama")
    if not write:
        save_weights(params, folder, config=config, dtype=dtype, decoder=decoder, write=False)
        return
    with replacing_folder(folder) as partial:
        _write_texts(
            partial,
            config=config,
            source_config=source_config,
            tokenizer=tokenizer,
            template=chat_template(template, info=tokenizer, system=system, trained=trained),
            dtype=dtype,
        )
        write_processor(
            partial, settings=image_settings, config=config, image_token=tokenizer.image_token
        )
        (partial / "README.md").write_text(model_card(card), encoding="utf-8")
        save_weights(params, partial, config=config, dtype=dtype, decoder=decoder)


def _write_texts(
    folder: Path,
    *,
    config: LlavaConfig,
    source_config: dict[str, Any],
    tokenizer: TokenizerInfo,
    template: str,
    dtype: str,
) -> None:
    """config.json, generation_config.json, and the tokenizer with the chat template."""
    content = to_hf_config(config, source=source_config, dtype=dtype, pad_token_id=tokenizer.pad_id)
    write_json(folder / "config.json", content)
    write_json(folder / "generation_config.json", generation_config(tokenizer))
    save_tokenizer(folder, tokenizer.tokenizer, chat_template=template)


def generation_config(tokenizer: TokenizerInfo) -> dict[str, Any]:
    """Content of generation_config.json: greedy; stops where the training's answers end."""
    ends = list(tokenizer.eos_ids)
    config: dict[str, Any] = {
        "do_sample": False,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": tokenizer.pad_id,
    }
    if tokenizer.bos_id is not None:
        config["bos_token_id"] = tokenizer.bos_id
    return config
