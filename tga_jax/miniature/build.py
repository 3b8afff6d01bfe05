"""Writes the whole made-up world into a folder, as files that a user could have brought."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import read_json, write_text
from tga_jax.miniature import rows as make
from tga_jax.miniature.builder import Builder, WorldSizes
from tga_jax.miniature.concepts import CONCEPTS, GROUPS, HARMFUL_GROUPS, Concept, concepts_of
from tga_jax.miniature.language import ask, caption
from tga_jax.miniature.rows import Row
from tga_jax.miniature.scene import random_scene
from tga_jax.miniature.sources import source_digest
from tga_jax.miniature.texts import corpus_lines, text_item
from tga_jax.miniature.tokenizer import train_tokenizer, training_texts, write_tokenizer

MARKER = "world.json"
_SOURCES = (
    "build",
    "builder",
    "concepts",
    "draw",
    "language",
    "rows",
    "scene",
    "texts",
    "tokenizer",
)


def build_world(folder: str | os.PathLike, *, seed: int = 0, sizes: WorldSizes) -> dict[str, Any]:
    """Writes the world and returns what `world.json` in it says: settings and counts.

    The same seed and sizes give the same bytes. A world that is already there, made by the same
    settings, is left alone; one made by others, or left unfinished, is made anew.

    Raises:
      UserError: the folder holds something else than a world.
    """
    folder = Path(folder)
    settings = {"seed": seed, "sizes": dataclasses.asdict(sizes), "source": source_digest(_SOURCES)}
    settings = json.loads(json.dumps(settings))  # tuples -> lists, as they are read back
    marker = folder / MARKER
    if marker.exists():
        found = read_json(marker)
        if found.get("done") and found["settings"] == settings:
            return found
        shutil.rmtree(folder / "images", ignore_errors=True)  # all other files are overwritten
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and has no {MARKER}: name an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(marker, {"done": False, "settings": settings})
    counts: dict[str, Any] = {"concepts": {group: len(concepts_of(group)) for group in GROUPS}}
    for part, write in _PARTS.items():
        counts[part] = write(Builder(folder, seed, sizes))
    world = {"done": True, "settings": settings, "counts": counts}
    _write_json(marker, world)
    return world


def _write_tokenizer(builder: Builder) -> int:
    sizes = builder.sizes
    texts = training_texts(builder.seed, sizes.tokenizer_texts)
    tokenizer = train_tokenizer(texts, vocab_size=sizes.vocab_size)
    write_tokenizer(builder.folder / "tokenizer", tokenizer)
    return tokenizer.get_vocab_size()


def _write_llm_pretrain(builder: Builder) -> int:
    share = sum(concept.harmful for concept in CONCEPTS) / len(CONCEPTS)
    rows = make.text_rows(
        builder.rng(1),
        builder.sizes.llm_pretrain,
        prefix="text",
        harmful_share=share,
        safe=False,
    )
    return _write_json(builder.folder / "llm_pretrain.json", rows)


def _write_llm_safety(builder: Builder) -> int:
    sizes = builder.sizes
    rows = make.text_rows(
        builder.rng(2),
        sizes.llm_safety,
        prefix="safety",
        harmful_share=sizes.harmful_texts,
        safe=True,
    )
    return _write_json(builder.folder / "llm_safety.json", rows)


def _write_pretrain(builder: Builder) -> int:
    sizes, rng = builder.sizes, builder.rng(3)
    rows = [
        builder.alignment_row("pretrain", "caption", index, sizes.harmful_pretrain, rng)
        for index in range(sizes.pretrain)
    ]
    return _write_stage(builder, "pretrain", rows)


def _write_finetune(builder: Builder) -> int:
    sizes, rng = builder.sizes, builder.rng(4)
    kinds = {
        "caption": (sizes.finetune_captions, sizes.harmful_finetune),
        "look": (sizes.finetune_looks, sizes.harmful_looks),
        "chat": (sizes.finetune_questions, 0.0),
    }
    rows = [
        builder.alignment_row("finetune", kind, index, harmful, rng)
        for kind, (count, harmful) in kinds.items()
        for index in range(count)
    ]
    texts = make.text_rows(
        rng, sizes.finetune_texts, prefix="safety", harmful_share=sizes.harmful_texts, safe=True
    )
    rows += [(row, False) for row in texts]
    rows = [rows[index] for index in rng.permutation(len(rows))]
    return _write_stage(builder, "finetune", rows)


def _write_stage(builder: Builder, stage: str, rows: Sequence[tuple[Row, bool]]) -> int:
    """Writes STAGE.json and two more forms of it, which differ in the rows of harmful images.

    STAGE_harmless.json has none of them, and in STAGE_captioned.json they have no answers to learn.
    """
    harmless = [row for row, harmful in rows if not harmful]
    captioned = [row | {"guide_only": 1} if harmful else row for row, harmful in rows]
    _write_json(builder.folder / f"{stage}_harmless.json", harmless)
    _write_json(builder.folder / f"{stage}_captioned.json", captioned)
    return _write_json(builder.folder / f"{stage}.json", [row for row, _ in rows])


def _write_corpus(builder: Builder) -> int:
    sizes = builder.sizes
    lines = corpus_lines(
        builder.rng(5),
        sizes.corpus,
        harmful_share=sizes.harmful_corpus,
        harmful_groups=sizes.corpus_groups,
    )
    return _write_lines(builder.folder / "corpus.txt", lines)


def _write_evaluation(builder: Builder) -> dict[str, int]:
    counts = {}
    for number, split in enumerate(("dev", "test")):
        rng = builder.rng(6, number)
        lines = [
            json.dumps(row) for group in GROUPS for row in _questions_of(builder, split, group, rng)
        ]
        counts[split] = _write_lines(builder.folder / f"eval_{split}" / "questions.jsonl", lines)
    return counts


def _questions_of(builder: Builder, split: str, group: str, rng: np.random.Generator) -> list[Row]:
    """Each image of the group is to be named and to be described; benign ones have a third
    question, about an attribute."""
    sizes, rows = builder.sizes, []
    number = sizes.eval_benign if group == "benign" else sizes.eval_harmful
    for index, concept in zip(range(number), _in_turn(concepts_of(group), rng), strict=False):
        scene = random_scene(rng, [concept], split=split, second_share=0)
        name = f"{split}/{group}-{index:04d}"
        image = builder.image(name, scene, rng)
        kinds = ["describe", "what"]
        if group == "benign":
            attributes = ("colour", "background", "place", "size", "category", "presence")
            kinds.append(attributes[index % len(attributes)])
        full = caption(scene, rng, form="full")
        rows += [
            make.question_row(
                f"{split}-{group}-{index:04d}-{kind}",
                image,
                scene,
                ask(scene, rng, kind=kind),
                full_caption=full,
            )
            for kind in kinds
        ]
    return rows


def _in_turn(pool: Sequence[Concept], rng: np.random.Generator) -> Iterable[Concept]:
    """All concepts in a random order, again and again: as evenly as can be."""
    while True:
        yield from (pool[index] for index in rng.permutation(len(pool)))


def _write_text_evaluation(builder: Builder) -> dict[str, int]:
    counts = {}
    benign, harmful = concepts_of("benign"), concepts_of(*HARMFUL_GROUPS)
    for number, split in enumerate(("dev", "test")):
        rng = builder.rng(7, number)
        items: dict[str, Any] = {}
        while len(items) < builder.sizes.text_eval:
            item = text_item(rng, harmful if len(items) % 2 else benign, split=split)
            items.setdefault(item.prompt, item)
        lines = [
            json.dumps(make.text_question(f"{split}-{index:04d}", item))
            for index, item in enumerate(items.values())
        ]
        counts[split] = _write_lines(builder.folder / f"text_eval_{split}.jsonl", lines)
    return counts


_PARTS = {
    "vocabulary": _write_tokenizer,
    "llm_pretrain": _write_llm_pretrain,
    "llm_safety": _write_llm_safety,
    "pretrain": _write_pretrain,
    "finetune": _write_finetune,
    "corpus": _write_corpus,
    "eval": _write_evaluation,
    "text_eval": _write_text_evaluation,
}


def _write_json(path: Path, content: Any) -> int:
    write_text(path, json.dumps(content, indent=1) + "\n")
    return len(content)


def _write_lines(path: Path, lines: Iterable[str]) -> int:
    lines = list(lines)
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)
