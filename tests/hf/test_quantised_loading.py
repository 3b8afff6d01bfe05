"""Kernels that are made into few bits while they are loaded: the same as made afterwards."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import hf_models
from tga_jax.hf import weights
from tga_jax.hf.weights import load_weights
from tga_jax.models.quantised import KINDS, is_quantised, quantise
from tga_jax.parallel.mesh import make_mesh
from tga_jax.run.model import with_quantised
from tga_jax.training.state import param_leaves

pytestmark = pytest.mark.parity
WIDE = {"hidden_size": 128, "intermediate_size": 192}  # several blocks of 64


def _load(folder: Path, kind: str, mesh: Any, dtype: str) -> dict[str, jax.Array]:
    model = hf_models.import_llava(folder)[0]
    model = dataclasses.replace(model, config=with_quantised(model.config, kind))
    with jax.set_mesh(mesh):
        return load_weights(folder, param_leaves(model, mesh, dtype=dtype), family="llava")


def _one() -> Any:
    return make_mesh(data=1, fsdp=1, tensor=1, devices=jax.devices()[:1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("family", "dtype"), [("mistral", "bfloat16"), ("phi3", "float32")])
def test_loaded_kernels_are_the_quantised_ones(
    tmp_path: Path, kind: str, family: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_models.tiny_llava(tmp_path, family, dtype=dtype, **WIDE)
    dense = hf_models.import_flat(tmp_path)[1]
    monkeypatch.setattr(weights, "CHUNK_BYTES", 9000)  # a few rows of a matrix
    loaded = _load(tmp_path, kind, _one(), "float32")
    assert sum(map(is_quantised, loaded)) == 14
    for path, kernel in dense.items():
        if path in loaded:
            np.testing.assert_array_equal(loaded[path], kernel, err_msg=path)
            continue
        for layer, value in enumerate(kernel):
            for name, wanted in zip(("_q", "_scale"), quantise(value, kind), strict=True):
                got = loaded[path + name][layer]
                assert got.dtype == wanted.dtype
                np.testing.assert_allclose(
                    got.astype(jnp.float32), wanted.astype(jnp.float32), rtol=1e-6, err_msg=path
                )


@pytest.mark.skipif(jax.device_count() < 8, reason="needs eight devices")
@pytest.mark.parametrize("kind", KINDS)
def test_shards_are_those_of_one_device(tmp_path: Path, kind: str) -> None:
    hf_models.tiny_llava(tmp_path, **WIDE)
    one = _load(tmp_path, kind, _one(), "bfloat16")
    cut = _load(tmp_path, kind, make_mesh(data=1, fsdp=2, tensor=4), "bfloat16")
    for path, value in one.items():
        np.testing.assert_array_equal(cut[path], value, err_msg=path)
    codes = cut["decoder/blocks/gate/kernel_q"]
    part = codes.addressable_shards[0].data.shape
    assert part == (codes.shape[0], codes.shape[1] // 2, codes.shape[2] // 4)
