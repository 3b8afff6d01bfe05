"""Images in tiles against transformers: tokens, places of features, states, answers, gradients."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from PIL import Image  # noqa: E402

from tests import hf_models  # noqa: E402
from tests.hf_models import CLIP_NORM, IMAGE_TOKEN, PINPOINTS  # noqa: E402
from tga_jax.alignment.pooling import pooled_tokens  # noqa: E402
from tga_jax.data.images import ImageTransform  # noqa: E402
from tga_jax.data.tiles import TileTransform  # noqa: E402
from tga_jax.hf.config import read_llava_config  # noqa: E402
from tga_jax.inference.generate import Decoding, make_generate  # noqa: E402
from tga_jax.models.llava import Llava  # noqa: E402
from tga_jax.models.tiling import TiledImages, images_of, layout_of  # noqa: E402

pytestmark = pytest.mark.parity

NAMES = ["LlavaNext", "LlavaOnevision"]
# (height, width): square, wide, portrait, tiny, long and thin, huge, and just beside a tie
SIZES = [
    (32, 32), (64, 64), (100, 100), (48, 200), (200, 48), (3, 5), (1, 1), (7, 400), (400, 7),
    (1, 900), (900, 1), (96, 32), (95, 33), (33, 95), (64, 65), (65, 64), (480, 640), (640, 427),
    (3000, 2999), (1500, 4000), (97, 96), (40, 70),
]  # fmt: skip
TEXT = 12
NEW = 6


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """name -> (transformers' model, ours, its parameters)"""

    @functools.cache
    def make(name: str) -> tuple[Any, Llava, Any]:
        folder = tmp_path_factory.mktemp(name)
        return hf_models.tiny_tiled(folder, name), *hf_models.import_llava(folder)

    return make


@pytest.fixture(autouse=True)
def _exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def _close(ours: Any, theirs: Any, tolerance: float = 2e-5) -> None:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    assert np.max(np.abs(ours - theirs)) < tolerance * np.max(np.abs(theirs))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_every_token_shows_what_transformers_packs_there(tiled, name, size):
    """Features of all tiles are made up; transformers unpads, merges and joins them."""
    hf, model, _ = tiled(name)
    layout = layout_of(size, model.config)
    features = np.random.default_rng(0).normal(size=(layout.tiles, 16, 32)).astype(np.float32)
    newline = hf.model.image_newline.detach()
    options = {"vision_feature_select_strategy": "default"} if name == "LlavaNext" else {
        "vision_aspect_ratio": hf.config.vision_aspect_ratio
    }  # fmt: skip
    (packed,), _ = hf.model.pack_image_features(
        [torch.tensor(features)], torch.tensor([size]), image_newline=newline, **options
    )
    rows = np.concatenate([newline.numpy()[None], features.reshape(-1, 32)])
    ours = np.einsum("ksd,ks->kd", rows[layout.sources], layout.weights)
    np.testing.assert_allclose(ours, packed.detach(), rtol=1e-5, atol=1e-5)
    assert layout.tokens == len(packed)
    is_newline = (packed == newline).all(1).numpy()
    np.testing.assert_array_equal(layout.pooled, ~is_newline)
    assert layout_of(size, model.config, newlines=True).pooled.all()


def _photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size[::-1], Image.Resampling.BILINEAR)


def _row(model: Llava, sizes: list[tuple[int, int]], *, extra: int = 0) -> dict[str, np.ndarray]:
    """A row of a text with images in it, and `extra` empty tiles."""
    transform = TileTransform(
        ImageTransform(None, (32, 32), None, 3, False, CLIP_NORM.mean, CLIP_NORM.std, 1 / 255),
        model.config.tiling,
    )
    layouts = [layout_of(size, model.config) for size in sizes]
    tiles = [transform(_photo(size, seed)) for seed, size in enumerate(sizes)]
    rng = np.random.default_rng(1)
    tokens, sources, weights, pooled, before = [], [], [], [], 0
    for layout in layouts:
        tokens += [*rng.integers(IMAGE_TOKEN + 1, 128, 3), *[IMAGE_TOKEN] * layout.tokens]
        width = layout.sources.shape[1]
        sources += [np.zeros((3, width), int), layout.shifted(before)]
        weights += [np.zeros((3, width)), layout.weights]
        pooled += [np.ones(3, bool), layout.pooled]
        before += layout.tiles
    tokens += [*rng.integers(IMAGE_TOKEN + 1, 128, TEXT)]
    ends = (0, TEXT), (0, 0)
    found = {
        "tokens": np.array(tokens, np.int32)[None],
        "images": np.concatenate([*tiles, np.zeros((extra, 32, 32, 3), np.uint8)])[None],
        "image_sources": np.pad(np.concatenate(sources), ends)[None].astype(np.int32),
        "unpooled": ~np.pad(np.concatenate(pooled), (0, TEXT), constant_values=True)[None],
    }
    if sources[0].shape[1] > 1:
        found["image_weights"] = np.pad(np.concatenate(weights), ends)[None].astype(np.float32)
    return found


def _inputs(model: Llava, row: dict[str, np.ndarray], sizes: list[tuple[int, int]]) -> dict:
    """The same row as transformers takes it: images of fewer tiles are filled up."""
    counts = [layout_of(size, model.config).tiles for size in sizes]
    ends = np.cumsum(counts)
    pixels = np.zeros((len(sizes), max(counts), 3, 32, 32), np.float32)
    for image, (end, count) in enumerate(zip(ends, counts, strict=True)):
        tiles = np.asarray(CLIP_NORM(jnp.asarray(row["images"][0, end - count : end])))
        pixels[image, :count] = tiles.transpose(0, 3, 1, 2)
    return {
        "input_ids": torch.tensor(row["tokens"]).long(),
        "attention_mask": torch.ones(row["tokens"].shape, dtype=torch.long),
        "pixel_values": torch.tensor(pixels),
        "image_sizes": torch.tensor(sizes),
    }


@functools.partial(jax.jit, static_argnums=0)
def _forward(model: Llava, params: Any, row: dict[str, Any], pool: Any) -> Any:
    tokens = row["tokens"]
    embeddings = model.embed(params, tokens, images_of(row))
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return model.decode(
        params, embeddings, positions=places, segments=jnp.ones_like(places), pool=pool
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", [[(48, 200)], [(100, 90), (30, 60)]])
def test_states_and_logits(tiled, name, sizes):
    """At every position, and means over the first image with and without its newlines."""
    hf, model, params = tiled(name)
    row = _row(model, sizes, extra=2)
    length = row["tokens"].shape[1]
    first = layout_of(sizes[0], model.config)
    span = jnp.array([[[3, 3 + first.tokens]]])
    each = jnp.eye(length, dtype=bool)[None]
    everything = {k: v for k, v in row.items() if k != "unpooled"}
    pool = jnp.concatenate([each, pooled_tokens(span, row), pooled_tokens(span, everything)], 1)
    out = _forward(model, params, row, pool)
    with torch.no_grad():
        theirs = hf(**_inputs(model, row, sizes), output_hidden_states=True)
    for layer in range(1, model.config.decoder.layers):
        state = theirs.hidden_states[layer][0].numpy()
        _close(out.pooled[layer - 1][0, :length], state)
        image = state[3 : 3 + first.tokens]
        _close(out.pooled[layer - 1][0, length], image[first.pooled].mean(0))
        _close(out.pooled[layer - 1][0, length + 1], image.mean(0))
    _close(model.logits(params, out.hidden), theirs.logits)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers(tiled, name):
    hf, model, params = tiled(name)
    sizes = [(40, 70)]
    row = _row(model, sizes, extra=1)
    length = row["tokens"].shape[1]
    theirs = hf.generate(
        **_inputs(model, row, sizes), max_new_tokens=NEW, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )[0, length:]  # fmt: skip
    generate = make_generate(model, Decoding(NEW, (), 0))
    keys = jax.random.split(jax.random.key(0), 1)
    images = jax.tree.map(jnp.asarray, images_of(row))
    assert isinstance(images, TiledImages)
    ours = generate(params, row["tokens"], np.ones_like(row["tokens"]), images, keys)[0]
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_a_guide(tiled, name):
    """Of the cosine between the image's and a text's mean state, for projector and newline."""
    hf, model, params = tiled(name)
    sizes = [(100, 90)]
    row = _row(model, sizes)
    first = layout_of(sizes[0], model.config)
    end = 3 + first.tokens
    pool = pooled_tokens(jnp.array([[[3, end], [end, end + TEXT]]]), row)

    def cosine(projector: Any) -> jax.Array:
        a, b = _forward(model, params | {"projector": projector}, row, pool).pooled[1, 0]
        return jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))

    value, gradient = jax.value_and_grad(cosine)(params["projector"])
    theirs = hf(**_inputs(model, row, sizes), output_hidden_states=True).hidden_states[2][0]
    image = theirs[3:end][torch.tensor(first.pooled)].mean(0)
    wanted = torch.cosine_similarity(image, theirs[end:].mean(0), dim=0)
    weight, newline = hf.model.multi_modal_projector.linear_1.weight, hf.model.image_newline
    kernel, vector = torch.autograd.grad(wanted, (weight, newline))
    np.testing.assert_allclose(value, wanted.item(), rtol=1e-4)
    _close(gradient["linear_1"]["kernel"], kernel.numpy().T, 1e-4)
    _close(gradient["newline"], vector.numpy(), 1e-4)


def test_a_config_says_its_resolutions(tmp_path):
    hf_models.tiny_tiled(tmp_path)
    tiling = read_llava_config(tmp_path).tiling
    assert tiling is not None and [list(point) for point in tiling.pinpoints] == PINPOINTS
