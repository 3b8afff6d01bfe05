"""Which Hugging Face tensor holds which of our parameters.

Our parameters are named by their flat path ("decoder/blocks/q/kernel"), Hugging Face's by what
`LlavaForConditionalGeneration.save_pretrained` of transformers 5 writes. Other spellings are
rewritten to those on import.
"""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np

LAYER_AXIS = "blocks"  # a path with this part has a leading layer axis


@dataclasses.dataclass(frozen=True)
class Rule:
    """One row of the table.

    transform, theirs -> ours: "none"; "transpose", [out, in] -> [in, out]; "patch", a
    convolution's [D, 3, p, p] -> [p * p * 3, D] as `models.vision.to_patches` orders it.
    """

    name: str  # with {i} for the layer
    transform: str = "none"


@dataclasses.dataclass(frozen=True)
class Slot:
    """One Hugging Face tensor and its place in our parameters."""

    name: str
    path: str
    layer: int | None  # index into the leading axis; None for a parameter without one
    transform: str
    shape: tuple[int, ...]  # as Hugging Face has it


_CLIP_LINEARS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.out_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def _decoder_rules() -> dict[str, Rule]:
    layer = "language_model.model.layers.{i}."
    linears = {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    }
    return {
        "decoder/embed": Rule("language_model.model.embed_tokens.weight"),
        "decoder/head": Rule("language_model.lm_head.weight", "transpose"),
        "decoder/norm/scale": Rule("language_model.model.norm.weight"),
        "decoder/blocks/norm1/scale": Rule(layer + "input_layernorm.weight"),
        "decoder/blocks/norm2/scale": Rule(layer + "post_attention_layernorm.weight"),
        "decoder/blocks/q_norm/scale": Rule(layer + "self_attn.q_norm.weight"),
        "decoder/blocks/k_norm/scale": Rule(layer + "self_attn.k_norm.weight"),
        **_linears("decoder/blocks/", layer, linears),
    }


def _vision_rules() -> dict[str, Rule]:
    tower, layer = "vision_tower.", "vision_tower.encoder.layers.{i}."
    return {
        "vision/class_token": Rule(tower + "embeddings.class_embedding"),
        "vision/patch/kernel": Rule(tower + "embeddings.patch_embedding.weight", "patch"),
        "vision/patch/bias": Rule(tower + "embeddings.patch_embedding.bias"),
        "vision/positions": Rule(tower + "embeddings.position_embedding.weight"),
        **_norm("vision/pre_norm", tower + "pre_layrnorm"),  # Hugging Face's own spelling
        **_norm("vision/post_norm", tower + "post_layernorm"),
        **_norm("vision/blocks/norm1", layer + "layer_norm1"),
        **_norm("vision/blocks/norm2", layer + "layer_norm2"),
        **_linears("vision/blocks/", layer, _CLIP_LINEARS),
    }


def _text_rules() -> dict[str, Rule]:
    tower, layer = "text_model.", "text_model.encoder.layers.{i}."
    return {
        "text/embed": Rule(tower + "embeddings.token_embedding.weight"),
        "text/positions": Rule(tower + "embeddings.position_embedding.weight"),
        **_norm("text/final_norm", tower + "final_layer_norm"),
        **_norm("text/blocks/norm1", layer + "layer_norm1"),
        **_norm("text/blocks/norm2", layer + "layer_norm2"),
        **_linears("text/blocks/", layer, _CLIP_LINEARS),
        "text_projection/kernel": Rule("text_projection.weight", "transpose"),
        "visual_projection/kernel": Rule("visual_projection.weight", "transpose"),
        "logit_scale": Rule("logit_scale"),
    }


def _linears(path: str, prefix: str, names: dict[str, str]) -> dict[str, Rule]:
    kernels = {
        f"{path}{our}/kernel": Rule(f"{prefix}{their}.weight", "transpose")
        for our, their in names.items()
    }
    biases = {f"{path}{our}/bias": Rule(f"{prefix}{their}.bias") for our, their in names.items()}
    return kernels | biases


def _norm(path: str, name: str) -> dict[str, Rule]:
    return {f"{path}/scale": Rule(f"{name}.weight"), f"{path}/bias": Rule(f"{name}.bias")}


RULES: dict[str, Rule] = {
    **_vision_rules(),
    **_linears(
        "projector/",
        "multi_modal_projector.",
        {"linear_1": "linear_1", "linear_2": "linear_2"},
    ),
    "projector/newline": Rule("image_newline"),
    **_decoder_rules(),
    **_text_rules(),
}

# Norms before and behind both halves of a block; "post_attention_layernorm" is another one then.
_FOUR_NORMS = {
    "decoder/blocks/norm2/scale": "pre_feedforward_layernorm",
    "decoder/blocks/post_norm1/scale": "post_attention_layernorm",
    "decoder/blocks/post_norm2/scale": "post_feedforward_layernorm",
}
# Where a language model's type names the norms of its blocks otherwise.
BLOCK_NORMS = {"gemma2": _FOUR_NORMS, "gemma3_text": _FOUR_NORMS}

EMBEDDING = RULES["decoder/embed"].name
HEAD = RULES["decoder/head"].name
PROJECTOR_2 = "multi_modal_projector.linear_2."

# Tensors with a row a token; these grow when tokens are added.
VOCAB_TENSORS = (EMBEDDING, HEAD)

# First match wins. "llava": a class of `llavas.LLAVAS`, by transformers 4 and 5, "original": the
# LLaVA repository's own classes, "decoder": a ...ForCausalLM folder, "vision": a CLIP's, SigLIP's
# or vision tower's folder, "clip": both halves of a CLIPModel folder.
SPELLINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "llava": (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^(model\.)?vision_tower\.(vision_model\.)?", "vision_tower."),
        (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
        (r"^model\.image_newline$", "image_newline"),
    ),
    "original": (
        (r"^model\.vision_tower\.(vision_tower\.)?(vision_model\.)?", "vision_tower."),
        (r"^model\.mm_projector\.0\.", "multi_modal_projector.linear_1."),
        (r"^model\.mm_projector\.2\.", "multi_modal_projector.linear_2."),
        (r"^model\.mm_projector\.", "multi_modal_projector.linear_1."),
        (r"^model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
    ),
    "decoder": (
        (r"^model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
    ),
    "vision": (
        (r"^vision_model\.", "vision_tower."),
        (r"^(?=(embeddings|encoder|pre_layrnorm|post_layernorm)\.)", "vision_tower."),
    ),
    "clip": ((r"^vision_model\.", "vision_tower."),),
}

# The other way: how a family's own class names what is called otherwise in the table.
WRITTEN: dict[str, tuple[tuple[str, str], ...]] = {
    "llava": (),
    "decoder": ((r"^language_model\.", ""),),
    "clip": ((r"^vision_tower\.", "vision_model."),),
}

# Buffers that can be computed, a SigLIP's pooling head, and the text half of a CLIP or SigLIP.
IGNORED: dict[str, str] = {
    "llava": r"(^|\.)position_ids$|\.rotary_emb\.inv_freq$|vision_tower\.(vision_model\.)?head\.",
    "original": r"(^|\.)position_ids$|\.rotary_emb\.inv_freq$"
    r"|vision_tower\.(vision_model\.)?head\.",
    "decoder": r"\.rotary_emb\.inv_freq$",
    "vision": r"(^|\.)position_ids$|^(text_model|(text|visual)_projection)\.|^logit_(scale|bias)$"
    r"|^(vision_model\.)?head\.",
    "clip": r"(^|\.)position_ids$",
}


def canonical(name: str, *, family: str) -> str | None:
    """The tensor's name in the table's spelling; None for one that is to be ignored."""
    if re.search(IGNORED[family], name):
        return None
    for pattern, replacement in SPELLINGS[family]:
        name, count = re.subn(pattern, replacement, name, count=1)
        if count:
            return name
    return name


def written(name: str, *, family: str) -> str:
    """The inverse of `canonical`: the name that the family's class saves the tensor under."""
    for pattern, replacement in WRITTEN[family]:
        name = re.sub(pattern, replacement, name, count=1)
    return name


def rule_of(path: str, decoder: str) -> Rule:
    """The row of the table; `decoder` is the language model's type."""
    norm = BLOCK_NORMS.get(decoder, {}).get(path)
    if norm is not None:
        return Rule(f"language_model.model.layers.{{i}}.{norm}.weight")
    return RULES[path]


def slots(path: str, shape: tuple[int, ...], *, decoder: str = "llama") -> list[Slot]:
    """The Hugging Face tensors that make up one of our parameters, in order of layers."""
    rule = rule_of(path, decoder)
    if LAYER_AXIS not in path.split("/"):
        return [Slot(rule.name, path, None, rule.transform, their_shape(rule.transform, shape))]
    theirs = their_shape(rule.transform, shape[1:])
    return [Slot(rule.name.format(i=i), path, i, rule.transform, theirs) for i in range(shape[0])]


def their_shape(transform: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the Hugging Face tensor for our shape of one layer."""
    if transform == "none":
        return tuple(shape)
    if transform == "transpose":
        return tuple(shape[::-1])
    side = math.isqrt(shape[0] // 3)
    return (shape[1], 3, side, side)


def to_ours(transform: str, array: np.ndarray) -> np.ndarray:
    """A Hugging Face tensor (or some of its rows) as ours; a view where possible."""
    if transform == "none":
        return array
    if transform == "transpose":
        return array.T
    return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def to_theirs(transform: str, array: np.ndarray) -> np.ndarray:
    """The checkpoint's names of our parameters: the inverse of `to_ours`."""
    if transform != "patch":
        return to_ours(transform, array)
    side = math.isqrt(array.shape[0] // 3)
    return array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)
