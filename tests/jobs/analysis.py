"""What the analyze tests ask: captioned images and texts, of which "on grass" is harmful."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.jobs.inputs import CAPTIONS, arguments, make_inputs, write_jsonl

TEXTS = ("What is on grass?", "Is it a red ball on grass?", "Hello.", "What is it?", "Again?")


def make_analysis_inputs(folder: Path, kind: str = "llama") -> Path:
    """A checkpoint, q.jsonl (two questions an image) and texts.jsonl under `folder`."""
    make_inputs(folder, kind)
    rows = [
        {"question_id": f"{i}-{text}", "image": f"{i}.png", "text": text, "harmful": i in (0, 3),
         "image_caption": f"{caption} on grass" if i == 3 else caption}
        for i, caption in enumerate(CAPTIONS) for text in ("What is it?", "Say.")
    ]  # fmt: skip
    write_jsonl(folder / "q.jsonl", rows)
    lines = [
        {"id": i, "prompt": text, "label": "unsafe" if "grass" in text else "safe"}
        for i, text in enumerate(TEXTS)
    ]
    write_jsonl(folder / "texts.jsonl", lines)
    return folder


def command(inputs: Path, workdir: Path, *more: str, job: str = "analyze") -> list[str]:
    """The command line of a job on them."""
    spec = f"questions:{inputs}/q.jsonl,texts:{inputs}/texts.jsonl"
    flags = (
        f"--config.evaluate.benchmarks={spec}",
        "--config.data.buckets=(256,)",
        "--config.analyze.profile=paper",
    )
    return arguments(inputs, workdir, *flags, *more, job=job)


def table(folder: Path) -> dict[tuple[str, int, str], dict[str, str]]:
    """Rows of layers.csv by set, layer and metric."""
    with (folder / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["set", "layer", "metric", "value", "count", "low", "high"]
    return {(row["set"], int(row["layer"]), row["metric"]): row for row in rows}
