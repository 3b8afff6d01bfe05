"""Judge the first run: captions word for word, from this project and from transformers."""

from __future__ import annotations

import json
from pathlib import Path

from configs.first_run import get_config
from examples.first_run.prepare import PHOTOGRAPHS, file_name
from tga_jax.alignment.layers import parse_layers
from tga_jax.files import read_jsonl


def check(inputs: Path, workdir: Path) -> list[str]:
    """What is wrong; empty when all is well."""
    entries = json.loads(PHOTOGRAPHS.read_text(encoding="utf-8"))
    captions = {file_name(entry): entry["caption"] for entry in entries}
    questions = list(read_jsonl(inputs / "questions.jsonl"))
    ours = [row["text"] for row in read_jsonl(workdir / "generate" / "answers.jsonl")]
    theirs = transformers_answers(workdir / "export", inputs / "images", questions)
    problems = []
    for question, our, their in zip(questions, ours, theirs, strict=True):
        wanted = captions[question["image"]]
        for name, text in (("tga_jax", our), ("transformers", their)):
            if text != wanted:
                problems.append(f"{question['image']}: {name} says {text!r}, not {wanted!r}")
    return problems + cosines_that_fell(workdir / "score")


def cosines_that_fell(folder: Path) -> list[str]:
    """Guided layers whose mean image-caption cosine is not higher than before training."""
    before = mean_cosines(folder / "start.jsonl")
    after = mean_cosines(folder / "scores.jsonl")
    guided = parse_layers(get_config().guide.layers, len(before))
    fell = []
    for layer, (old, new) in enumerate(zip(before, after, strict=True)):
        mark = "guided" if layer in guided else ""
        print(f"layer {layer + 1}: image-caption cosine {old:.3f} -> {new:.3f}  {mark}")
        if layer in guided and new <= old:
            fell.append(f"layer {layer + 1}: image-caption cosine {old:.3f} -> {new:.3f}")
    return fell


def mean_cosines(path: Path) -> list[float]:
    """Mean over the samples, a layer."""
    rows = [row["image_caption_cos"] for row in read_jsonl(path)]
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


def transformers_answers(folder: Path, images: Path, questions: list[dict]) -> list[str]:
    """Greedy answers of the exported folder, by transformers alone."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    answers = []
    for question in questions:
        content = [{"type": "image"}, {"type": "text", "text": question["text"]}]
        messages = [{"role": "user", "content": content}]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        image = Image.open(images / question["image"])
        inputs = processor(text=prompt, images=image, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        answers.append(processor.decode(new, skip_special_tokens=True).strip())
    return answers
