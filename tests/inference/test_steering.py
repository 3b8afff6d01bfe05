"""Steering: what is added to a layer's output, against a hook of torch on transformers' model."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from tests import hf_models, tiny  # noqa: E402
from tests.hf_models import CLIP_NORM, IMAGE_TOKEN  # noqa: E402
from tga_jax.inference.generate import Decoding, decode_one, make_generate, prefill  # noqa: E402

pytestmark = pytest.mark.parity
LAYER, LENGTH, NEW = 1, 24, 5  # the second layer
KEYS = jax.random.split(jax.random.key(0), 1)
TOKENS = np.random.default_rng(0).integers(IMAGE_TOKEN + 1, 128, (1, LENGTH)).astype(np.int32)
TOKENS[0, 3:19] = IMAGE_TOKEN
IMAGES = np.random.default_rng(1).integers(0, 256, (1, 1, 32, 32, 3), np.uint8)
INPUTS = TOKENS, np.ones_like(TOKENS), IMAGES


@pytest.fixture(scope="module", params=["llama_gqa_rope", "gemma3"])
def models(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' model, ours and its parameters."""
    folder = tmp_path_factory.mktemp(request.param)
    return hf_models.tiny_llava(folder, request.param), *hf_models.import_llava(folder)


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    with jax.default_matmul_precision("highest"):
        yield


def shift_of(model: Any, strength: float) -> np.ndarray:
    """float32[L, D]: a random direction at LAYER."""
    cfg = model.config.decoder
    shift = np.zeros((cfg.layers, cfg.width), np.float32)
    shift[LAYER] = strength * np.random.default_rng(2).normal(size=cfg.width)
    return shift


@functools.cache
def programs(model: Any) -> tuple[Any, Any]:
    """Prefill of INPUTS and one more token, compiled."""
    return (
        jax.jit(lambda params, *inputs: prefill(model, params, *inputs, new_tokens=NEW)[:2]),
        jax.jit(lambda params, *inputs: decode_one(model, params, *inputs)),
    )


def hooked(hf: Any, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """transformers' answer, int[NEW], and the logits of its tokens, float32[NEW, V]."""
    added = torch.tensor(direction)

    def add(module: Any, inputs: Any, output: Any) -> Any:
        return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

    pixels = torch.tensor(np.asarray(CLIP_NORM(jnp.asarray(IMAGES[0])))).permute(0, 3, 1, 2)
    handle = hf.model.language_model.layers[LAYER].register_forward_hook(add)
    out = hf.generate(
        input_ids=torch.tensor(TOKENS).long(),
        attention_mask=torch.ones(1, LENGTH, dtype=torch.long),
        pixel_values=pixels,
        max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    handle.remove()
    return out.sequences[0, LENGTH:].numpy(), torch.cat(out.logits).numpy()


def test_answers_and_logits_are_those_of_a_hook(models: Any) -> None:
    hf, model, params = models
    generate = make_generate(model, Decoding(NEW, (), 0))
    shift = shift_of(model, 2.0)
    answer, wanted = hooked(hf, shift[LAYER])
    np.testing.assert_array_equal(generate(params, *INPUTS, KEYS, shift)[0], answer)
    begin, extend = programs(model)
    logits, cache = begin(params, *INPUTS, shift)
    plain, found = begin(params, *INPUTS, None)[0], [logits[0]]
    assert np.abs(plain - logits).max() > 0.01  # the direction does something
    for place, token in enumerate(answer[:-1].astype(np.int32)):
        logits, cache = extend(params, token[None], jnp.array([LENGTH + place]), cache, shift)
        found.append(logits[0])
    np.testing.assert_allclose(np.stack(found), wanted, atol=1e-4)


def test_strength_zero_is_no_steering_to_the_last_digit(models: Any) -> None:
    _, model, params = models
    begin, extend = programs(model)
    logits, cache = begin(params, *INPUTS, None)
    again, other = begin(params, *INPUTS, shift_of(model, 0))
    np.testing.assert_array_equal(logits, again)
    token, at = jnp.argmax(logits, -1).astype(jnp.int32), jnp.array([LENGTH])
    after = extend(params, token, at, cache, None)[0]
    np.testing.assert_array_equal(after, extend(params, token, at, other, shift_of(model, 0))[0])


def test_another_strength_or_layer_compiles_nothing() -> None:
    model, inputs = tiny.model(), (np.ones((1, 8), np.int32),) * 2
    inputs = *inputs, np.zeros((1, 0, tiny.SIDE, tiny.SIDE, 3), np.uint8), KEYS
    generate = make_generate(model, Decoding(2, (), 0))
    generate(tiny.params(), *inputs, shift_of(model, 1))
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    for shift in (shift_of(model, 3), shift_of(model, 1)[::-1].copy()):
        generate(tiny.params(), *inputs, shift)
    assert not compiled
    generate(tiny.params(), *inputs)  # another program, so that the listener is seen to hear
    assert compiled
