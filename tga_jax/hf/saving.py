"""Weights into Hugging Face folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from tga_jax.hf import names
from tga_jax.hf.fused import fuse
from tga_jax.hf.shards import gather
from tga_jax.hf.tensor_writing import NewTensor, read_tensors, write_tensors
from tga_jax.models.config import LlavaConfig, LoraConfig


def save_weights(
    params: Mapping[str, jax.Array],
    folder: Path,
    *,
    config: LlavaConfig,
    dtype: str,
    decoder: str = "llama",
    max_shard_bytes: int = 5_000_000_000,
    write: bool = True,
) -> None:
    """Write parameters as `LlavaForConditionalGeneration.save_pretrained` names them.

    The inverse of `load_weights`. Adapters are merged into their kernels in float32. Two tensors
    are on the host at a time; the same parameters give the same bytes. Of several processes all
    call this, and one writes.

    Args:
        params: by flat path, adapters ("…/lora_a", "…/lora_b") included.
        folder: made if need be; earlier weight files in it are replaced.
        config: of the model.
        dtype: "float32", "bfloat16" or "float16".
        decoder: the language model's type, which decides how some of its tensors are named.
        max_shard_bytes: above it, several files with an index are written.
        write: False: only take part in gathering the parameters.
    """
    tensors = _new_tensors(params, family="llava", decoder=decoder, lora=config.decoder.lora)
    if config.projector == "linear":
        tensors += _identity(config.decoder.width, bias=config.projector_bias)
    if write:
        write_tensors(Path(folder), tensors, dtype=dtype, max_bytes=int(max_shard_bytes))
    else:
        read_tensors(tensors)


def save_part(
    params: Mapping[str, jax.Array],
    folder: Path,
    *,
    family: str,
    dtype: str,
    decoder: str = "llama",
    lora: LoraConfig | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> None:
    """`save_weights` of a model that is no LLaVA.

    Args:
        params: by flat path: "decoder/" ones, or those of a `tga_jax.models.clip.Clip`.
        folder: made if need be; earlier weight files in it are replaced.
        family: "decoder" (named as a ...ForCausalLM) or "clip" (as a CLIPModel).
        dtype: "float32", "bfloat16" or "float16".
        decoder: the language model's type, which decides how some of its tensors are named.
        lora: of the decoder's adapters, which are merged.
        max_shard_bytes: above it, several files with an index are written.
    """
    tensors = _new_tensors(params, family=family, decoder=decoder, lora=lora)
    write_tensors(Path(folder), tensors, dtype=dtype, max_bytes=int(max_shard_bytes))


def _new_tensors(
    params: Mapping[str, jax.Array], *, family: str, decoder: str, lora: LoraConfig | None
) -> list[NewTensor]:
    tensors = [
        NewTensor(names.written(slot.name, family=family), slot.shape, _reader(params, slot, lora))
        for path, array in params.items()
        if not path.endswith(("/lora_a", "/lora_b"))
        for slot in names.slots(path, array.shape, decoder=decoder)
    ]
    return fuse(tensors, decoder)


def _reader(
    params: Mapping[str, jax.Array], slot: names.Slot, lora: LoraConfig | None
) -> Callable[[], np.ndarray]:
    def take(path: str) -> np.ndarray:
        return gather(params[path], slot.layer)

    def read() -> np.ndarray:
        value = take(slot.path)
        stem = slot.path.removesuffix("kernel")
        if f"{stem}lora_a" in params:
            if lora is None:
                raise ValueError(f"{stem}lora_a without its LoraConfig")
            a, b = (take(stem + name).astype(np.float32) for name in ("lora_a", "lora_b"))
            change = a @ b
            change *= np.float32(lora.scale)
            change += value.astype(np.float32, copy=False)
            value = change
        return names.to_theirs(slot.transform, value)

    return read


def _identity(width: int, *, bias: bool) -> list[NewTensor]:
    """A linear projector's second layer, for a format that always has two."""
    eye = NewTensor(names.PROJECTOR_2 + "weight", (width, width), lambda: np.eye(width))
    zero = NewTensor(names.PROJECTOR_2 + "bias", (width,), lambda: np.zeros(width))
    return [eye, zero] if bias else [eye]
