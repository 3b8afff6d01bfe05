"""The LLaVA repository's layout, read back from what `write_llava_layout` makes of known models.

What that writes is held against modules put together as the repository does in
test_llava_layout.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
from safetensors.numpy import load_file, save_file  # noqa: E402

from tests import hf_models  # noqa: E402
from tests.toy_tokenizers import write_sentencepiece_style  # noqa: E402
from tga_jax.errors import UserError  # noqa: E402
from tga_jax.hf.llava_layout import COPIED, write_llava_layout  # noqa: E402
from tga_jax.hf.source import Source, checkpoint_shapes, open_llava  # noqa: E402
from tga_jax.models.llava import Llava  # noqa: E402

pytestmark = pytest.mark.parity

SQUARE = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
FAMILIES = {
    "llama": "LlavaLlamaForCausalLM",
    "mistral": "LlavaMistralForCausalLM",
    "qwen2_tied": "LlavaQwenForCausalLM",
}


def _made(folder: Path, kind: str, *, siglip: bool = False) -> tuple[Any, Path]:
    """transformers' LLaVA and the same in the original layout, its tower in a folder apart."""
    exported, tower = folder / "export", folder / "tower"
    write_sentencepiece_style(folder)
    settings = {"vision": hf_models.siglip_config(), "feature_select": "full"} if siglip else {}
    model = hf_models.tiny_llava(exported, kind, vocab=448, image_token=400, **settings)
    for name in COPIED:
        source = folder / name
        text = source.read_text() if source.is_file() else '{"eos_token_id": 2}'
        (exported / name).write_text(text)
    (exported / "preprocessor_config.json").write_text(json.dumps(SQUARE | {"do_pad": True}))
    model.model.vision_tower.save_pretrained(tower)
    (tower / "preprocessor_config.json").write_text(json.dumps(SQUARE))
    out = folder / f"llava-{kind}"
    write_llava_layout(exported, out, vision_tower=str(tower))
    return model, out


def _loaded(source: Source) -> dict[str, jax.Array]:
    model = Llava(source.config, hf_models.CLIP_NORM)
    return source.load(hf_models.leaves_of(model))


def _same(ours: dict[str, jax.Array], wanted: dict[str, jax.Array]) -> None:
    assert ours.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_array_equal(ours[path], value, err_msg=path)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_checkpoint_of_each_class(tmp_path, kind):
    _, folder = _made(tmp_path, kind)
    assert json.loads((folder / "config.json").read_text())["architectures"] == [FAMILIES[kind]]
    source = open_llava(str(folder))
    model, wanted = hf_models.import_flat(tmp_path / "export")
    assert source.config == model.config
    _same(_loaded(source), wanted)
    assert source.image_settings["pad_to_square"] and not source.grown
    shapes = checkpoint_shapes(folder)
    assert (shapes.vision, shapes.decoder) == (model.config.vision, model.config.decoder)


def _with_the_tower_inside(folder: Path, *, blocks: int) -> None:
    """As LLaVA-NeXT saves it: under its own names, without the last block."""
    file, export = folder / "model.safetensors", folder.parent / "export/model.safetensors"
    prefix = "model.vision_tower.vision_tower.vision_model."
    inside = {
        prefix + name.removeprefix("vision_tower."): value
        for name, value in load_file(export).items()
        if name.startswith("vision_tower.") and f"encoder.layers.{blocks}." not in name
    }
    save_file(load_file(file) | inside, file, metadata={"format": "pt"})


def test_a_siglip_inside_has_lost_its_last_block(tmp_path):
    _, folder = _made(tmp_path, "qwen2_tied", siglip=True)
    outside = open_llava(str(folder))
    assert (outside.config.feature_layer, outside.config.feature_select) == (-2, "full")
    _with_the_tower_inside(folder, blocks=2)
    for weights in (tmp_path / "tower").glob("*.safetensors"):
        weights.unlink()
    source = open_llava(str(folder))
    assert (source.config.vision.layers, source.config.feature_blocks) == (2, 2)
    assert source.config.image_tokens == outside.config.image_tokens == 16
    _, wanted = hf_models.import_flat(tmp_path / "export")
    for path, value in _loaded(source).items():
        blocks = value.shape[0] if path.startswith("vision/blocks/") else None
        np.testing.assert_array_equal(value, wanted[path][:blocks], err_msg=path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return _made(tmp_path_factory.mktemp("plain"), "llama")[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end True is not supported"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type 'mlp3x_gelu' .* mlp2x_gelu"),
        ({"image_aspect_ratio": "anyres_max_9"}, "image_aspect_ratio 'anyres_max_9'"),
        ({"architectures": ["LlavaMptForCausalLM"]}, "LlavaMptForCausalLM is not supported"),
        ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature 'cls'"),
        ({"mm_vision_tower": None}, "has no mm_vision_tower"),
        ({"mm_vision_tower": "nowhere/at all/"}, "mm_vision_tower: checkpoint 'nowhere"),
    ],
)
def test_what_we_do_not_have_is_refused_by_name(plain, tmp_path, change, said):
    folder = Path(shutil.copytree(plain, tmp_path / "copy"))
    content = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said) as error:
        open_llava(str(folder))
    assert str(folder / "config.json") in str(error.value) and "\n" not in str(error.value)


def test_a_pickled_projector_alone_is_refused_with_the_way_out(plain, tmp_path):
    (tmp_path / "config.json").write_text((plain / "config.json").read_text())
    (tmp_path / "mm_projector.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"mm_projector.bin: .* safe_serialization=True") as error:
        open_llava(str(tmp_path))
    assert "\n" not in str(error.value)
