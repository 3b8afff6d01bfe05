"""An exported folder in the layout of the LLaVA repository (haotian-liu/LLaVA), for its tools.

There the model is the language model's class with the projector inside; the vision tower is
loaded apart, from the name that the config gives. LLaVA picks its classes by the folder's name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import read_json, replacing_folder
from tga_jax.hf.tensor_files import DTYPES, StoredTensor, stored_tensors
from tga_jax.hf.tensor_writing import NewTensor, write_tensors
from tga_jax.hf.tokenizer import write_json

MAX_SHARD_BYTES = 5_000_000_000
COPIED = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")

# text model type -> LLaVA's model type, its class, what the folder's name must hold
FAMILIES = {
    "llama": ("llava_llama", "LlavaLlamaForCausalLM", ("llava",)),
    "mistral": ("llava_mistral", "LlavaMistralForCausalLM", ("llava", "mistral")),
    "qwen2": ("llava_qwen", "LlavaQwenForCausalLM", ("llava", "qwen")),  # LLaVA-NeXT's repository
}


def write_llava_layout(exported: Path, folder: Path, *, vision_tower: str) -> None:
    """Writes what `export_folder` wrote once more, in LLaVA's original layout.

    Args:
        exported: a folder of `export_folder`.
        folder: the final place; its name must hold "llava", for Mistral also "mistral", for
            Qwen2 "qwen".
        vision_tower: hub id or path that LLaVA is to load the (unchanged) tower from.

    Raises:
        UserError: for a name or a model that LLaVA's code would take for something else.
    """
    config = read_json(exported / "config.json")
    content = _config(exported, config, folder_name=folder.name, vision_tower=vision_tower)
    stored = stored_tensors(exported)
    linear = content["mm_projector_type"] == "linear"
    names = {name: original_name(name, linear=linear) for name in stored}
    tensors = [
        NewTensor(name, stored[theirs].shape, _reader(stored[theirs]))
        for theirs, name in names.items()
        if name is not None
    ]
    with replacing_folder(folder) as partial:
        write_json(partial / "config.json", content)
        for name in COPIED:
            shutil.copyfile(exported / name, partial / name)
        dtype = DTYPES[next(iter(stored.values())).dtype].name
        write_tensors(partial, tensors, dtype=dtype, max_bytes=MAX_SHARD_BYTES)


def check_classes(model_type: str, decoder: str, *, where: str) -> None:
    """Refuse what has no class in LLaVA's repositories, or another one there.

    Args:
        model_type: of the LLaVA in transformers, like "llava_next".
        decoder: the model type of its language model.
        where: what the message begins with.
    """
    if model_type != "llava":
        raise UserError(
            f"{where}: model_type {model_type!r}: LLaVA's own layout is "
            "written of images in one tile only; leave config.export.llava_tower empty"
        )
    if decoder not in FAMILIES:
        raise UserError(
            f"{where}: text_config.model_type {decoder!r} has no class in LLaVA's repositories; "
            f"{', '.join(FAMILIES)} have. Leave config.export.llava_tower empty"
        )


def original_name(name: str, *, linear: bool) -> str | None:
    """LLaVA's name of a tensor of `LlavaForConditionalGeneration`; None if it keeps it elsewhere.

    Args:
        name: as `save_weights` writes it.
        linear: a projector of one layer; the second one of the file is the identity.
    """
    part, _, rest = name.partition(".")
    if part == "language_model":
        return rest
    if part == "multi_modal_projector":
        layer, _, kind = rest.partition(".")
        if linear:
            return f"model.mm_projector.{kind}" if layer == "linear_1" else None
        # An nn.Sequential: linear, GELU, linear.
        return f"model.mm_projector.{'0' if layer == 'linear_1' else '2'}.{kind}"
    return None


def _reader(tensor: StoredTensor) -> Callable[[], np.ndarray]:
    return lambda: tensor.rows(0, tensor.shape[0])


def _check_features(exported: Path, config: dict[str, Any]) -> None:
    layer, vision = config["vision_feature_layer"], config["vision_config"]
    if not isinstance(layer, int):
        raise UserError(
            f"{exported}/config.json: LLaVA takes one vision_feature_layer, and no list of them"
        )
    if vision["model_type"] == "siglip_vision_model" and layer not in (
        -2,
        vision["num_hidden_layers"] - 1,
    ):
        raise UserError(
            f"{exported}/config.json: of a SigLIP LLaVA-NeXT takes vision_feature_layer -2, not"
            f" {layer}"
        )


def _config(
    exported: Path, config: dict[str, Any], *, folder_name: str, vision_tower: str
) -> dict[str, Any]:
    """The language model's config with LLaVA's mm_* keys."""
    text = config["text_config"]
    check_classes(config["model_type"], text["model_type"], where=f"{exported}/config.json")
    model_type, architecture, marks = FAMILIES[text["model_type"]]
    if not all(mark in folder_name.lower() for mark in marks):
        raise UserError(f"{folder_name}: LLaVA needs {' and '.join(marks)} in the folder's name")
    if not config["multimodal_projector_bias"]:
        raise UserError(f"{exported}/config.json: LLaVA's projector always has a bias")
    _check_features(exported, config)
    image = read_json(exported / "preprocessor_config.json")
    linear = config["projector_hidden_act"] == "linear"
    whole = config["vision_feature_select_strategy"] == "full"
    return text | {
        "model_type": model_type,
        "architectures": [architecture],
        "dtype": config["dtype"],
        "torch_dtype": config["dtype"],
        "image_aspect_ratio": "pad" if image.get("do_pad") else "square",
        "mm_hidden_size": config["vision_config"]["hidden_size"],
        "mm_patch_merge_type": "flat",
        "mm_projector_type": "linear" if linear else "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "cls_patch" if whole else "patch",
        "mm_vision_select_layer": config["vision_feature_layer"],
        "mm_vision_tower": vision_tower,
        "use_mm_proj": True,
    }
