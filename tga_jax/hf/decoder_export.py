"""A language model on its own, as a Hugging Face folder that AutoModelForCausalLM loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax

from tga_jax.files import replacing_folder
from tga_jax.hf.chat_template import chat_template
from tga_jax.hf.config_export import to_hf_decoder_config
from tga_jax.hf.export import generation_config
from tga_jax.hf.saving import save_part
from tga_jax.hf.tokenizer import TokenizerInfo, save_tokenizer, write_json
from tga_jax.models.config import DecoderConfig


def export_decoder(
    folder: Path,
    *,
    params: Mapping[str, jax.Array],
    config: DecoderConfig,
    tokenizer: TokenizerInfo,
    model_type: str,
    template: str,
    system: str | None,
    length: int,
    dtype: str,
) -> None:
    """Writes the folder, whole or not at all; `tga_jax.hf.source.open_parts` reads it back.

    The same arguments give the same bytes. One process only.

    Args:
        folder: the final place; an existing folder there is replaced.
        params: by flat path; only "decoder/" ones are written, adapters merged.
        config: of the decoder.
        tokenizer: its first end token ends an answer.
        model_type: a key of `decoders.DECODERS`.
        template: name of the training's prompt template.
        system: what replaced the template's system text in training, or None.
        length: the most tokens that the model is meant for.
        dtype: of the weights, such as "bfloat16".

    Raises:
        UserError: when `folder` is a file, or the tokenizer has no chat template to keep.
        ValueError: the model type cannot express the model.
    """
    content = to_hf_decoder_config(
        config,
        model_type=model_type,
        dtype=dtype,
        length=length,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_ids[0],
        pad_token_id=tokenizer.pad_id,
    )
    with replacing_folder(folder) as partial:
        write_json(partial / "config.json", content)
        write_json(partial / "generation_config.json", generation_config(tokenizer))
        save_tokenizer(
            partial,
            tokenizer.tokenizer,
            chat_template=chat_template(template, info=tokenizer, system=system),
            processor_class=None,
        )
        decoder = {path: array for path, array in params.items() if path.startswith("decoder/")}
        save_part(
            decoder,
            partial,
            family="decoder",
            dtype=dtype,
            decoder=model_type,
            lora=config.lora,
        )
