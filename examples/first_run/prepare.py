"""Write the first run's input: photographs, samples, questions, and a small checkpoint."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tga_jax.data.templates import SYSTEM_TEXTS

PHOTOGRAPHS = Path(__file__).with_name("photographs.json")
VISION: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
CAPTION_QUESTION = "Write a caption for this photograph."


def prepare(folder: Path, **sizes: Any) -> None:
    """Everything under `folder`: images/, samples.json, questions.jsonl, checkpoint/.

    `sizes`: the checkpoint's, as `make_checkpoint` takes them.
    """
    entries = json.loads(PHOTOGRAPHS.read_text(encoding="utf-8"))
    copy_photographs(entries, folder / "images")
    samples = [sample for entry in entries for sample in make_samples(entry)]
    (folder / "samples.json").write_text(json.dumps(samples, indent=1), encoding="utf-8")
    questions = [
        {"question_id": i, "image": file_name(entry), "text": CAPTION_QUESTION}
        for i, entry in enumerate(entries)
    ]
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    (folder / "questions.jsonl").write_text(lines, encoding="utf-8")
    if not (folder / "checkpoint" / "processor_config.json").exists():
        texts = [turn["value"] for sample in samples for turn in sample["conversations"]]
        texts += [f"USER: Retrieved Text: {entry['related']}. ASSISTANT:" for entry in entries]
        make_checkpoint(folder / "checkpoint", texts=[*texts, *SYSTEM_TEXTS.values()], **sizes)


def file_name(entry: dict[str, str]) -> str:
    """A photograph's name in the image folder."""
    return Path(entry["path"]).name


def copy_photographs(entries: list[dict[str, str]], folder: Path) -> None:
    """From the installed packages into one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        spec = importlib.util.find_spec(entry["package"])
        assert spec is not None and spec.origin is not None
        shutil.copyfile(Path(spec.origin).parent / entry["path"], folder / file_name(entry))


def make_samples(entry: dict[str, str]) -> list[dict[str, Any]]:
    """Two rows a photograph, two turns each: with a related text in the prompt, and without."""
    name = Path(entry["path"]).stem
    turns = [
        ("human", f"<image>\n{CAPTION_QUESTION}"),
        ("gpt", entry["caption"]),
        ("human", entry["question"]),
        ("gpt", entry["answer"]),
    ]
    sample = {
        "id": name,
        "image": file_name(entry),
        "conversations": [{"from": who, "value": value} for who, value in turns],
        "image_caption": entry["caption"],
    }
    related = {"id": f"{name}-related", "retrieved_caption": entry["related"]}
    return [sample, sample | related]


def make_checkpoint(
    folder: Path,
    *,
    texts: list[str],
    pixels: int = 56,
    vision: Mapping[str, Any] = VISION,
    text: Mapping[str, Any] = TEXT,
) -> None:
    """A LLaVA of random parameters (two million by default), written by transformers.

    Args:
        folder: where to.
        texts: its tokenizer is trained on.
        pixels: side of an image, in patches of 14.
        vision: sizes of the tower, as CLIPVisionConfig names them.
        text: sizes of the language model, as LlamaConfig names them.
    """
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    tokenizer = train_tokenizer(texts)
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=pixels, patch_size=14, **vision),
        text_config=LlamaConfig(**{"vocab_size": len(tokenizer)} | dict(text)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(pixels // 14) ** 2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_processor(folder, pixels)


def train_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE of 1,200 tokens with Llama's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=special, initial_alphabet=sorted(alphabet)
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=["<image>"],
    )


def save_processor(folder: Path, pixels: int = 56) -> None:
    """The image preparation of LLaVA-1.5 at this checkpoint's size."""
    side = {"height": pixels, "width": pixels}
    image = {
        "image_processor_type": "LlavaImageProcessor",
        "do_pad": True,
        "size": {"shortest_edge": pixels},
        "crop_size": side,
    }
    processor = {
        "processor_class": "LlavaProcessor",
        "image_token": "<image>",
        "patch_size": 14,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }
    for name, value in (("preprocessor_config", image), ("processor_config", processor)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2), encoding="utf-8")
