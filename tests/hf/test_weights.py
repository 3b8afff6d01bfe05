"""Weights in and out of Hugging Face folders, against safetensors and transformers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")
from safetensors.numpy import load_file  # noqa: E402

from tests import hf_models  # noqa: E402
from tests.file_limits import files_end_at  # noqa: E402
from tga_jax.errors import UserError  # noqa: E402
from tga_jax.hf import names, shards, weights  # noqa: E402
from tga_jax.hf.config import read_decoder_config, read_llava_config, read_vision_config  # noqa: E402
from tga_jax.hf.saving import save_weights  # noqa: E402
from tga_jax.hf.tensor_writing import NewTensor, write_tensors  # noqa: E402
from tga_jax.hf.weights import load_weights  # noqa: E402
from tga_jax.models.config import DecoderConfig, LlavaConfig, LoraConfig  # noqa: E402
from tga_jax.models.llava import Llava  # noqa: E402
from tga_jax.models.vision import to_patches  # noqa: E402

pytestmark = pytest.mark.parity


def _load(folder: Path, dtype: str = "float32") -> dict[str, jax.Array]:
    return hf_models.import_flat(folder, dtype=dtype)[1]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("llama_biased", "float32"), ("mistral", "bfloat16"), ("qwen2_tied", "float32")),
        *(
            ("qwen3", "float32"),
            ("phi3", "bfloat16"),
            ("gemma2", "bfloat16"),
            ("gemma3", "float32"),
        ),
    ],
)
def test_import_then_export_is_bit_identical(tmp_path, kind, dtype):
    siglip = {"vision": hf_models.siglip_config(), "feature_select": "full"}
    tower = siglip if kind == "qwen3" else {}
    hf_models.tiny_llava(tmp_path / "in", kind, dtype=dtype, **tower)
    params = _load(tmp_path / "in", dtype)
    assert {str(p.dtype) for p in params.values()} == {dtype}
    config = read_llava_config(tmp_path / "in")
    decoder = hf_models.KINDS[kind][0].model_type
    save_weights(params, tmp_path / "out", config=config, dtype=dtype, decoder=decoder)
    before = load_file(tmp_path / "in/model.safetensors")
    after = load_file(tmp_path / "out/model.safetensors")
    assert before.keys() == after.keys()  # the names that save_pretrained writes
    for name in before:
        assert before[name].dtype == after[name].dtype
        assert before[name].tobytes() == after[name].tobytes(), name


def test_patch_kernel_is_the_convolution():
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(1, 8, 8, 3)).astype(np.float32)
    conv = rng.normal(size=(5, 3, 4, 4)).astype(np.float32)
    ours = to_patches(jnp.asarray(pixels), 4) @ names.to_ours("patch", conv)
    cut = pixels.reshape(2, 4, 2, 4, 3)
    theirs = np.einsum("iajbc,dcab->ijd", cut, conv).reshape(1, 4, 5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(names.to_theirs("patch", names.to_ours("patch", conv)), conv)


def _transformers_4(name: str) -> str:
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def _transformers_5_inside(name: str) -> str:
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.")


@pytest.mark.parametrize("spelling", [_transformers_4, _transformers_5_inside])
def test_other_spellings_are_read(copy, spelling):
    plain = _load(copy)

    def respell(tensors):
        buffers = {
            "vision_tower.vision_model.embeddings.position_ids": np.arange(17)[None],
            "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
        }
        return {spelling(name): value for name, value in tensors.items()} | buffers

    hf_models.rewrite(copy, respell)
    for path, value in _load(copy).items():
        np.testing.assert_array_equal(value, plain[path])


def test_float16_file_into_bfloat16(tmp_path):
    model = hf_models.tiny_llava(tmp_path, dtype="float16")
    head = model.lm_head.weight.float().detach().numpy().T
    np.testing.assert_array_equal(
        _load(tmp_path, "bfloat16")["decoder/head"], head.astype(jnp.bfloat16)
    )


def test_sharded_target(copy):
    """8 parts of a mesh each get their own values, whatever axis is cut."""
    if len(jax.devices()) < 8:
        pytest.skip("needs XLA_FLAGS=--xla_force_host_platform_device_count=8")
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    plain, sharded = _load(copy), {}
    model = Llava(read_llava_config(copy), hf_models.CLIP_NORM)
    for path, leaf in hf_models.leaves_of(model).items():
        spec = {1: (None,), 2: ("a", "b"), 3: (None, "b", "a")}[len(leaf.shape)]
        fits = all(
            n % mesh.shape.get(axis, 1) == 0 for n, axis in zip(leaf.shape, spec, strict=True)
        )
        spec = jax.sharding.PartitionSpec(*spec if fits else ())
        sharded[path] = leaf.update(sharding=jax.NamedSharding(mesh, spec))
    with jax.set_mesh(mesh):  # as the jobs do
        loaded = load_weights(copy, sharded, family="llava")
    for path, value in loaded.items():
        assert value.sharding == sharded[path].sharding
        np.testing.assert_array_equal(value, plain[path], err_msg=path)
    assert not loaded["decoder/head"].sharding.is_fully_replicated


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_device_with_memory_of_its_own_gets_the_same(copy, monkeypatch, dtype):
    """There a program writes the blocks; on the host they are written into the array's memory."""
    plain = _load(copy, dtype)
    monkeypatch.setattr(shards, "HOST", "another")
    for path, value in _load(copy, dtype).items():
        np.testing.assert_array_equal(value, plain[path], err_msg=path)


def test_loaded_arrays_are_reused_by_a_step(copy):
    """A step that donates its parameters takes their memory, and no second copy is made."""
    params = _load(copy)
    places = {array.unsafe_buffer_pointer() for array in params.values()}
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    assert {array.unsafe_buffer_pointer() for array in step(params).values()} == places


def test_small_chunks_give_the_same(copy, monkeypatch):
    plain = _load(copy)
    monkeypatch.setattr(weights, "CHUNK_BYTES", 700)  # a few rows
    for path, value in _load(copy).items():
        np.testing.assert_array_equal(value, plain[path], err_msg=path)


def test_from_parts_with_added_tokens(tmp_path):
    clip = hf_models.tiny_clip(tmp_path / "clip")
    llm = hf_models.tiny_llm(tmp_path / "llm", "mistral", vocab=100)
    decoder = dataclasses.replace(read_decoder_config(tmp_path / "llm"), vocab=128)
    config = LlavaConfig(read_vision_config(tmp_path / "clip"), decoder, image_token=100)
    model = Llava(config, hf_models.CLIP_NORM)
    vision = load_weights(
        tmp_path / "clip", hf_models.leaves_of(model, part="vision/"), family="vision"
    )
    np.testing.assert_array_equal(
        vision["vision/blocks/fc1/kernel"][1],
        clip.vision_model.encoder.layers[1].mlp.fc1.weight.detach().numpy().T,
    )
    leaves = hf_models.leaves_of(model, part="decoder/")
    params = load_weights(tmp_path / "llm", leaves, family="decoder", grow_vocab=True)
    table = llm.model.embed_tokens.weight.detach().numpy()
    head = llm.lm_head.weight.detach().numpy()
    np.testing.assert_array_equal(params["decoder/embed"][:100], table)
    np.testing.assert_array_equal(params["decoder/head"][:, :100], head.T)
    for row in (100, 127):
        np.testing.assert_allclose(params["decoder/embed"][row], table.mean(0), atol=1e-6)
        np.testing.assert_allclose(params["decoder/head"][:, row], head.mean(0), atol=1e-6)
    with pytest.raises(UserError, match=r"embed_tokens.weight has shape \[100, 32\]"):
        load_weights(tmp_path / "llm", leaves, family="decoder")


def test_clip_vision_model_folder(tmp_path):
    clip = hf_models.tiny_clip_vision(tmp_path)
    config = LlavaConfig(read_vision_config(tmp_path), DecoderConfig(16, 8, 1, 2, 2, 4, 8), 5)
    leaves = hf_models.leaves_of(Llava(config, hf_models.CLIP_NORM), part="vision/")
    params = load_weights(tmp_path, leaves, family="vision")
    values = dict(clip.named_parameters())
    for path, name in {
        "vision/class_token": "embeddings.class_embedding",
        "vision/post_norm/bias": "post_layernorm.bias",
    }.items():
        np.testing.assert_array_equal(params[path], values[name].detach().numpy())


def test_tied_head_may_be_in_the_file(tmp_path):
    hf_models.tiny_llava(tmp_path, "qwen2_tied")
    table, head = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
    hf_models.rewrite(tmp_path, lambda tensors: tensors | {head: tensors[table].copy()})
    assert "decoder/head" not in _load(tmp_path)
    hf_models.rewrite(tmp_path, lambda tensors: tensors | {head: tensors[table] + 1})
    with pytest.raises(UserError, match="tie_word_embeddings"):
        _load(tmp_path)


def test_shards_are_read_by_transformers_and_by_us(copy):
    import transformers

    params, config = _load(copy), read_llava_config(copy)
    before = load_file(copy / "model.safetensors")
    save_weights(params, copy, config=config, dtype="float32", max_shard_bytes=50_000)
    shards = sorted(path.name for path in copy.glob("*.safetensors"))
    assert len(shards) > 2 and "model.safetensors" not in shards
    assert all((copy / s).stat().st_size < 60_000 for s in shards)
    for path, value in _load(copy).items():
        np.testing.assert_array_equal(value, params[path])
    _, info = transformers.LlavaForConditionalGeneration.from_pretrained(
        copy, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    save_weights(params, copy, config=config, dtype="float32")  # and back to one file
    assert [path.name for path in copy.glob("*.safetensors*")] == ["model.safetensors"]
    assert load_file(copy / "model.safetensors").keys() == before.keys()


def test_export_is_deterministic(copy, tmp_path):
    params, config = _load(copy), read_llava_config(copy)
    for name in ("a", "b"):
        save_weights(params, tmp_path / name, config=config, dtype="bfloat16")
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b


def test_adapters_are_merged(copy, tmp_path):
    config = read_llava_config(copy)
    lora = LoraConfig(rank=4, alpha=8.0, targets=("q", "down"))
    config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, lora=lora))
    rng, params = np.random.default_rng(0), dict(_load(copy))
    plain = load_file(copy / "model.safetensors")
    for name, (into, out) in {"q": (32, 32), "down": (48, 32)}.items():
        stem = f"decoder/blocks/{name}/"
        params[stem + "lora_a"] = jnp.asarray(rng.normal(size=(3, into, 4)), jnp.float32)
        params[stem + "lora_b"] = jnp.asarray(rng.normal(size=(3, 4, out)), jnp.float32)
    save_weights(params, tmp_path, config=config, dtype="float32")
    merged = load_file(tmp_path / "model.safetensors")
    for name, theirs in {"q": "self_attn.q_proj", "down": "mlp.down_proj"}.items():
        for i in range(3):
            a = np.asarray(params[f"decoder/blocks/{name}/lora_a"][i], np.float64)
            b = np.asarray(params[f"decoder/blocks/{name}/lora_b"][i], np.float64)
            key = f"language_model.model.layers.{i}.{theirs}.weight"
            np.testing.assert_allclose(merged[key], plain[key] + 2.0 * (a @ b).T, atol=1e-5)
            plain[key] = merged[key]
    assert plain.keys() == merged.keys()
    assert all(np.array_equal(plain[key], merged[key]) for key in plain)  # and nothing else moved


def test_linear_projector_round_trip(copy, tmp_path):
    """Written with an identity second layer, which the format has and the model has not."""
    config = dataclasses.replace(read_llava_config(copy), projector="linear")
    params = {k: v for k, v in _load(copy).items() if "linear_2" not in k}
    save_weights(params, tmp_path, config=config, dtype="bfloat16")
    leaves = hf_models.leaves_of(Llava(config, hf_models.CLIP_NORM))
    assert not any("linear_2" in path for path in leaves)
    assert load_weights(tmp_path, leaves, family="llava").keys() == leaves.keys()
    with pytest.raises(UserError, match="not the identity"):
        load_weights(copy, leaves, family="llava")


@pytest.mark.parametrize("size", [200, 1300, 2600])
def test_a_file_that_cannot_be_written_to_its_end_is_an_error(tmp_path: Path, size: int) -> None:
    """Also where only the last bytes of a small tensor are lost."""
    one = np.ones(300, np.float32)
    tensors = [NewTensor(name, (300,), lambda: one) for name in ("a", "b")]
    write_tensors(tmp_path / "whole", tensors, dtype="float32", max_bytes=10**9)
    assert (tmp_path / "whole/model.safetensors").stat().st_size > 2400
    with files_end_at(size - 100), pytest.raises(OSError, match="File too large"):
        write_tensors(tmp_path / "cut", tensors, dtype="float32", max_bytes=10**9)
    assert not list((tmp_path / "cut").iterdir())
