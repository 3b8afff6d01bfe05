"""The language models that we have: what each kind's config.json says of a `DecoderConfig`.

One more is an entry in `DECODERS`, in `names.BLOCK_NORMS` or `fused.FUSED` where its tensors are
named otherwise, and a kind in tests/hf_models.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tga_jax.hf.config_part import Part
from tga_jax.hf.rope_config import read_rope, write_rope
from tga_jax.models.config import DecoderConfig

Json = dict[str, Any]
FULL, WINDOWED = "full_attention", "sliding_attention"


@dataclasses.dataclass(frozen=True)
class DecoderKind:
    """A kind of language model; a key of `DECODERS` is its model type.

    Attributes:
        name: of its classes, without "ForCausalLM".
        models: published models of the kind, for the documentation.
        read: the fields of `DecoderConfig` that are this kind's own.
        write: the keys of config.json that say them.
        activation: the key of the activation's name.
        rope_by_layer: blocks with a window have rotary parameters of their own.
    """

    name: str
    models: str
    read: Callable[[Part], Json]
    write: Callable[[DecoderConfig], Json]
    activation: str = "hidden_act"
    rope_by_layer: bool = False


def read_decoder(part: Part, *, tied: bool) -> DecoderConfig:
    """The shapes in a language model's configuration.

    Args:
        part: the configuration.
        tied: the head is the table of embeddings.

    Raises:
        UserError: it asks for what we do not have.
    """
    part.check_sizes("vocab_size", "num_key_value_heads")
    part.check_eps("rms_norm_eps")
    values = part.values
    kind, heads = DECODERS[values.model_type], values.num_attention_heads
    if heads % values.num_key_value_heads:
        raise part.error(
            f"num_attention_heads {heads} is no multiple of num_key_value_heads"
            f" {values.num_key_value_heads}"
        )
    fields: Json = {
        "vocab": values.vocab_size,
        "width": values.hidden_size,
        "layers": values.num_hidden_layers,
        "heads": heads,
        "kv_heads": values.num_key_value_heads,
        "head_dim": getattr(values, "head_dim", None) or values.hidden_size // heads,
        "ffn": values.intermediate_size,
        "activation": part.one_of(kind.activation, ("silu", "gelu_pytorch_tanh")),
        "norm_eps": values.rms_norm_eps,
        "tied_head": tied,
        **read_rope(part),
        **kind.read(part),
    }
    if fields.get("window") is None:
        fields.pop("window_rope_theta", None)
    return DecoderConfig(**fields)


def write_decoder(cfg: DecoderConfig, model_type: str) -> Json:
    """The keys of config.json of a language model; it may be that the type has no key for all."""
    kind = DECODERS[model_type]
    return {
        "model_type": model_type,
        "vocab_size": cfg.vocab,
        "hidden_size": cfg.width,
        "num_hidden_layers": cfg.layers,
        "num_attention_heads": cfg.heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "intermediate_size": cfg.ffn,
        kind.activation: cfg.activation,
        "rms_norm_eps": cfg.norm_eps,
        "tie_word_embeddings": cfg.tied_head,
        **write_rope(cfg, by_layer=kind.rope_by_layer),
        **kind.write(cfg),
    }


def _one_window(part: Part) -> Json:
    """transformers' masks mean q - k < window, as ours do."""
    return {"window": part.values.sliding_window}


def _windows(part: Part) -> Json:
    """Of a kind that says of each layer whether it has the window."""
    types = part.values.layer_types
    unknown = sorted(set(types) - {FULL, WINDOWED})
    if unknown:
        raise part.error(f"layer_types {unknown[0]!r} is not supported; {FULL}, {WINDOWED} are")
    layers = tuple(i for i, kind in enumerate(types) if kind == WINDOWED)
    if not layers:
        return {}
    mixed = len(layers) < len(types)
    return {"window": part.values.sliding_window, "window_layers": layers if mixed else None}


def _layer_types(cfg: DecoderConfig) -> list[str]:
    layers = range(cfg.layers) if cfg.window_layers is None else cfg.window_layers
    chosen = set(layers if cfg.window is not None else ())
    return [WINDOWED if i in chosen else FULL for i in range(cfg.layers)]


def _biases(part: Part) -> Json:
    bias = part.values.attention_bias
    return {"qkv_bias": bias, "out_bias": bias}


def _write_qwen2(cfg: DecoderConfig) -> Json:
    first = cfg.layers if cfg.window is None else (cfg.window_layers or (0,))[0]
    content = {
        "sliding_window": cfg.window,
        "use_sliding_window": cfg.window is not None,
        "max_window_layers": first,
    }
    return content if cfg.window_layers is None else content | {"layer_types": _layer_types(cfg)}


def _read_gemma(part: Part) -> Json:
    """What Gemma 2 and 3 have in common."""
    part.one_of("use_bidirectional_attention", (None, False))
    values = part.values
    return {
        **_biases(part),
        **_windows(part),
        "post_norms": True,
        "norm_offset": 1.0,
        "embedding_scale": values.hidden_size**0.5,
        "query_scale": (values.head_dim / values.query_pre_attn_scalar) ** 0.5,
        "logit_softcap": values.final_logit_softcapping,
    }


def _read_gemma3(part: Part) -> Json:
    part.one_of("attn_logit_softcapping", (None,))  # transformers' code has none of it
    return _read_gemma(part) | {"qk_norm": True}


def _write_gemma(cfg: DecoderConfig) -> Json:
    return {
        "attention_bias": cfg.qkv_bias,
        "query_pre_attn_scalar": round(cfg.head_dim / cfg.query_scale**2),
        "attn_logit_softcapping": cfg.attention_softcap,
        "final_logit_softcapping": cfg.logit_softcap,
        "sliding_window": cfg.window,
        "layer_types": _layer_types(cfg),
    }


DECODERS: dict[str, DecoderKind] = {
    "llama": DecoderKind(
        "Llama",
        "Llama 1 to 3.2, Vicuna, TinyLlama, SmolLM2, Yi",
        lambda part: _biases(part) | {"mlp_bias": part.values.mlp_bias},
        lambda cfg: {"attention_bias": cfg.qkv_bias, "mlp_bias": cfg.mlp_bias},
    ),
    "mistral": DecoderKind(
        "Mistral", "Mistral 7B", _one_window, lambda cfg: {"sliding_window": cfg.window}
    ),
    "qwen2": DecoderKind(
        "Qwen2",
        "Qwen1.5, Qwen2, Qwen2.5",
        lambda part: {"qkv_bias": True} | _windows(part),
        _write_qwen2,
    ),
    "qwen3": DecoderKind(
        "Qwen3",
        "Qwen3 (dense)",
        lambda part: {"qk_norm": True} | _biases(part) | _windows(part),
        lambda cfg: {"attention_bias": cfg.qkv_bias} | _write_qwen2(cfg),
    ),
    "phi3": DecoderKind(
        "Phi3",
        "Phi-3 of 4096 tokens; longrope is refused",
        _one_window,
        lambda cfg: {"sliding_window": cfg.window},
    ),
    "gemma2": DecoderKind(
        "Gemma2",
        "Gemma 2",
        lambda part: _read_gemma(part) | {"attention_softcap": part.values.attn_logit_softcapping},
        _write_gemma,
        activation="hidden_activation",
    ),
    "gemma3_text": DecoderKind(
        "Gemma3",
        "Gemma 3, text",
        _read_gemma3,
        _write_gemma,
        activation="hidden_activation",
        rope_by_layer=True,
    ),
}
