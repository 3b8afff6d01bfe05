"""Records and questions -> tokens, as the configuration says; the padded lengths of both passes."""

from __future__ import annotations

from ml_collections import ConfigDict

from tga_jax.data.batches import default_buckets
from tga_jax.data.prompts import Prompter
from tga_jax.data.templates import SYSTEM_TEXTS
from tga_jax.hf.source import Source


def make_prompter(
    config: ConfigDict,
    source: Source,
    *,
    template: str = "",
    max_length: int = 0,
    system: str | None = None,
) -> Prompter:
    """What turns records and questions into tokens; config.prompt counts where no argument does."""
    prompt = config.prompt
    return Prompter(
        source.tokenizer.tokenizer,
        template=template or prompt.template,
        image_token=source.tokenizer.image_token,
        image_tokens=source.config.image_tokens,
        max_length=max_length or config.data.max_length,
        use_retrieved=prompt.retrieved,
        system=prompt.system if system is None else system,
        answer_states=config.guide.answer_weight > 0,
    )


def base_system(prompt: ConfigDict) -> str:
    """The system text of `config.prompt`: its own, or else the template's."""
    return SYSTEM_TEXTS.get(prompt.template, "") if prompt.system is None else prompt.system


def prompt_buckets(data: ConfigDict, max_length: int = 0) -> tuple[int, ...]:
    """The padded lengths of prompts: `config.data.buckets`, or the usual ones up to max_length."""
    return tuple(data.buckets) or default_buckets(max_length or data.max_length)


def caption_buckets(data: ConfigDict, max_length: int = 0) -> tuple[int, ...]:
    """The padded lengths of the caption pass, likewise from `config.data.caption_buckets`."""
    return tuple(data.caption_buckets) or default_buckets(max_length or data.max_length)
