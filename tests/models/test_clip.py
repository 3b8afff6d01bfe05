"""CLIP without an oracle: where a text is read, what it depends on, lengths, gradients, axes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tga_jax.models.clip import Clip, end_places
from tga_jax.models.config import ClipConfig, TextConfig, VisionConfig
from tga_jax.models.llava import PixelNorm
from tga_jax.parallel.mesh import make_mesh
from tga_jax.parallel.sharding import param_shardings

END = 40
MODEL = Clip(
    ClipConfig(
        vision=VisionConfig(image_size=16, patch_size=8, width=16, layers=2, heads=2, ffn=32),
        text=TextConfig(vocab=41, length=9, width=8, layers=2, heads=2, ffn=16, end_token=END),
        embedding=12,
    ),
    PixelNorm((0.5,) * 3, (0.5,) * 3),
)
TOKENS = np.array([[1, 7, 8, 9, END, 0, 0], [1, 5, END, 0, 0, 0, 0]], np.int32)


@pytest.fixture(scope="module")
def params():
    drawn = nn.meta.unbox(jax.jit(MODEL.init)(jax.random.key(0)))
    rng = np.random.default_rng(0)
    # Biases are 0 and positions tiny at first: a test could not tell that they count.
    return jax.tree.map(lambda p: p + rng.normal(0, 0.2, p.shape).astype(np.float32), drawn)


def test_a_text_is_read_at_its_first_end_token():
    tokens = np.array([[1, END, 3, END], [1, 2, 3, 4]])
    assert end_places(jnp.asarray(tokens), END).tolist() == [1, 0]


def test_an_end_token_of_two_means_the_highest_id():
    tokens = np.array([[1, 2, 30, 4], [9, 2, 3, 9]])
    assert end_places(jnp.asarray(tokens), 2).tolist() == [2, 0]


def test_what_stands_behind_the_end_changes_nothing(params):
    short = MODEL.embed_texts(params, TOKENS[:, :5])
    changed = np.where(np.arange(7) > 4, 11, TOKENS)
    np.testing.assert_allclose(MODEL.embed_texts(params, TOKENS), short, atol=1e-6)
    np.testing.assert_allclose(MODEL.embed_texts(params, changed), short, atol=1e-6)
    mask = TOKENS > 0
    np.testing.assert_allclose(MODEL.embed_texts(params, TOKENS, mask), short, atol=1e-6)


def test_every_token_before_the_end_counts(params):
    before = MODEL.embed_texts(params, TOKENS)[0]
    for place in range(4):
        changed = TOKENS.copy()
        changed[0, place] = 20
        assert np.abs(MODEL.embed_texts(params, changed)[0] - before).max() > 1e-3, place
    swapped = TOKENS.copy()
    swapped[0, [1, 2]] = swapped[0, [2, 1]]
    assert np.abs(MODEL.embed_texts(params, swapped)[0] - before).max() > 1e-3


def test_embeddings_have_length_one_on_request(params):
    images = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    for embed, inputs in ((MODEL.embed_images, images), (MODEL.embed_texts, TOKENS)):
        raw, unit = embed(params, inputs, normalize=False), embed(params, inputs)
        lengths = np.linalg.norm(raw, axis=-1, keepdims=True)
        assert np.abs(lengths - 1).min() > 1e-3
        np.testing.assert_allclose(unit, raw / lengths, rtol=1e-5, atol=1e-6)


def test_logits_are_scaled_cosines(params):
    a, b = np.eye(12, dtype=np.float32)[:2], np.eye(12, dtype=np.float32)[1:4]
    scaled = {**params, "logit_scale": jnp.float32(np.log(7.0))}
    np.testing.assert_allclose(MODEL.logits(scaled, a, b), 7 * a @ b.T, rtol=1e-6)


def test_a_text_longer_than_the_tower_is_refused(params):
    with pytest.raises(ValueError, match="10 tokens"):
        MODEL.embed_texts(params, np.ones((1, 10), np.int32))


def test_every_parameter_has_a_gradient(params):
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)

    def loss(p):
        logits = MODEL.logits(p, MODEL.embed_images(p, images), MODEL.embed_texts(p, TOKENS))
        return -jnp.mean(jnp.diag(jax.nn.log_softmax(logits)))

    for path, g in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params)):
        assert np.isfinite(g).all(), path
        # The same bias on all keys shifts all scores alike.
        assert np.abs(g).max() > 0 or "'k'" in str(path), path


def test_all_parameters_have_logical_axes():
    boxed = jax.eval_shape(MODEL.init, jax.random.key(0))
    shardings = param_shardings(boxed, make_mesh(data=1, fsdp=-1, tensor=1))
    assert shardings["text/embed"].spec == PartitionSpec("tensor", "fsdp")
    assert shardings["visual_projection/kernel"].spec == PartitionSpec("fsdp", None)


def test_models_can_be_static_arguments():
    assert hash(MODEL) == hash(dataclasses.replace(MODEL))
