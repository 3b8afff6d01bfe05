"""LoRA adapters alone, as a folder that PEFT's `PeftModel.from_pretrained` loads.

The format (https://huggingface.co/docs/peft/developer_guides/checkpoint): adapter_config.json
and adapter_model.safetensors, whose names are "base_model.model." and the base model's own name
of the module. The base model is a `LlavaForConditionalGeneration` of transformers 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tga_jax.files import replacing_folder
from tga_jax.hf import names
from tga_jax.hf.fused import FUSED
from tga_jax.hf.tensor_writing import NewTensor, write_file
from tga_jax.hf.tokenizer import write_json
from tga_jax.models.config import LlavaConfig

PREFIX = "base_model.model."
PROJECTOR = "multi_modal_projector"


def export_adapters(
    folder: Path,
    *,
    params: Mapping[str, jax.Array],
    config: LlavaConfig,
    base: str,
    projector: bool,
    dtype: np.dtype,
) -> None:
    """Write the folder, whole or not at all.

    Args:
        folder: the final place; an existing folder there is replaced.
        params: by flat path, with the adapters.
        config: of the model; its decoder has a LoraConfig.
        base: folder or hub id of the model that the adapters belong to.
        projector: the projector was trained too, and is saved whole beside the adapters.
        dtype: of the tensors.
    """
    with replacing_folder(folder) as partial:
        write_json(partial / "adapter_config.json", adapter_config(config, base, projector))
        tensors = _adapters(params, config)
        if projector:
            tensors += _projector(params)
        write_file(partial / "adapter_model.safetensors", tensors, np.dtype(dtype))


def why_not(model_type: str) -> str:
    """Why PEFT cannot express the adapters of this type of language model; "" where it can."""
    if model_type not in FUSED:
        return ""
    return f"in files of {model_type} the adapted projections are fused into one"


def adapter_config(config: LlavaConfig, base: str, projector: bool) -> dict[str, Any]:
    """The content of adapter_config.json, as PEFT reads it."""
    lora = config.decoder.lora
    assert lora is not None
    layers = "|".join(map(str, _layers(config)))
    modules = "|".join(_module(target).replace(".", r"\.") for target in lora.targets)
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        # A pattern, as the vision tower has modules of the same names.
        "target_modules": rf"model\.language_model\.layers\.({layers})\.({modules})",
        "modules_to_save": [PROJECTOR] if projector else None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _layers(config: LlavaConfig) -> tuple[int, ...]:
    lora = config.decoder.lora
    assert lora is not None
    return tuple(range(config.decoder.layers)) if lora.layers is None else lora.layers


def _module(target: str) -> str:
    """ "q" -> "self_attn.q_proj"."""
    name = names.RULES[f"decoder/blocks/{target}/kernel"].name
    return name.split(".{i}.")[1].removesuffix(".weight")


def _adapters(params: Mapping[str, jax.Array], config: LlavaConfig) -> list[NewTensor]:
    """A: [rank, in] and B: [out, rank] of every adapted matrix."""
    lora = config.decoder.lora
    assert lora is not None
    out = []
    for layer in _layers(config):
        for target in lora.targets:
            module = f"{PREFIX}model.language_model.layers.{layer}.{_module(target)}"
            for ours, theirs in (("lora_a", "lora_A"), ("lora_b", "lora_B")):
                stacked = params[f"decoder/blocks/{target}/{ours}"]
                shape = (stacked.shape[2], stacked.shape[1])
                out.append(
                    NewTensor(f"{module}.{theirs}.weight", shape, _transposed(stacked, layer))
                )
    return out


def _transposed(stacked: jax.Array, layer: int) -> Callable[[], np.ndarray]:
    return lambda: np.asarray(stacked[layer]).T


def _projector(params: Mapping[str, jax.Array]) -> list[NewTensor]:
    out = []
    for path, array in params.items():
        if path.startswith("projector/"):
            (slot,) = names.slots(path, array.shape)
            out.append(NewTensor(f"{PREFIX}model.{slot.name}", slot.shape, _read(array, slot)))
    return out


def _read(array: jax.Array, slot: names.Slot) -> Callable[[], np.ndarray]:
    return lambda: names.to_theirs(slot.transform, np.asarray(array))
