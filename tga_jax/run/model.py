"""The model of a run: the files that it comes from, its image preparation, and its Flax modules."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tga_jax.alignment.layers import parse_layers
from tga_jax.config import listed
from tga_jax.data.images import ImageTransform
from tga_jax.data.tiles import TileTransform
from tga_jax.errors import UserError
from tga_jax.hf.source import Source, open_llava, open_parts
from tga_jax.models.attention import BACKENDS, choose_backend
from tga_jax.models.config import MATRICES, Compute, LlavaConfig, LoraConfig
from tga_jax.models.layers import REMAT_POLICIES
from tga_jax.models.llava import Llava, PixelNorm
from tga_jax.models.quantised import KINDS
from tga_jax.models.tiling import most_tokens
from tga_jax.run.fingerprint import versions
from tga_jax.run.job import Job
from tga_jax.run.prompts import PromptStyle


@dataclasses.dataclass(frozen=True)
class OpenModel:
    """A model that was opened but has no parameters yet.

    Attributes:
        source: its files and tokenizer.
        image_settings: the checkpoint's image preparation, as config.data.pad_to_square changes it.
        transform: images -> pixels, by these settings.
        llava: the Flax modules.
        prompts: how its prompts are written.
        mesh: the devices that it runs on.
    """

    source: Source
    image_settings: dict[str, Any]
    transform: ImageTransform | TileTransform
    llava: Llava
    prompts: PromptStyle
    mesh: Mesh


def open_model(job: Job, mesh: Mesh) -> OpenModel:
    """Open the model that config.model names; no parameter is read.

    Raises:
        UserError: there is no such model, or a key that shapes it has no such value.
    """
    config, source = job.config, open_source(job.config.model)
    if config.model.checkpoint and (config.model.vision or config.model.llm):
        job.say("config.model.checkpoint is given, so config.model.vision and .llm do not count")
    settings = image_settings(source, config.data.pad_to_square)
    transform = image_transform(source, settings)
    compute = compute_of(config, config.model.remat, jax.devices()[0].platform)
    job.say(f"attention: {compute.attention}, {compute.dtype}, remat {compute.remat}")
    tokens = most_tokens(source.config)
    if tokens >= config.data.max_length:
        job.say(
            f"an image takes up to {tokens} tokens in {source.name}, by its size; samples that are "
            f"then beyond config.data.max_length={config.data.max_length} are left out"
        )
    norm = PixelNorm(tuple(settings["mean"]), tuple(settings["std"]), settings["rescale"])
    llava = Llava(as_configured(source.config, config), norm, compute)
    prompts = PromptStyle.of(config, job.workdir, source, say=job.say)
    return OpenModel(source, settings, transform, llava, prompts, mesh)


def provenance(model: OpenModel) -> dict[str, Any]:
    """Returns what names a model and this run and decides no answer: its source, date, versions."""
    return {
        "source": model.source.origin,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions(),
    }


def open_source(model: ConfigDict) -> Source:
    """The checkpoint, or the two parts, that `config.model` names."""
    if model.checkpoint:
        return open_llava(model.checkpoint)
    if not (model.vision and model.llm):
        raise UserError(
            "no model: set config.model.checkpoint, or config.model.vision and config.model.llm"
        )
    return open_parts(
        vision=model.vision,
        llm=model.llm,
        projector=model.projector,
        feature_layer=model.feature_layer,
        feature_select=model.feature_select,
    )


def image_settings(source: Source, pad_to_square: str) -> dict[str, Any]:
    """The checkpoint's image preparation, with config.data.pad_to_square applied."""
    if pad_to_square not in ("auto", "yes", "no"):
        raise UserError(
            f"config.data.pad_to_square={pad_to_square!r} must be 'auto', 'yes' or 'no'"
        )
    settings = dict(source.image_settings)
    if pad_to_square == "yes" and source.config.tiling is not None:
        raise UserError(
            f"config.data.pad_to_square='yes': {source.name} takes images in tiles, not as squares"
        )
    if pad_to_square != "auto":
        settings["pad_to_square"] = pad_to_square == "yes"
    return settings


def image_transform(source: Source, settings: dict[str, Any]) -> ImageTransform | TileTransform:
    """Images -> pixels of the size that the vision tower takes, or several tiles of that size."""
    transform, side = ImageTransform(**settings), source.config.vision.image_size
    tiling = source.config.tiling
    if transform.size != (side, side):
        raise UserError(
            f"{source.name}: its processor makes images of {transform.size} pixels, "
            f"its vision tower takes {side} x {side}"
        )
    return transform if tiling is None else TileTransform(transform, tiling)


def compute_of(config: ConfigDict, remat: str, platform: str | None) -> Compute:
    """How the model computes: dtype, remat policy, attention.

    Args:
        config: the whole configuration.
        remat: the policy, in place of config.model.remat where a plan tries several.
        platform: decides an attention of "auto"; None: plain products, which show all FLOPs.
    """
    if config.dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.dtype={config.dtype!r} must be 'float32' or 'bfloat16'")
    if remat not in REMAT_POLICIES:
        known = ", ".join(map(repr, REMAT_POLICIES))
        raise UserError(f"config.model.remat={remat!r} must be one of {known}")
    attention = "xla" if platform is None else attention_on(platform, config)
    return Compute(config.dtype, remat, attention)


def attention_on(platform: str, config: ConfigDict) -> str:
    """config.model.attention, with "auto" replaced by the fastest of the platform."""
    name = config.model.attention
    if name not in ("auto", *BACKENDS):
        known = ", ".join(map(repr, ("auto", *BACKENDS)))
        raise UserError(f"config.model.attention={name!r} must be one of {known}")
    return choose_backend(name, platform=platform, dtype=config.dtype)


def as_configured(shapes: LlavaConfig, config: ConfigDict) -> LlavaConfig:
    """The model's shapes, with adapters and with kernels in few bits, as the configuration asks.

    Raises:
        UserError: there is no such kind of kernels, or this model cannot have it.
    """
    return with_quantised(with_adapters(shapes, config.lora), config.model.quantize)


def with_quantised(config: LlavaConfig, kind: str) -> LlavaConfig:
    """The model's shapes, with the blocks' kernels kept as `config.model.quantize` says."""
    if kind not in ("", *KINDS):
        known = ", ".join(map(repr, ("", *KINDS)))
        raise UserError(f"config.model.quantize={kind!r} must be one of {known}")
    decoder = config.decoder
    inputs = decoder.width, decoder.heads * decoder.head_dim, decoder.ffn
    if kind == "nf4" and any(side % 2 for side in inputs):
        raise UserError(
            f"config.model.quantize='nf4' packs two inputs into a byte, and this model's matrices "
            f"have {', '.join(map(str, inputs))}: take 'int8'"
        )
    return dataclasses.replace(config, decoder=dataclasses.replace(decoder, quantize=kind))


def unquantised(llava: Llava) -> Llava:
    """The model with all kernels as floats."""
    return dataclasses.replace(llava, config=with_quantised(llava.config, ""))


def with_adapters(config: LlavaConfig, lora: ConfigDict) -> LlavaConfig:
    """The model's shapes, with the adapters that `config.lora` asks for.

    Raises:
        UserError: a key of config.lora has no such value.
    """
    if lora.rank < 0:
        raise UserError(f"config.lora.rank={lora.rank} must be 0 (no adapters) or more")
    if lora.rank and not lora.alpha > 0:
        raise UserError(f"config.lora.alpha={lora.alpha} must be more than 0: it scales adapters")
    if not lora.rank:
        return config
    layers = parse_layers(
        lora.layers, config.decoder.layers, key="config.lora.layers", words="'all'"
    )
    chosen = None if len(layers) == config.decoder.layers else layers
    adapters = LoraConfig(lora.rank, lora.alpha, _matrices(lora.targets), chosen)
    decoder = dataclasses.replace(config.decoder, lora=adapters)
    return dataclasses.replace(config, decoder=decoder)


def _matrices(targets: str) -> tuple[str, ...]:
    """The names in config.lora.targets."""
    names = tuple(listed(targets))
    unknown = [name for name in names if name not in MATRICES]
    if unknown or not names:
        said = f"there is no matrix {unknown[0]!r}" if unknown else "no matrix is named"
        raise UserError(
            f"config.lora.targets={targets!r}: {said}; name some of {', '.join(MATRICES)}"
        )
    return names
