"""docs/first_run.png from a finished first run: python -m examples.first_run.image runs/first"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from examples.first_run.check import mean_cosines, transformers_answers
from tga_jax.files import read_jsonl

COLUMNS, SIDE = 6, 220


def draw(workdir: Path, target: Path) -> None:
    """Photographs with the exported model's answers, and cosines a layer before and after."""
    questions = list(read_jsonl(workdir / "inputs" / "questions.jsonl"))
    images = workdir / "inputs" / "images"
    answers = transformers_answers(workdir / "export", images, questions)
    figure, axes = plt.subplots(3, COLUMNS, figsize=(15, 8.4))
    cells = axes.flatten()
    for cell, question, answer in zip(cells, questions, answers, strict=False):
        image = Image.open(images / question["image"]).convert("RGB")
        image.thumbnail((SIDE, SIDE))
        cell.imshow(image)
        cell.set_title("\n".join(wrap(answer)), fontsize=9)
        cell.axis("off")
    plot_cosines(cells[len(questions)], workdir / "score")
    figure.tight_layout()
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=70)


def plot_cosines(axis: plt.Axes, folder: Path) -> None:
    """Mean image-caption cosine a layer."""
    for name, label in (("start", "before"), ("scores", "after")):
        values = mean_cosines(folder / f"{name}.jsonl")
        axis.plot(range(1, len(values) + 1), values, marker="o", label=label)
    axis.set_title("image-caption cosine", fontsize=9)
    axis.set_xlabel("decoder layer", fontsize=8)
    axis.legend(fontsize=8)


def wrap(text: str, width: int = 28) -> list[str]:
    """Lines of at most `width` characters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path("docs/first_run.png"))
