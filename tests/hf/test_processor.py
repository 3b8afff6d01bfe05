"""Processor files: what transformers makes of ours, and what we make of other models'."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor

from tests.toy_tokenizers import write_sentencepiece_style
from tga_jax.data.images import ImageTransform
from tga_jax.errors import UserError
from tga_jax.hf.processor import CLIP_MEAN, CLIP_STD, read_image_settings, write_processor
from tga_jax.hf.tokenizer import load_tokenizer, save_tokenizer
from tga_jax.models.config import DecoderConfig, LlavaConfig, VisionConfig

SIZES = [(60, 40), (40, 60), (97, 31), (28, 28), (13, 90)]
CLIP = {
    "crop_size": 28,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": list(CLIP_MEAN),
    "image_std": list(CLIP_STD),
    "resample": 3,
    "size": 28,
}


def make_image(width, height):
    pixels = np.random.default_rng(width).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3))
    image = Image.fromarray(pixels.astype(np.uint8))
    return image.resize((width, height), Image.Resampling.BILINEAR)


def llava_pixels(image, *, pad):
    """LLaVA's own steps with Pillow and numpy alone: float[3, 28, 28]."""
    if pad:
        edge = max(image.size)
        square = Image.new("RGB", (edge, edge), tuple(int(x * 255) for x in CLIP_MEAN))
        square.paste(image, ((edge - image.width) // 2, (edge - image.height) // 2))
        image = square
    width, height = image.size
    size = (28, 28 * height // width) if width <= height else (28 * width // height, 28)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - 28) // 2, (image.height - 28) // 2
    pixels = np.asarray(image.crop((left, top, left + 28, top + 28))) / 255
    return ((pixels - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)


def written(folder, *, settings, feature_select="default"):
    info = load_tokenizer(write_sentencepiece_style(folder / "source"))
    vision = VisionConfig(image_size=28, patch_size=7, width=8, layers=2, heads=2, ffn=8)
    decoder = DecoderConfig(vocab=1, width=8, layers=1, heads=1, kv_heads=1, head_dim=8, ffn=8)
    config = LlavaConfig(
        vision=vision,
        decoder=decoder,
        image_token=info.image_token_id,
        feature_select=feature_select,
    )
    out = folder / "out"
    out.mkdir()
    save_tokenizer(out, info.tokenizer, chat_template="{{ messages[0].content }}")
    write_processor(out, settings=settings, config=config, image_token="<image>")
    (out / "config.json").write_text(json.dumps({"model_type": "llava"}))
    return AutoProcessor.from_pretrained(out), config


def clip_settings(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(CLIP | changes))
    return read_image_settings(folder)


@pytest.mark.parametrize("pad", [False, True])
def test_transformers_makes_the_pixels_of_the_training(tmp_path, pad):
    settings = clip_settings(tmp_path / "clip") | {"pad_to_square": pad}
    processor, _ = written(tmp_path, settings=settings)
    transform = ImageTransform(**settings)
    for width, height in SIZES:
        image = make_image(width, height)
        got = np.asarray(processor.image_processor(image).pixel_values[0])
        expected = llava_pixels(image, pad=pad)
        one_step = 1 / 255 / min(CLIP_STD)
        assert np.abs(got - expected).max() <= one_step + 1e-6
        ours = (transform(image) * settings["rescale"] - CLIP_MEAN) / CLIP_STD
        assert np.abs(got - ours.transpose(2, 0, 1)).max() <= one_step + 1e-6


def test_pixels_of_a_siglip_and_of_its_export_are_transformers(tmp_path):
    (tmp_path / "siglip").mkdir()
    file = tmp_path / "siglip" / "preprocessor_config.json"
    size = {"height": 28, "width": 28}
    file.write_text(json.dumps({"image_processor_type": "SiglipImageProcessor", "size": size}))
    settings = read_image_settings(tmp_path / "siglip")
    transform, theirs = ImageTransform(**settings), AutoImageProcessor.from_pretrained(file.parent)
    exported, _ = written(tmp_path, settings=settings)
    for image in (make_image(*size) for size in SIZES):
        ours = (transform(image) * settings["rescale"] - 0.5) / 0.5
        for processor in (theirs, exported.image_processor):
            pixels = processor(images=image, return_tensors="np")["pixel_values"][0]
            one_step = 2 / 255  # where the two round resized pixels to 8 bits
            assert np.abs(pixels - ours.transpose(2, 0, 1)).max() <= one_step + 1e-6


@pytest.mark.parametrize("pad", [False, True])
def test_written_files_are_read_back(tmp_path, pad):
    for index, size in enumerate([{"shortest_edge": 28}, {"height": 28, "width": 28}]):
        settings = clip_settings(tmp_path / f"clip{index}", size=size) | {"pad_to_square": pad}
        written(tmp_path / str(index), settings=settings)
        assert read_image_settings(tmp_path / str(index) / "out") == settings


@pytest.mark.parametrize("feature_select", ["default", "full"])
def test_image_token_is_repeated_as_often_as_the_model_has_features(tmp_path, feature_select):
    settings = clip_settings(tmp_path / "clip")
    processor, config = written(tmp_path, settings=settings, feature_select=feature_select)
    assert type(processor).__name__ == "LlavaProcessor"
    images = [make_image(60, 40), make_image(40, 60)]
    ids = processor(text="<image>\n<image>\nWhat?", images=images).input_ids[0]
    assert ids.count(config.image_token) == 2 * config.image_tokens
    assert processor.patch_size == 7
    assert processor.vision_feature_select_strategy == feature_select
    assert processor.num_additional_image_tokens == 1


def test_class_names_are_those_of_the_published_checkpoints(tmp_path):
    settings = clip_settings(tmp_path / "clip")
    names = {}
    for pad in (False, True):
        written(tmp_path / str(pad), settings=settings | {"pad_to_square": pad})
        file = tmp_path / str(pad) / "out" / "preprocessor_config.json"
        names[pad] = json.loads(file.read_text())["image_processor_type"]
    assert names == {False: "CLIPImageProcessor", True: "LlavaImageProcessor"}


def test_nested_settings_of_transformers_5_come_first(tmp_path):
    clip_settings(tmp_path)
    nested = CLIP | {"image_processor_type": "LlavaImageProcessor", "do_pad": True, "size": 35}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    settings = read_image_settings(tmp_path)
    assert (settings["shortest_edge"], settings["pad_to_square"]) == (35, True)


def test_steps_that_are_switched_off(tmp_path):
    settings = clip_settings(
        tmp_path, do_normalize=False, do_rescale=False, do_center_crop=False, do_resize=False
    )
    assert settings["mean"] == (0, 0, 0) and settings["std"] == (1, 1, 1)
    assert settings["rescale"] == 1
    assert settings["crop"] is settings["resize"] is settings["shortest_edge"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "ViTImageProcessor"),
        ({"size": {"longest_edge": 28}}, "longest_edge"),
        ({"size": "small"}, "small"),
        ({"crop_size": {"height": 28}}, "crop_size"),
        ({"image_mean": [0.5]}, "image_mean"),
    ],
)
def test_unknown_settings_are_named(tmp_path, changes, words):
    with pytest.raises(UserError, match=f"preprocessor_config.json.*{words}"):
        clip_settings(tmp_path, **changes)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(UserError, match="preprocessor_config.json"):
        read_image_settings(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match="malformed JSON at line 1"):
        read_image_settings(tmp_path)
