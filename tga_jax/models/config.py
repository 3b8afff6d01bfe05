"""Shapes of the three parts of a LLaVA model and of CLIP, as frozen (hashable) dataclasses."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A CLIP vision transformer."""

    image_size: int  # pixels a side
    patch_size: int  # pixels a side
    width: int
    layers: int
    heads: int
    ffn: int
    activation: str = "quick_gelu"  # or "gelu"
    norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        """Patches of a picture, the class token not counted."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched. kind: "linear" (factor only) or "llama3"."""

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_length: int = 8192


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685) on the decoder's projections named in `targets`."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")
    layers: tuple[int, ...] | None = None  # which blocks, from 0; None: all

    @property
    def scale(self) -> float:
        """What the product of the two factors is multiplied by."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """One decoder that covers Llama 1-3, Mistral and Qwen2."""

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    tied_head: bool = False
    window: int | None = None  # sliding-window attention: a token sees this many, itself included
    lora: LoraConfig | None = None


@dataclasses.dataclass(frozen=True)
class LlavaConfig:
    """Vision encoder -> projector -> decoder."""

    vision: VisionConfig
    decoder: DecoderConfig
    image_token: int  # id of the token whose places the image features take
    projector: str = "mlp2x_gelu"  # or "linear"
    projector_bias: bool = True
    feature_layer: int = -2  # index into [embeddings, block 1, ..., block N], as in Hugging Face
    feature_select: str = "default"  # drop the class token; "full" keeps it

    @property
    def image_tokens(self) -> int:
        """Tokens that one picture takes in the sequence."""
        return self.vision.patches + (1 if self.feature_select == "full" else 0)

    @property
    def feature_blocks(self) -> int:
        """How many vision blocks run before the features are taken."""
        states = self.vision.layers + 1
        index = self.feature_layer if self.feature_layer >= 0 else states + self.feature_layer
        if not 0 <= index < states:
            raise ValueError(f"vision feature layer {self.feature_layer} of {states} states")
        return index


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """A CLIP text transformer."""

    vocab: int
    length: int  # the most tokens of a text, begin and end token included
    width: int
    layers: int
    heads: int
    ffn: int
    end_token: int  # its first place is where a text is read; 2: at the highest id
    activation: str = "quick_gelu"  # or "gelu"
    norm_eps: float = 1e-5


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Two towers and the width of the space that both are projected into."""

    vision: VisionConfig
    text: TextConfig
    embedding: int
    logit_scale: float = 2.6592  # initial; the natural logarithm of what multiplies cosines


@dataclasses.dataclass(frozen=True)
class Compute:
    """How the arithmetic is done; has no part in what is computed."""

    dtype: str = "float32"  # of matrix products and activations; reductions are float32 always
    remat: str = "none"  # what blocks keep for the backward pass: `layers.REMAT_POLICIES`
    attention: str = "xla"
