"""All jobs on checkpoints that take images in tiles, and what transformers makes of the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    LlavaOnevisionProcessor,
)

from tests.jobs.analysis import command, make_analysis_inputs
from tests.jobs.inputs import TILED, arguments, make_inputs, read_jsonl
from tga_jax.files import read_json
from tga_jax.main import main

pytestmark = pytest.mark.parity
# Rows of 384 tokens, and ten tiles beside them.
FLAGS = (
    "--config.finetune.steps=2", "--config.finetune.save_every=2", "--config.data.buckets=(384,)",
    "--config.data.max_length=384", "--config.guide.answer_weight=0.5",
    "--config.generate.max_new_tokens=6", "--config.data.caption_buckets=(128,)",
)  # fmt: skip
JOBS = "inspect,finetune,score,generate,evaluate,analyze,export"


@pytest.fixture(scope="module", params=["next", pytest.param("onevision", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(kind, inputs, workdir) after all jobs."""
    inputs = make_analysis_inputs(tmp_path_factory.mktemp("inputs"), request.param)
    workdir = inputs / "run"
    assert main(command(inputs, workdir, *FLAGS, job=JOBS)) == 0
    return request.param, inputs, workdir


def _transformers(kind: str, folder: Path) -> tuple[Any, Any]:
    """The model of a folder, and what it says of loading."""
    cls = getattr(transformers, f"{TILED[kind][0]}ForConditionalGeneration")
    return cls.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)


def _inputs(kind: str, folder: Path, image: Image.Image) -> dict[str, torch.Tensor]:
    """What the processor of an export makes of a question about an image."""
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content}]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if kind == "next":
        return AutoProcessor.from_pretrained(folder)(text=text, images=image, return_tensors="pt")
    # OneVision's has a part for videos, for which it is not made without torchvision.
    images = AutoImageProcessor.from_pretrained(folder)
    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    vars(processor).update(read_json(folder / "processor_config.json"), image_processor=images)
    count = processor._get_number_of_features(image.height, image.width, 32, 32)
    text = text.replace("<image>", "<image>" * count)
    return {**tokenizer(text, return_tensors="pt"), **images(images=image, return_tensors="pt")}


def test_the_export_answers_alike(run: Any) -> None:
    kind, inputs, workdir = run
    model, info = _transformers(kind, workdir / "export")
    assert not info["missing_keys"] and not info["unexpected_keys"]
    answers = {line["question_id"]: line for line in read_jsonl(workdir / "generate/answers.jsonl")}
    assert len(answers) == 4
    for number, answer in answers.items():
        image = Image.open(inputs / "images" / f"{number}.png").convert("RGB")
        asked = _inputs(kind, workdir / "export", image)
        out = model.generate(**asked, max_new_tokens=6)[0, asked["input_ids"].shape[1] :]
        tokenizer = AutoTokenizer.from_pretrained(workdir / "export")
        assert tokenizer.decode(out, skip_special_tokens=True).strip() == answer["text"]


def test_training_moved_what_it_should(run: Any) -> None:
    """The newline is the projector's: trained with it, and kept by the export."""
    _, inputs, workdir = run
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (inputs / "checkpoint", workdir / "export")
    )
    assert before.keys() == after.keys()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert "image_newline" in moved and not any("vision_tower" in name for name in moved)
    lines = read_jsonl(workdir / "finetune" / "metrics.jsonl")
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert lines[0]["guide_pair"] is not None and lines[0]["guide_answer"] is not None


def test_every_job_left_its_figures(run: Any) -> None:
    _, _, workdir = run
    lines = read_jsonl(workdir / "inspect" / "samples.jsonl")
    lengths = {
        line["image_span"][1] - line["image_span"][0] for line in lines if line["image_span"]
    }
    assert len(lengths) > 2  # spans are as long as their images are large
    scores = read_jsonl(workdir / "score" / "scores.jsonl")
    cosines = [line["image_caption_cos"] for line in scores if line["image_caption_cos"]]
    assert len(cosines) == 3 and np.isfinite(cosines).all()
    samples = read_jsonl(workdir / "analyze" / "samples.jsonl")
    assert sum(line.get("image_caption_cos") is not None for line in samples) == 4
    assert read_json(workdir / "evaluate" / "metrics.json")
    card = (workdir / "export" / "README.md").read_text()
    assert f"import AutoProcessor, {TILED[run[0]][0]}For" in card and "cut into tiles" in card


def test_an_untrained_export_has_the_bits_of_the_source(run: Any, tmp_path: Path) -> None:
    _, inputs, workdir = run
    assert main(command(inputs, tmp_path, job="export")) == 0
    source, exported = (
        load_file(folder / "model.safetensors")
        for folder in (inputs / "checkpoint", tmp_path / "export")
    )
    assert source.keys() == exported.keys()
    assert all(np.array_equal(value, exported[name]) for name, value in source.items())


@pytest.mark.slow
def test_packed_rows_of_prepared_data_give_the_same_losses(run: Any, tmp_path: Path) -> None:
    """The first step, before anything moved: rows of two samples, images' bytes from a store."""
    _, inputs, workdir = run
    flags = [flag for flag in FLAGS if "buckets" not in flag]
    flags += ["--config.data.buckets=(512,)", "--config.data.packing=2"]
    prepared = [*flags, "--config.finetune.steps=1", "--config.finetune.accumulate=1"]
    assert main(command(inputs, tmp_path, *prepared, job="prepare,finetune")) == 0
    first, packed = (
        read_jsonl(folder / "finetune" / "metrics.jsonl")[0] for folder in (workdir, tmp_path)
    )
    for name in ("loss", "lm_loss", "guide_pair", "guide_answer"):
        np.testing.assert_allclose(packed[name], first[name], rtol=1e-4)


def test_a_layout_that_tiles_do_not_have_is_refused_before_any_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = make_inputs(tmp_path, kind="next")
    tower = "--config.export.llava_tower=openai/clip-vit-base-patch32"
    assert main(arguments(inputs, tmp_path / "run", tower, job="inspect,export")) == 2
    assert "LLaVA's own layout is written of images in one tile" in capsys.readouterr().err
    assert not (tmp_path / "run" / "inspect").exists()
