"""Shapes of the three parts of a LLaVA model and of CLIP, as frozen (hashable) dataclasses."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A vision transformer: CLIP's, or SigLIP's, which has neither class token nor pre-norm."""

    image_size: int  # pixels a side
    patch_size: int  # pixels a side
    width: int
    layers: int
    heads: int
    ffn: int
    activation: str = "quick_gelu"  # or "gelu", or "gelu_pytorch_tanh"
    norm_eps: float = 1e-5
    class_token: bool = True
    pre_norm: bool = True  # a norm over the embeddings, before the first block
    patch_bias: bool = False

    @property
    def patches(self) -> int:
        """Patches of an image, the class token not counted."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched, as Hugging Face's configurations say it.

    kind: "linear" (factor only), "llama3", "yarn" (arXiv 2309.00071) or "dynamic" (the base grows
    with the length of the text, as soon as that is above `original_length`).
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0  # of "llama3", as is the next
    high_freq_factor: float = 4.0
    original_length: int = 8192  # tokens; not of "linear"
    beta_fast: float = 32.0  # of "yarn", as are the next three
    beta_slow: float = 1.0
    attention_factor: float | None = None  # of cosines and sines; None: follows from the factor
    truncate: bool = True


# Of a decoder block: those of attention, and those of its feed-forward part.
MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685) on the decoder's projections named in `targets`."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = MATRICES
    layers: tuple[int, ...] | None = None  # which blocks, from 0; None: all

    @property
    def scale(self) -> float:
        """What the product of the two factors is multiplied by."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """One decoder that covers Llama 1-3, Mistral, Qwen2 and 3, Phi-3, and Gemma 2 and 3."""

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
    window_layers: tuple[int, ...] | None = None  # which blocks have it, from 0; None: all
    window_rope_theta: float | None = None  # of those blocks, unscaled; None: as the others
    activation: str = "silu"  # or "gelu_pytorch_tanh"
    qk_norm: bool = False  # a norm over each head's queries and keys
    post_norms: bool = False  # norms also behind attention and MLP, before they are added
    norm_offset: float = 0.0  # what norms add to their scale; 1 where scales begin at 0
    embedding_scale: float = 1.0  # what token embeddings are multiplied by; images are not
    query_scale: float = 1.0  # what queries are multiplied by beyond head_dim ** -0.5
    attention_softcap: float | None = None  # scores become cap * tanh(score / cap)
    logit_softcap: float | None = None  # the same of the logits; a LLaVA's have none
    lora: LoraConfig | None = None
    quantize: str = ""  # how the kernels of blocks are kept; `quantised.KINDS`, "": as floats


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images of any size are cut into tiles of the vision tower's size; see `tiling`."""

    pinpoints: tuple[tuple[int, int], ...]  # (height, width) in pixels, multiples of the tower's
    # A grid's features beyond about those of so many tiles are merged; None: they never are.
    most: int | None = None

    def most_tiles(self, side: int) -> int:
        """The most tiles that an image can have, for a tower of images of `side` pixels."""
        return 1 + max((height // side) * (width // side) for height, width in self.pinpoints)


@dataclasses.dataclass(frozen=True)
class LlavaConfig:
    """Vision encoder -> projector -> decoder."""

    vision: VisionConfig
    decoder: DecoderConfig
    image_token: int  # id of the token whose places the image features take
    projector: str = "mlp2x_gelu"  # or "linear"
    projector_bias: bool = True
    # Index into [embeddings, block 1, ..., block N], as in Hugging Face. Features of several layers
    # are put side by side.
    feature_layer: int | tuple[int, ...] = -2
    feature_select: str = "default"  # drop the first token, the class token; "full" keeps it
    tiling: Tiling | None = None  # None: an image is one tile

    @property
    def image_tokens(self) -> int:
        """Tokens that one image takes in the sequence; with a tiling, that one tile takes."""
        return self.vision.patches + self.vision.class_token - (self.feature_select == "default")

    @property
    def feature_states(self) -> tuple[int, ...]:
        """Behind how many vision blocks features are taken, a number a feature layer."""
        given, states = self.feature_layer, self.vision.layers + 1
        layers = (given,) if isinstance(given, int) else given
        if not layers or not all(-states <= layer < states for layer in layers):
            raise ValueError(f"vision feature layer {given} of {states} states")
        return tuple(layer % states for layer in layers)

    @property
    def feature_blocks(self) -> int:
        """How many vision blocks run before the last features are taken."""
        return max(self.feature_states)


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The shapes of CLIP's text transformer."""

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
