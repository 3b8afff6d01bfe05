"""CLIPModel folders: parity with transformers, both ways."""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402

from tests.hf_models import randomize, vision_config  # noqa: E402
from tga_jax.data.images import ImageTransform  # noqa: E402
from tga_jax.errors import UserError  # noqa: E402
from tga_jax.hf.clip import clip_tokens, export_clip, open_clip  # noqa: E402
from tga_jax.models.clip import Clip  # noqa: E402
from tga_jax.models.llava import PixelNorm  # noqa: E402
from tga_jax.parallel.sharding import shapes  # noqa: E402
from tga_jax.training.step import nested  # noqa: E402

pytestmark = pytest.mark.parity

WORDS = "a photo of the red blue bus dog on street".split()
VOCAB = {w: i for i, w in enumerate(["<pad>", "<s>", "<unk>", *WORDS, "<end>"])}
END = VOCAB["<end>"]
TEXTS = ["a photo of a dog", "bus", "a red bus on the blue street of the dog on a street a a a", ""]
SETTINGS = {
    "shortest_edge": 32, "resize": None, "crop": (32, 32), "resample": 3, "pad_to_square": False,
    "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "rescale": 1 / 255,
}  # fmt: skip


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(VOCAB, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <end>", special_tokens=[("<s>", 1), ("<end>", END)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<end>", pad_token="<pad>",
        unk_token="<unk>", model_max_length=12,
    )  # fmt: skip


def _save_clip(folder: Path, *, eos: int = END, seed: int = 0, dtype: str = "float32", **text):
    config = transformers.CLIPConfig(
        vision_config=vision_config(layers=2).to_dict(),
        text_config={
            "vocab_size": len(VOCAB), "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 12,
            "eos_token_id": eos, "bos_token_id": 1, "pad_token_id": 0, **text,
        },
        projection_dim=20,
    )  # fmt: skip
    model = transformers.CLIPModel(config)
    randomize(model, seed)
    model.eval().to(getattr(torch, dtype)).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    image = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    image |= {"image_processor_type": "CLIPImageProcessor"}
    image |= {"image_mean": SETTINGS["mean"], "image_std": SETTINGS["std"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    return model


def _load(folder: Path, dtype: str = "float32"):
    source = open_clip(str(folder))
    settings = source.image_settings
    norm = PixelNorm(settings["mean"], settings["std"], settings["rescale"])
    model = Clip(source.config, norm)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    boxed = jax.eval_shape(model.init, jax.random.key(0))
    leaves = {
        path: jax.ShapeDtypeStruct(shape, dtype, sharding=device)
        for path, shape in shapes(boxed).items()
    }
    return source, model, source.load(leaves)


@pytest.mark.parametrize(
    ("eos", "activation"), [(END, "quick_gelu"), (2, "gelu")], ids=["end token", "highest id"]
)
def test_texts_agree_with_transformers(tmp_path, eos, activation):
    theirs = _save_clip(tmp_path, eos=eos, hidden_act=activation)
    source, model, params = _load(tmp_path)
    tokens, mask = source.tokenise(TEXTS)
    inputs = _tokenizer()(TEXTS, padding=True, truncation=True, return_tensors="pt")
    np.testing.assert_array_equal(tokens, inputs["input_ids"])  # the third text is cut to 12
    np.testing.assert_array_equal(mask, inputs["attention_mask"])
    assert tokens.shape == (4, 12) and tokens[2, -1] == END
    with torch.no_grad():
        wanted = theirs.get_text_features(**inputs).pooler_output
    ours = model.embed_texts(nested(params), tokens, mask, normalize=False)
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4)
    wanted = wanted / wanted.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(model.embed_texts(nested(params), tokens), wanted, atol=1e-4)


def test_images_and_logits_agree_with_transformers(tmp_path):
    theirs = _save_clip(tmp_path)
    source, model, params = _load(tmp_path)
    arrays = np.random.default_rng(0).integers(0, 256, (3, 40, 52, 3)).astype(np.uint8)
    files = [Image.fromarray(array) for array in arrays]
    pixels = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path)(
        files, return_tensors="pt"
    )
    transform = ImageTransform(**source.image_settings)
    cut = np.stack([transform(file) for file in files])
    tokens, mask = source.tokenise(TEXTS)
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask), **pixels)
    tree = nested(params)
    images = model.embed_images(tree, cut)
    np.testing.assert_allclose(images, wanted.image_embeds, atol=1e-4)
    logits = model.logits(tree, images, model.embed_texts(tree, tokens, mask))
    np.testing.assert_allclose(logits, wanted.logits_per_image, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_import_then_export_is_bit_identical(tmp_path, dtype):
    _save_clip(tmp_path / "in", dtype=dtype)
    source, _, params = _load(tmp_path / "in", dtype)
    for name in ("out", "again"):
        export_clip(
            tmp_path / name,
            params=params,
            config=source.config,
            tokenizer=source.tokenizer,
            image_settings=source.image_settings,
            dtype=dtype,
            source_config=source.hf_config,
        )
    before = load_file(tmp_path / "in/model.safetensors")
    after = load_file(tmp_path / "out/model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].shape == after[name].shape, name
        assert before[name].tobytes() == after[name].tobytes(), name
    for file in (tmp_path / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_transformers_loads_what_is_written_from_nothing(tmp_path):
    _save_clip(tmp_path / "in")
    source, model, _ = _load(tmp_path / "in")
    drawn = nn.meta.unbox(jax.jit(model.init)(jax.random.key(3)))
    flat = {"/".join(k.key for k in path): x for path, x in jax.tree.leaves_with_path(drawn)}
    export_clip(
        tmp_path / "out",
        params=flat,
        config=source.config,
        tokenizer=_tokenizer(),
        image_settings=SETTINGS,
        dtype="float32",
    )
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "out").eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    assert isinstance(processor, transformers.CLIPProcessor)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == 12
    array = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    inputs = processor(
        text=TEXTS, images=Image.fromarray(array), padding=True, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        wanted = theirs(**inputs)
    tokens, _ = clip_tokens(tokenizer, TEXTS, length=12)
    texts = model.embed_texts(drawn, tokens)
    np.testing.assert_allclose(texts, wanted.text_embeds, atol=1e-4)
    own = dataclasses.replace(model, pixel_norm=PixelNorm(SETTINGS["mean"], SETTINGS["std"]))
    images = own.embed_images(drawn, array[None])
    np.testing.assert_allclose(images, wanted.image_embeds, atol=1e-4)
    assert open_clip(str(tmp_path / "out")).config == source.config


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    _save_clip(tmp_path, eos=5)
    with pytest.raises(UserError, match="eos_token_id"):
        open_clip(str(tmp_path))


def test_missing_text_tower_is_an_error(tmp_path):
    _save_clip(tmp_path)
    file = tmp_path / "model.safetensors"
    from safetensors.numpy import save_file

    tensors = {k: v for k, v in load_file(file).items() if "text_model" not in k}
    save_file(tensors, file)
    with pytest.raises(UserError, match="missing tensors: text_model"):
        _load(tmp_path)
