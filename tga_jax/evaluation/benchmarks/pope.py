"""POPE (arXiv 2305.10355): is there such an object in the image, in three splits.

    coco_pope_{adversarial,popular,random}.json   lines {"question_id","image","text","label"}
    llava_pope_test.jsonl                         LLaVA's questions, with "category" = the split

LLaVA's own script matches the two by their order within a split, so that is done here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.read_table import id_of, read_rows, text_of
from tga_jax.evaluation.items import FILES, EvalItem, Missing

SPLITS = ("adversarial", "popular", "random")
INSTRUCTION = "\nAnswer the question using a single word or phrase."
OPTIONS = ("questions",)


def read(
    path: Path, image_dir: Path | None, options: Mapping[str, str]
) -> Iterator[EvalItem | Missing]:
    """`path` holds the label files. Option: questions, LLaVA's file (looked for beside them).

    Without LLaVA's file the questions are the label files' own, with its instruction behind.
    """
    asked = _asked(path, options.get("questions", ""))
    for split in SPLITS:
        file = path / f"coco_pope_{split}.json"
        if not file.is_file():
            yield Missing(
                f"{file}: no such file", split, unit=FILES, whole=len(SPLITS), name=file.name
            )
            continue
        labels = read_rows(file)
        questions = labels if asked is None else asked.get(split, [])
        if len(questions) != len(labels):
            lost = max(len(labels) - len(questions), 1)
            yield Missing(f"{len(questions)} questions, {len(labels)} labels", split, lost)
        pairs = zip(questions, labels, strict=False)
        for number, (question, label) in enumerate(pairs, start=1):
            where = f"{file}: record number {number}"
            yield _item(question, label, split, own=asked is None, where=where, folder=image_dir)


def _asked(path: Path, name: str) -> dict[str, list[dict[str, Any]]] | None:
    """LLaVA's questions by split, or None where there is no such file."""
    beside = (path / "llava_pope_test.jsonl", path.parent / "llava_pope_test.jsonl")
    file = Path(name) if name else next((p for p in beside if p.is_file()), None)
    if file is None:
        return None
    asked: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(file):
        asked.setdefault(str(row.get("category")), []).append(row)
    return asked


def _item(
    question: Mapping[str, Any],
    label: Mapping[str, Any],
    split: str,
    *,
    own: bool,
    where: str,
    folder: Path | None,
) -> EvalItem:
    answer, image = label.get("label"), text_of(question, "image", where=where)
    if answer not in ("yes", "no"):
        raise UserError(f'{where}: "label" must be "yes" or "no", got {answer!r:.40}')
    if image != label.get("image", image):
        raise UserError(f"{where}: is about {label['image']!r}, the question about {image!r}")
    number, text = (
        id_of(question, "question_id", where=where),
        text_of(question, "text", where=where),
    )
    return EvalItem(
        id=f"{split}-{number}" if own else number,  # the label files count from 1 in each split
        text=text + INSTRUCTION if own else text,
        image=image,
        image_dir=folder,
        scene=split,
        harmful=False,
        label=answer,
    )
