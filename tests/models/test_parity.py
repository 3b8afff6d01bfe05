"""Our models against transformers' with the same random weights, in float32.

Tolerance: 2e-5 of the largest value compared. Observed: 4e-6 at most.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from flax.traverse_util import unflatten_dict  # noqa: E402

from tests import hf_models  # noqa: E402
from tests.hf_models import CLIP_NORM, IMAGE_TOKEN  # noqa: E402
from tga_jax.hf.config import (  # noqa: E402
    decoder_config,
    read_config_json,
    read_decoder_config,
    read_vision_config,
)
from tga_jax.hf.weights import load_weights  # noqa: E402
from tga_jax.models.config import Compute, DecoderConfig, LlavaConfig, VisionConfig  # noqa: E402
from tga_jax.models.decoder import Decoder  # noqa: E402
from tga_jax.models.llava import Llava  # noqa: E402
from tga_jax.models.vision import VisionTower  # noqa: E402

pytestmark = pytest.mark.parity

TOLERANCE = 2e-5
LENGTHS = (21, 13, 30)  # longer than the window of 7
SIDE, PATCHES = 32, 16
TOWER = VisionConfig(image_size=32, patch_size=8, width=24, layers=1, heads=3, ffn=8)


@pytest.fixture(autouse=True)
def _exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def _close(ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> None:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    error = np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))
    assert error < tolerance, f"relative error {error:.2e}"


def _tokens(lengths: Any, *, vocab: int = 128, seed: int = 0) -> tuple[Any, Any]:
    """Right-padded int32[B, T] text without image tokens, and its mask."""
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    tokens = np.random.default_rng(seed).integers(IMAGE_TOKEN + 1, vocab, mask.shape)
    return np.where(mask, tokens, 0).astype(np.int32), mask


def _pixels(images: np.ndarray) -> torch.Tensor:
    """uint8[N, side, side, 3] -> what transformers' models take."""
    return torch.tensor(np.asarray(CLIP_NORM(jnp.asarray(images)))).permute(0, 3, 1, 2)


def _images(*shape: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*shape, side, side, 3), np.uint8)


def _theirs(model: Any, tokens: np.ndarray, mask: np.ndarray, pixels: Any = None) -> Any:
    images = {} if pixels is None else {"pixel_values": pixels}
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(tokens, dtype=torch.long),
            attention_mask=torch.tensor(mask, dtype=torch.long),
            output_hidden_states=True,
            **images,
        )


def _ours(
    model: Llava,
    params: Any,
    tokens: np.ndarray,
    mask: np.ndarray,
    images: Any = None,
    pool: Any = None,
    blocks: int | None = None,
) -> Any:
    return _forward(model, blocks, params, tokens, mask.astype(np.int32), images, pool)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _forward(
    model: Llava,
    blocks: int | None,
    params: Any,
    tokens: Any,
    segments: Any,
    images: Any,
    pool: Any,
) -> Any:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return model.decode(
        params,
        model.embed(params, tokens, images),
        positions=positions,
        segments=segments,
        pool=pool,
        blocks=blocks,
    )


def _one_hot_spans(tokens: np.ndarray) -> jax.Array:
    """bool[B, T, T]: as many spans as positions, so that pooling gives every hidden state."""
    return jnp.broadcast_to(jnp.eye(tokens.shape[1], dtype=bool), (*tokens.shape, tokens.shape[1]))


def _compare(model: Llava, params: Any, hf: Any, tokens: Any, mask: Any, images: Any) -> None:
    """Every block's output at every position, and the logits."""
    flat = None if images is None else images.reshape(-1, *images.shape[2:])
    theirs = _theirs(hf, tokens, mask, None if flat is None else _pixels(flat))
    out = _ours(model, params, tokens, mask, images, _one_hot_spans(tokens))
    layers = model.config.decoder.layers
    assert len(theirs.hidden_states) == layers + 1
    for j in range(1, layers):  # the last of transformers' has the final norm applied
        _close(out.pooled[j - 1][mask], theirs.hidden_states[j][mask])
    _close(out.pooled[-1][mask], out.hidden[mask], 1e-6)
    _close(model.final_norm(params, out.hidden)[mask], theirs.hidden_states[-1][mask])
    _close(model.logits(params, out.hidden)[mask], theirs.logits[mask])


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """kind -> (transformers' model, ours, its parameters)"""

    @functools.cache
    def make(kind: str) -> tuple[Any, Llava, Any]:
        folder = tmp_path_factory.mktemp(kind)
        return hf_models.tiny_llava(folder, kind), *hf_models.import_llava(folder)

    return make


@pytest.mark.parametrize("kind", sorted(hf_models.KINDS))
def test_text_with_unequal_lengths(llava, kind):
    hf, model, params = llava(kind)
    lengths = (30,) * 3 if kind == "llama_dynamic_rope" else LENGTHS  # see the next test
    _compare(model, params, hf, *_tokens(lengths), None)


def test_dynamic_rope_goes_by_each_texts_own_length(llava):
    """transformers goes by the longest of the batch, and remembers it until a text is short again:
    ours are its answers to each text alone."""
    hf, model, params = llava("llama_dynamic_rope")
    tokens, mask = _tokens(LENGTHS)
    logits = model.logits(params, _ours(model, params, tokens, mask).hidden)
    packed = np.concatenate([tokens[:1, :21], tokens[1:2, :13]], axis=1)
    places = np.concatenate([np.arange(21), np.arange(13)])[None]
    segments = np.repeat([1, 2], (21, 13))[None]
    embeddings = model.embed(params, packed, None)
    out = model.decode(params, embeddings, positions=places, segments=jnp.asarray(segments))
    in_pack = model.logits(params, out.hidden)[0]
    for row, length in enumerate(LENGTHS):
        _theirs(hf, tokens[:1, :8], mask[:1, :8])
        alone = _theirs(hf, tokens[row : row + 1, :length], mask[row : row + 1, :length])
        _close(logits[row, :length], alone.logits[0])
        if row < 2:
            _close(in_pack[21 * row :][:length], alone.logits[0])


def test_the_settings_matter(llava):
    """A wrong window, or a rope scaling left out, is seen by the comparison above."""
    tokens, mask = _tokens(LENGTHS)
    for kind, wrong in {
        "mistral_window": {"window": 8},
        "llama_gqa_rope": {"rope_scaling": None},
        "llama_linear_rope": {"rope_scaling": None},
        "mistral": {"rope_theta": 1e4},
        "qwen2_mixed_windows": {"window_layers": None},
        "qwen2_yarn": {"rope_scaling": None},
        "qwen3": {"norm_eps": 0.1},
        "gemma2": {"attention_softcap": None},
        "gemma3": {"window_rope_theta": None},
    }.items():
        hf, model, params = llava(kind)
        decoder = dataclasses.replace(model.config.decoder, **wrong)
        config = dataclasses.replace(model.config, decoder=decoder)
        with pytest.raises(AssertionError, match="relative error"):
            _compare(dataclasses.replace(model, config=config), params, hf, tokens, mask, None)


@pytest.mark.parametrize("kind", ["llama", "mistral_window", "qwen2_tied"])
def test_span_means(llava, kind):
    hf, model, params = llava(kind)
    tokens, mask = _tokens(LENGTHS)
    spans = np.zeros((3, 3, tokens.shape[1]), bool)
    spans[:, 0, 2:9] = spans[:, 1, 4:5] = True  # the third is empty
    theirs = _theirs(hf, tokens, mask)
    pooled = _ours(model, params, tokens, mask, pool=jnp.asarray(spans)).pooled
    assert pooled.dtype == jnp.float32 and pooled.shape == (3, 3, 3, 32)
    for j in range(2):
        states = theirs.hidden_states[j + 1]
        _close(pooled[j, :, 0], states[:, 2:9].mean(1))
        _close(pooled[j, :, 1], states[:, 4])
    assert not np.any(pooled[:, :, 2])


@pytest.mark.parametrize("kind", ["llama", "qwen2_tied", "gemma3"])
def test_first_blocks_leave_the_states_that_all_blocks_leave(llava, kind):
    _, model, params = llava(kind)
    tokens, mask = _tokens(LENGTHS)
    spans = np.zeros((3, 2, tokens.shape[1]), bool)
    spans[:, 0, 2:9] = spans[:, 1, 4:5] = True
    whole = _ours(model, params, tokens, mask, pool=jnp.asarray(spans)).pooled
    first = _ours(model, params, tokens, mask, pool=jnp.asarray(spans), blocks=2).pooled
    assert whole.shape[0] > 2 == first.shape[0]
    np.testing.assert_allclose(first, whole[:2], rtol=1e-5, atol=1e-6)


def _with_images(count: int, *, patches: int = PATCHES) -> tuple[Any, Any]:
    """Two rows, padded, with the same number of images side by side, at unlike places."""
    text, _ = _tokens((8 + count * patches, 5 + count * patches))
    for row, start in enumerate((3, 1)):
        text[row, start : start + count * patches] = IMAGE_TOKEN
    return text, text > 0


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *(("llama_gqa_rope", 1), ("mistral_window", 2), ("qwen2_tied", 2)),
        *(("qwen3", 1), ("phi3", 1), ("gemma2", 1), ("gemma3", 2)),
    ],
)
def test_images(llava, kind, count):
    hf, model, params = llava(kind)
    _compare(model, params, hf, *_with_images(count), _images(2, count))


@pytest.mark.parametrize(
    ("layer", "select", "activation", "image_size"),
    [  # of 35 pixels a rim of 3 belongs to no patch
        *((-1, "full", "gelu", 32), (1, "default", "quick_gelu", 32)),
        *((-3, "full", "quick_gelu", 35), (2, "default", "gelu", 24)),
    ],
)
def test_other_features(tmp_path, layer, select, activation, image_size):
    vision = hf_models.vision_config(activation=activation, image_size=image_size)
    hf = hf_models.tiny_llava(
        tmp_path, "llama", vision=vision, feature_layer=layer, feature_select=select
    )
    model, params = hf_models.import_llava(tmp_path)
    rows = _with_images(1, patches=model.config.image_tokens)
    _compare(model, params, hf, *rows, _images(2, 1, side=image_size))


def test_text_rows_in_a_batch_with_images(llava):
    """Their logits are those of text alone, and they send no gradient to the projector."""
    hf, model, params = llava("llama")
    tokens, mask = _with_images(1)
    tokens[1] = np.where(tokens[1] == IMAGE_TOKEN, 17, tokens[1])
    images = _images(2, 1)  # the second row's is a filler
    theirs = _theirs(hf, tokens, mask, _pixels(images[:1, 0]))
    out = _ours(model, params, tokens, mask, images)
    _close(model.logits(params, out.hidden)[mask], theirs.logits[mask])

    def row_loss(params: Any, row: int) -> jax.Array:
        hidden = _ours(model, params, tokens, mask, images).hidden
        return jnp.sum(jax.nn.log_softmax(model.logits(params, hidden))[row, :, 7])

    gradient = jax.jit(jax.grad(row_loss))
    text, image = (gradient(params, row) for row in (1, 0))
    for part in ("projector", "vision"):
        for leaf in jax.tree.leaves(text[part]):
            assert np.all(np.asarray(leaf) == 0.0)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(image["projector"]))
    assert np.any(text["decoder"]["embed"])


@pytest.mark.parametrize(
    ("layer", "select", "siglip"),
    [
        *((-1, "full", {}), (-2, "full", {"vision_use_head": True, "patch_size": 7})),
        *(([-2, 1, -2], "default", None), ([0, -1], "full", {})),
    ],
)
def test_siglip_and_several_feature_layers(tmp_path, layer, select, siglip):
    vision = None if siglip is None else hf_models.siglip_config(**siglip)
    hf = hf_models.tiny_llava(
        tmp_path, "qwen2_tied", vision=vision, feature_layer=layer, feature_select=select
    )
    model, params = hf_models.import_llava(tmp_path)
    rows = _with_images(1, patches=model.config.image_tokens)
    _compare(model, params, hf, *rows, _images(2, 1))


def test_siglip_tower(tmp_path):
    """Of a SiglipModel, whose text half and pooling head are left alone."""
    siglip = hf_models.tiny_siglip(tmp_path)
    config = read_vision_config(tmp_path)
    whole = LlavaConfig(
        config, DecoderConfig(16, 8, 1, 2, 2, 4, 8), image_token=5, feature_select="full"
    )
    leaves = hf_models.leaves_of(Llava(whole, CLIP_NORM), part="vision/")
    params = unflatten_dict(load_weights(tmp_path, leaves, family="vision"), sep="/")["vision"]
    images = _images(3)
    with torch.no_grad():
        theirs = siglip.vision_model(pixel_values=_pixels(images), output_hidden_states=True)
    pixels = CLIP_NORM(jnp.asarray(images))
    states, _ = VisionTower(config, keep=True).apply({"params": params}, pixels)
    assert len(states) == len(theirs.hidden_states) == 4
    for ours, wanted in zip(states, theirs.hidden_states, strict=True):
        _close(ours, wanted)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_clip_tower(tmp_path, activation):
    clip = hf_models.tiny_clip(tmp_path, activation=activation, image_size=35)
    config = read_vision_config(tmp_path)
    whole = LlavaConfig(config, DecoderConfig(16, 8, 1, 2, 2, 4, 8), image_token=5)
    leaves = hf_models.leaves_of(Llava(whole, CLIP_NORM), part="vision/")
    params = unflatten_dict(load_weights(tmp_path, leaves, family="vision"), sep="/")["vision"]
    images = _images(3, side=35)
    with torch.no_grad():
        theirs = clip.vision_model(pixel_values=_pixels(images), output_hidden_states=True)
    pixels = CLIP_NORM(jnp.asarray(images))
    states, pooled = VisionTower(config).apply({"params": params}, pixels)
    _close(states, theirs.last_hidden_state)
    _close(pooled, theirs.pooler_output)


@pytest.mark.parametrize(
    "kind",
    ["llama_gqa_rope", "mistral_window", "qwen2_tied", "qwen2_yarn", "qwen3", "gemma2", "gemma3"],
)
def test_cached_decoding_is_the_full_forward(llava, kind):
    """Prefill of right-padded prompts of unequal lengths, then a token a step."""
    hf, model, params = llava(kind)
    lengths, steps = np.array([21, 13]), 9
    full, full_mask = _tokens(lengths + steps)
    theirs = _theirs(hf, full, full_mask).logits
    prompt = lengths.max()
    mask = np.arange(prompt) < lengths[:, None]
    rows = np.arange(2)

    @jax.jit
    def run(tokens: Any, positions: Any, segments: Any, cache: Any) -> tuple[Any, Any]:
        out = model.decode(
            params,
            model.embed(params, tokens, None),
            positions=positions,
            segments=segments.astype(jnp.int32),
            cache=cache,
            room=steps if cache is None else None,
        )
        return model.logits(params, out.hidden), out.cache

    positions = np.broadcast_to(np.arange(prompt), mask.shape)
    logits, cache = run(np.where(mask, full[:, :prompt], 0), positions, mask, None)
    _close(logits[mask], theirs[:, :prompt][mask])
    for step in range(steps):
        at = lengths + step
        tokens = full[rows, at][:, None]
        logits, cache = run(tokens, at[:, None], np.ones((2, 1)), cache)
        _close(logits[:, 0], theirs[rows, at])


def test_a_language_model_alone_has_its_softcap(tmp_path):
    """Gemma2ForCausalLM caps its logits; LlavaForConditionalGeneration over a Gemma 2 does not."""
    hf = hf_models.tiny_llm(tmp_path, "gemma2")
    config = decoder_config(read_config_json(tmp_path), file=tmp_path / "config.json")
    assert config.logit_softcap == 3.0 and read_decoder_config(tmp_path).logit_softcap is None
    decoder = Decoder(config)
    whole = LlavaConfig(TOWER, dataclasses.replace(config, logit_softcap=None), image_token=5)
    leaves = hf_models.leaves_of(Llava(whole, CLIP_NORM), part="decoder/")
    flat = load_weights(tmp_path, leaves, family="decoder")
    params = {"params": unflatten_dict(flat, sep="/")["decoder"]}
    tokens, mask = _tokens((21,))
    x = decoder.apply(params, tokens, method="embed")
    places = np.arange(21)[None]
    out = decoder.apply(params, x, positions=places, segments=np.ones_like(places))
    ours = decoder.apply(params, out.hidden, method="logits")
    _close(ours, _theirs(hf, tokens, mask).logits)
    assert np.abs(ours).max() <= 3


def test_left_padding(llava):
    """Where padding is does not matter: positions and segments say what a token is."""
    hf, model, params = llava("mistral_window")
    tokens, mask = _tokens((21, 13))
    shift = 21 - 13
    left = tokens.copy()
    left[1] = np.roll(tokens[1], shift)
    positions = np.broadcast_to(np.arange(21), (2, 21)).copy()
    positions[1] = np.maximum(positions[1] - shift, 0)
    segments = np.stack([mask[0], np.roll(mask[1], shift)])
    out = model.decode(
        params,
        model.embed(params, jnp.asarray(left), None),
        positions=jnp.asarray(positions),
        segments=jnp.asarray(segments, jnp.int32),
    )
    theirs = _theirs(hf, tokens, mask).logits
    _close(model.logits(params, out.hidden)[1, shift:], theirs[1, :13])


@pytest.mark.parametrize("kind", ["llama_gqa_rope", "qwen2_tied"])
def test_bfloat16(tmp_path, kind):
    """Rounding puts our logits no farther from float32's than it puts transformers'.

    Both are bfloat16 programs on the same bfloat16 weights; the mean distance of ours may be
    1.5 times theirs, and 2% of the largest logit.
    """
    hf = hf_models.tiny_llava(tmp_path, kind, dtype="bfloat16")
    bf16 = Compute(dtype="bfloat16")
    model, params = hf_models.import_llava(tmp_path, dtype="bfloat16", compute=bf16)
    (tokens, mask), images = _with_images(1), _images(2, 1)
    pixels = _pixels(images[:, 0])
    theirs = _theirs(hf, tokens, mask, pixels.to(torch.bfloat16)).logits[mask].float().numpy()
    exact = _theirs(hf.float(), tokens, mask, pixels).logits[mask].numpy()
    out = _ours(model, params, tokens, mask, images)
    assert out.hidden.dtype == jnp.bfloat16
    ours = np.asarray(model.logits(params, out.hidden)[mask])
    our_error, their_error = (np.abs(x - exact).mean() for x in (ours, theirs))
    assert our_error < 1.5 * their_error
    assert our_error < 0.02 * np.abs(exact).max()
