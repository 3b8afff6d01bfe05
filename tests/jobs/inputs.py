"""A user's input in small: a LLaVA checkpoint written by transformers, images, samples."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.first_run.prepare import save_processor, train_tokenizer
from tests.hf_models import tiny_llava, tiny_tiled, vision_config, write_tile_processor
from tga_jax.data.templates import SYSTEM_TEXTS

CONFIG = "configs/from_hf.py:tga"  # the paper's guide, whose figures can be made by hand
# kind of checkpoint that takes images in tiles -> its class, and its language model
TILED = {"next": ("LlavaNext", "mistral"), "onevision": ("LlavaOnevision", "qwen2_tied")}
CAPTIONS = ("a red ball on grass", "two white cups", "a grey cat asleep", "the sea at night")


class Killed(BaseException):
    """Raised in the middle of a job, where another process would be killed."""


def make_inputs(folder: Path, kind: str = "llama_gqa_rope") -> Path:
    """checkpoint/, images/, samples.json and questions.jsonl in `folder`, as a copy."""
    return Path(shutil.copytree(_inputs_of(kind), folder, dirs_exist_ok=True))


@functools.cache
def _inputs_of(kind: str) -> Path:
    """They are made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="tga_jax_test_inputs_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    samples = make_samples()
    checkpoint = folder / "checkpoint"
    texts = [SYSTEM_TEXTS[name] for name in ("llama_2", "vicuna_v1", "chatml")]
    tokenizer = train_tokenizer([json.dumps(samples), *CAPTIONS, *texts])
    shapes: dict[str, Any] = {
        "image_token": tokenizer.convert_tokens_to_ids("<image>"),
        "vocab": len(tokenizer),
        "max_position_embeddings": 512,
    }
    if kind in TILED:
        name, decoder = TILED[kind]
        tiny_tiled(checkpoint, name, decoder, **shapes)
        write_tile_processor(checkpoint, name)
    else:
        vision = vision_config(image_size=56, patch_size=14)
        tiny_llava(checkpoint, kind, vision=vision, **shapes)
        save_processor(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number, size in enumerate([(60, 40), (33, 80), (56, 56), (90, 90)]):
        pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    (folder / "samples.json").write_text(json.dumps(samples))
    questions = [
        {"question_id": i, "image": f"{i}.png", "text": "What is it?"} for i in range(len(CAPTIONS))
    ]
    write_jsonl(folder / "questions.jsonl", questions)
    return folder


def make_samples() -> list[dict[str, Any]]:
    """Every kind of row: plain, with a retrieved text, without caption, text only, tox."""
    rows: list[dict[str, Any]] = []
    for number, caption in enumerate(CAPTIONS):
        turns = [("human", "<image>\nWhat is it?"), ("gpt", caption)]
        rows.append(row(f"p{number}", turns, image=f"{number}.png", image_caption=caption))
    rows[1]["retrieved_caption"] = "a tea set on a table"
    rows[2] |= {"image_caption": "", "retrieved_caption": "a dog in the rain"}
    turns = [("human", "Say hello."), ("gpt", "Hello."), ("human", "Again?"), ("gpt", "Hello!")]
    rows.append(row("text", turns))
    blank = [("human", "<image>\nIs it bad?"), ("gpt", "I cannot say.")]
    rows.append(row("tox-1", blank, image="0.png", image_caption="a red ball on grass"))
    return rows


def row(name: str, turns: list[tuple[str, str]], **extra: Any) -> dict[str, Any]:
    """A LLaVA sample."""
    conversation = [{"from": who, "value": value} for who, value in turns]
    return {"id": name, "conversations": conversation} | extra


def arguments(inputs: Path, workdir: Path, *more: str, job: str) -> list[str]:
    """The command line, without the interpreter."""
    return [
        "tga_jax", f"--config={CONFIG}", f"--workdir={workdir}", f"--job={job}",
        f"--config.model.checkpoint={inputs / 'checkpoint'}",
        f"--config.data.path={inputs / 'samples.json'}",
        f"--config.data.image_dir={inputs / 'images'}",
        f"--config.generate.questions={inputs / 'questions.jsonl'}",
        "--config.generate.max_new_tokens=12", "--config.data.max_length=256",
        "--config.data.buckets=(128,)", "--config.data.caption_buckets=(96,)",
        "--config.pretrain.steps=3", "--config.finetune.steps=6",
        "--config.pretrain.batch_size=2", "--config.finetune.batch_size=4",
        "--config.finetune.accumulate=2", "--config.finetune.save_every=2",
        "--config.finetune.log_every=1", "--config.finetune.learning_rate=1e-3", *more,
    ]  # fmt: skip


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """One JSON object a line."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def without_seconds(metrics: bytes) -> bytes:
    """The rows of an evaluation's metrics.json but for how long questions took."""
    rows = json.loads(metrics)
    return json.dumps([row for row in rows if row["metric"] != "seconds"]).encode()
