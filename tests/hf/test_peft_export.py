"""Adapters alone: PEFT puts them on the base model and gets what ours computes."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file
from transformers import LlavaForConditionalGeneration

from tests.hf_models import import_llava, tiny_llava
from tga_jax.hf.peft_export import adapter_config, export_adapters
from tga_jax.hf.saving import save_weights
from tga_jax.models.config import LoraConfig
from tga_jax.models.llava import Llava, chosen_adapters
from tga_jax.training.step import nested

pytestmark = pytest.mark.parity

LAYERS, TARGETS, RANK, ALPHA = (0, 2), ("q", "o", "down"), 4, 6.0


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A base folder, its parameters with random adapters on layers 1 and 3, and both exports."""
    folder = tmp_path_factory.mktemp("peft")
    tiny_llava(folder / "base", "mistral")
    model, params = import_llava(folder / "base")
    lora = LoraConfig(RANK, ALPHA, TARGETS, LAYERS)
    decoder = dataclasses.replace(model.config.decoder, lora=lora)
    model = dataclasses.replace(model, config=dataclasses.replace(model.config, decoder=decoder))
    params = flatten_dict(params, sep="/") | _adapters(model)
    rng = np.random.default_rng(1)
    params |= {
        path: np.asarray(x) + rng.normal(0, 0.1, x.shape).astype(np.float32)
        for path, x in params.items()
        if path.startswith("projector/")
    }
    export_adapters(
        folder / "adapters",
        params=params,
        config=model.config,
        base=str(folder / "base"),
        projector=True,
        dtype=np.dtype(np.float32),
    )
    return {"folder": folder, "model": model, "params": params}


def _adapters(model: Llava) -> dict[str, np.ndarray]:
    """As training leaves them: B is 0 where a layer was not chosen."""
    boxed = jax.eval_shape(model.init, jax.random.key(0))["decoder"]["blocks"]
    rng, out = np.random.default_rng(0), {}
    for target in TARGETS:
        for name in ("lora_a", "lora_b"):
            values = rng.normal(0, 0.3, boxed[target][name].value.shape).astype(np.float32)
            if name == "lora_b":
                values[[i for i in range(len(values)) if i not in LAYERS]] = 0
            out[f"decoder/blocks/{target}/{name}"] = values
    return out


def test_names_and_shapes_are_pefts(adapted: dict[str, Any]) -> None:
    tensors = load_file(adapted["folder"] / "adapters" / "adapter_model.safetensors")
    stem = "base_model.model.model.language_model.layers.{}.{}.lora_{}.weight"
    modules = ("self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj")
    wanted = {stem.format(i, m, x) for i in LAYERS for m in modules for x in "AB"}
    projector = "base_model.model.model.multi_modal_projector.linear_{}.{}"
    wanted |= {projector.format(i, kind) for i in (1, 2) for kind in ("weight", "bias")}
    assert set(tensors) == wanted
    width, ffn = 32, 48
    assert tensors[stem.format(0, "mlp.down_proj", "A")].shape == (RANK, ffn)
    assert tensors[stem.format(0, "mlp.down_proj", "B")].shape == (width, RANK)


def test_the_pattern_meets_the_adapted_modules_alone(adapted: dict[str, Any]) -> None:
    config = adapter_config(adapted["model"].config, "base", projector=False)
    model = LlavaForConditionalGeneration.from_pretrained(adapted["folder"] / "base")
    met = {n for n, _ in model.named_modules() if re.fullmatch(config["target_modules"], n)}
    assert len(met) == len(LAYERS) * len(TARGETS) and all("language_model" in n for n in met)
    assert config["modules_to_save"] is None and config["lora_alpha"] == ALPHA


def test_peft_computes_what_the_merged_export_does(adapted: dict[str, Any]) -> None:
    """The merged export is compared with our own model elsewhere."""
    folder = adapted["folder"]
    peft = pytest.importorskip("peft")
    save_weights(
        adapted["params"], folder / "merged", config=adapted["model"].config, dtype="float32"
    )
    config = json.loads((folder / "base" / "config.json").read_text())
    (folder / "merged" / "config.json").write_text(json.dumps(config))
    merged = LlavaForConditionalGeneration.from_pretrained(folder / "merged").eval()
    base = LlavaForConditionalGeneration.from_pretrained(folder / "base").eval()
    rng = np.random.default_rng(0)
    image_token, count = adapted["model"].config.image_token, adapted["model"].config.image_tokens
    words = [t for t in rng.integers(3, 60, 12).tolist() if t != image_token]
    tokens = torch.tensor([[1, *[image_token] * count, *words]])
    pixels = torch.tensor(rng.normal(size=(1, 3, 32, 32)), dtype=torch.float32)
    inputs = {"input_ids": tokens, "pixel_values": pixels}
    with torch.no_grad():
        plain = base(**inputs).logits
        ours = peft.PeftModel.from_pretrained(base, folder / "adapters").eval()(**inputs).logits
        wanted = merged(**inputs).logits
    assert (plain - wanted).abs().max() > 0.1
    torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=1e-4)


def test_adapters_of_other_layers_add_nothing_and_get_no_gradient(adapted: dict[str, Any]) -> None:
    config = adapted["model"].config.decoder
    params = nested({p: np.ones_like(x) for p, x in adapted["params"].items()})["decoder"]

    def total(params: Any) -> jax.Array:
        return sum(x.sum() for x in jax.tree.leaves(chosen_adapters(params, config)))

    grads = jax.grad(total)(params)["blocks"]["q"]
    others = [i for i in range(config.layers) if i not in LAYERS]
    assert not np.any(grads["lora_b"][np.array(others)]) and np.all(
        grads["lora_b"][np.array(LAYERS)]
    )
    assert np.all(grads["lora_a"] == 1) and np.all(grads["kernel"] == 1)
