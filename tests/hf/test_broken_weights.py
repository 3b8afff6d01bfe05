"""Checkpoints that cannot be read end in one line that names what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from tests import hf_models  # noqa: E402
from tga_jax.errors import UserError  # noqa: E402
from tga_jax.hf.config import read_llava_config  # noqa: E402
from tga_jax.hf.saving import save_weights  # noqa: E402

pytestmark = pytest.mark.parity


def _load(folder: Path) -> dict:
    return hf_models.import_flat(folder)[1]


def test_missing_and_unexpected_tensors_are_named(copy):
    def change(tensors):
        del tensors["language_model.model.norm.weight"]
        tensors["language_model.model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.float32)

    hf_models.rewrite(copy, change)
    with pytest.raises(UserError) as error:
        _load(copy)
    text = str(error.value)
    assert "missing tensors: language_model.model.norm.weight;" in text
    assert "unexpected tensors: language_model.model.layers.0.self_attn.q_proj.bias;" in text
    assert "\n" not in text


def test_many_missing_tensors_are_counted(copy):
    hf_models.rewrite(copy, lambda t: {k: v for k, v in t.items() if "layers.0.mlp" not in k})
    with pytest.raises(UserError, match="and 2 more"):
        _load(copy)


def test_wrong_shape_is_named(copy):
    name = "multi_modal_projector.linear_1.weight"
    hf_models.rewrite(copy, lambda t: t | {name: np.zeros((32, 25), np.float32)})
    with pytest.raises(UserError, match=r"linear_1.weight has shape \[32, 25\].*\[32, 24\]"):
        _load(copy)


def test_quantised_tensors_are_refused(copy):
    name = "multi_modal_projector.linear_1.weight"
    hf_models.rewrite(copy, lambda t: t | {name: np.zeros((32, 24), np.int8)})
    with pytest.raises(UserError, match="dtype I8"):
        _load(copy)


def test_pickle_only(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights only.*pytorch_model.bin.*convert"):
        _load(copy)


def test_no_weights(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no model.safetensors"):
        _load(copy)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_cut_short(copy, keep):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="model.safetensors.*cut short"):
        _load(copy)


def test_broken_header(copy):
    file = copy / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[8:12] = b"oops"
    file.write_bytes(raw)
    with pytest.raises(UserError, match="header is broken"):
        _load(copy)


def test_index_with_a_missing_shard(copy):
    params = _load(copy)
    save_weights(
        params, copy, config=read_llava_config(copy), dtype="float32", max_shard_bytes=50_000
    )
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    (copy / sorted(set(index["weight_map"].values()))[1]).unlink()
    with pytest.raises(UserError, match="not there: model-00002-of-"):
        _load(copy)
