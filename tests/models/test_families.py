"""Families of decoders end to end against transformers: answers, gradients, exports.

Their logits and layers are compared in test_parity.py.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402
from flax.traverse_util import flatten_dict  # noqa: E402

from tests import hf_models  # noqa: E402
from tests.hf_models import CLIP_NORM, IMAGE_TOKEN  # noqa: E402
from tga_jax.hf.config import read_config_json  # noqa: E402
from tga_jax.hf.config_export import to_hf_config  # noqa: E402
from tga_jax.hf.saving import save_weights  # noqa: E402
from tga_jax.inference.generate import Decoding, make_generate  # noqa: E402
from tga_jax.models.llava import Llava  # noqa: E402

pytestmark = pytest.mark.parity

FAMILIES = ["qwen3", "phi3", "gemma2", "gemma3"]
NEW = 8


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """kind -> (folder, transformers' model, ours, its parameters)"""

    @functools.cache
    def make(kind: str) -> tuple[Any, Any, Llava, Any]:
        folder = tmp_path_factory.mktemp(kind)
        return folder, hf_models.tiny_llava(folder, kind), *hf_models.import_llava(folder)

    return make


@pytest.fixture(autouse=True)
def _exact_products():
    with jax.default_matmul_precision("highest"):
        yield


def _prompt() -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    tokens = np.random.default_rng(0).integers(IMAGE_TOKEN + 1, 128, (1, 24)).astype(np.int32)
    tokens[0, 3:19] = IMAGE_TOKEN
    images = np.random.default_rng(1).integers(0, 256, (1, 1, 32, 32, 3), np.uint8)
    pixels = torch.tensor(np.asarray(CLIP_NORM(jnp.asarray(images[0])))).permute(0, 3, 1, 2)
    return tokens, images, pixels


@pytest.mark.parametrize("kind", FAMILIES)
def test_greedy_answers_and_the_export(family, tmp_path, kind):
    """The export loads whole, and it, the source and we give one answer."""
    folder, hf, model, params = family(kind)
    tokens, images, pixels = _prompt()
    source = read_config_json(folder)
    content = to_hf_config(model.config, source=source, dtype="float32", pad_token_id=0)
    flat, decoder = flatten_dict(params, sep="/"), content["text_config"]["model_type"]
    save_weights(flat, tmp_path, config=model.config, dtype="float32", decoder=decoder)
    (tmp_path / "config.json").write_text(json.dumps(content))
    exported, info = transformers.LlavaForConditionalGeneration.from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    inputs = {
        "input_ids": torch.tensor(tokens).long(),
        "attention_mask": torch.ones(1, 24, dtype=torch.long),
        "pixel_values": pixels,
    }
    ends = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    theirs, again = (
        m.generate(**inputs, max_new_tokens=NEW, **ends)[0, 24:] for m in (hf, exported.eval())
    )
    generate = make_generate(model, Decoding(NEW, (), 0))
    keys = jax.random.split(jax.random.key(0), 1)
    ours = generate(params, tokens, np.ones_like(tokens), images, keys)[0]
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours, again)


@pytest.mark.parametrize("kind", ["phi3", "gemma3"])
def test_gradient_of_a_guide(family, kind):
    """Of the cosine between an image's and a text's mean state, for the projector."""
    _, hf, model, params = family(kind)
    tokens, images, pixels = _prompt()
    spans = np.zeros((1, 2, 24), bool)
    spans[0, 0, 3:19] = spans[0, 1, 19:] = True

    @jax.jit
    def cosine(projector: Any) -> jax.Array:
        whole = params | {"projector": projector}
        embeddings = model.embed(whole, tokens, images)
        places = jnp.arange(24)[None]
        out = model.decode(
            whole, embeddings, positions=places, segments=jnp.ones_like(places), pool=spans
        )
        a, b = out.pooled[1, 0]
        return jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))

    value, gradient = jax.value_and_grad(cosine)(params["projector"])
    out = hf(
        input_ids=torch.tensor(tokens).long(),
        attention_mask=torch.ones(1, 24, dtype=torch.long),
        pixel_values=pixels,
        output_hidden_states=True,
    )
    state = out.hidden_states[2][0]
    theirs = torch.cosine_similarity(state[3:19].mean(0), state[19:].mean(0), dim=0)
    weight = hf.model.multi_modal_projector.linear_1.weight
    (wanted,) = torch.autograd.grad(theirs, weight)
    np.testing.assert_allclose(value, theirs.item(), rtol=1e-4)
    wanted = wanted.numpy().T
    error = np.abs(gradient["linear_1"]["kernel"] - wanted).max()
    assert error < 1e-4 * np.abs(wanted).max()
