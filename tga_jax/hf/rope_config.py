"""Rotary embeddings in a config.json: reading and writing."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tga_jax.hf.config_part import Part
from tga_jax.models.config import DecoderConfig, RopeScaling

Json = dict[str, Any]

KINDS = ("default", "linear", "llama3", "yarn", "dynamic")

# kind -> {our field: their key}; what is as `RopeScaling` has it by default may be left out.
_KEYS = {
    "linear": {},
    "dynamic": {},
    "llama3": {
        "low_freq_factor": "low_freq_factor",
        "high_freq_factor": "high_freq_factor",
        "original_length": "original_max_position_embeddings",
    },
    "yarn": {
        "original_length": "original_max_position_embeddings",
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention_factor": "attention_factor",
        "truncate": "truncate",
    },
}
_ALWAYS = {"low_freq_factor", "high_freq_factor", "original_length"}


def read_rope(part: Part) -> Json:
    """The fields of `DecoderConfig` about rotary embeddings.

    Raises:
        UserError: a kind that we do not have.
    """
    rope = part.values.rope_parameters
    if "full_attention" not in rope:
        return _read(part, rope)
    windowed = rope["sliding_attention"]
    if windowed["rope_type"] != "default":
        raise part.error(
            f"rope_parameters.sliding_attention.rope_type {windowed['rope_type']!r} is not"
            " supported; only default is"
        )
    theta = float(windowed["rope_theta"])
    return _read(part, rope["full_attention"]) | {"window_rope_theta": theta}


def _read(part: Part, rope: Json) -> Json:
    if "rope_theta" not in rope:
        raise part.error("rope_parameters a layer type are not supported")
    partial = rope.get("partial_rotary_factor", 1.0)
    if partial != 1.0:
        raise part.error(f"partial_rotary_factor {partial} is not supported")
    return {"rope_theta": float(rope["rope_theta"]), "rope_scaling": _scaling(part, rope)}


def _scaling(part: Part, rope: Json) -> RopeScaling | None:
    kind = rope["rope_type"]
    if kind not in KINDS:
        raise part.error(
            f"rope_type {kind!r} is not supported; only {', '.join(KINDS[:-1])} and {KINDS[-1]} are"
        )
    if kind == "default":
        return None
    limit = part.values.max_position_embeddings
    if kind == "dynamic":
        return RopeScaling(kind, float(rope["factor"]), original_length=limit)
    fields = {field: rope[key] for field, key in _KEYS[kind].items() if rope.get(key) is not None}
    factor = rope.get("factor") or limit / fields["original_length"]
    if kind == "yarn" and rope.get("mscale") and rope.get("mscale_all_dim"):
        sizes = (0.1 * rope[key] * math.log(factor) + 1 for key in ("mscale", "mscale_all_dim"))
        fields.setdefault("attention_factor", next(sizes) / next(sizes))
    return RopeScaling(kind, float(factor), **fields)


def write_rope(cfg: DecoderConfig, *, by_layer: bool = False) -> Json:
    """Both spellings: transformers 4 reads rope_theta and rope_scaling, 5 rope_parameters.

    Args:
        cfg: the model.
        by_layer: blocks with a window have parameters of their own, as in Gemma 3.
    """
    scaling = None if cfg.rope_scaling is None else _written(cfg.rope_scaling)
    every = {"rope_theta": cfg.rope_theta, **(scaling or {"rope_type": "default"})}
    content: Json = {"rope_scaling": scaling, "rope_theta": cfg.rope_theta}
    if cfg.rope_scaling is not None and cfg.rope_scaling.kind == "dynamic":
        content["max_position_embeddings"] = cfg.rope_scaling.original_length
    if not by_layer:
        return content | {"rope_parameters": every}
    theta = cfg.window_rope_theta or cfg.rope_theta
    windowed = {"rope_type": "default", "rope_theta": theta}
    nested = {"full_attention": every, "sliding_attention": windowed}
    return content | {"rope_parameters": nested, "rope_local_base_freq": theta}


def _written(scaling: RopeScaling) -> Json:
    content: Json = {"rope_type": scaling.kind, "factor": scaling.factor}
    defaults = {field.name: field.default for field in dataclasses.fields(RopeScaling)}
    for field, key in _KEYS[scaling.kind].items():
        value = getattr(scaling, field)
        if field in _ALWAYS or value != defaults[field]:
            content[key] = value
    return content
