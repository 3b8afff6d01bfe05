"""Job `retrieve`: a text of the index for every image of the samples, never its own caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.data.records import Record
from tga_jax.data.side_texts import read_side_files
from tga_jax.errors import UserError
from tga_jax.files import digest, write_json, write_jsonl
from tga_jax.parallel.mesh import mesh_of
from tga_jax.retrieval.choose import Found, noised_ids
from tga_jax.retrieval.clip_embedder import check_clip, embed_to_file
from tga_jax.retrieval.images import Sample, choose_samples
from tga_jax.retrieval.index import read_about
from tga_jax.retrieval.retriever import Retriever
from tga_jax.retrieval.texts import Text
from tga_jax.run.budget import Budget
from tga_jax.run.checks import MAKES_MODELS
from tga_jax.run.job import Job
from tga_jax.run.sample_files import image_folder
from tga_jax.run.usable_rows import usable_records
from tga_jax.run.work import Work

EXAMPLES = 20
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse samples, an image folder, a CLIP or an index that are not there."""
    config = job.config
    names = [part.strip() for part in config.retrieval.data.split(",") if part.strip()]
    if not (names or config.data.path):
        raise UserError("no samples: set config.retrieval.data or config.data.path")
    for name in names:
        if not Path(name).is_file() and MAKES_MODELS not in before:
            raise UserError(f"config.retrieval.data: {name}: there is no such file")
    if MAKES_MODELS not in before:
        image_folder(config)
    if config.retrieval.clip:
        check_clip(config.retrieval.clip, before)
    if "index" not in before:
        read_about(Path(config.retrieval.index or job.workdir / "index"))


def run(job: Job) -> None:
    """Find a text for every image; write retrieved.jsonl and retrieve/report.json."""
    folder, path = job.workdir / "retrieve", job.workdir / "retrieved.jsonl"
    samples, counts = choose_samples(read_all(job))
    if not samples:
        raise UserError("no images to find texts for in config.retrieval.data")
    retriever, image_dir = Retriever(job, mesh_of(job.config.mesh)), image_folder(job.config)
    shown = [(image_dir, s.image, s.id) for s in samples]
    sizes = [p.stat().st_size if (p := image_dir / s.image).is_file() else None for s in samples]
    about = [[s.id, s.image, s.own, size] for s, size in zip(samples, sizes, strict=True)]
    budget = Budget(job.config.data.max_bad_fraction, len(samples), say=job.say)
    signature = {**retriever.settings, "samples": digest(about), "allowed": budget.allowed}
    work = Work(folder, "retrieved", signature)
    if work.is_done and path.exists():
        job.say(f"finished before: {path}")
        return
    embedder = retriever.embedder

    def batches(start: int) -> Iterator[np.ndarray]:
        return embedder.image_batches(shown[start:], budget.refuse)

    queries = {
        "pictures": digest([row[1::2] for row in about]), "clip": embedder.digest,
        "batch_size": embedder.batch_size, "allowed": budget.allowed,
    }  # fmt: skip
    shape, size = (len(samples), embedder.width), embedder.batch_size
    embed_to_file(folder / "queries.npy", queries, shape, batches, batch_size=size)
    images = np.load(folder / "queries.npy", mmap_mode="r", allow_pickle=False)
    unreadable = int(np.sum(~np.any(images != 0, axis=1)))  # with those of a killed run
    budget.check(unreadable)
    found = search(retriever, samples, images)
    chosen = [
        (sample, one)
        for sample, one in zip(samples, found, strict=True)
        if one is not None and one.number is not None
    ]
    rows = [line(retriever.index.texts, sample, one) for sample, one in chosen]
    write_jsonl(path, rows)
    captions = [sample.caption for sample, _ in chosen]
    write_json(folder / "report.json", report(retriever, found, rows, captions, counts))
    work.finish()
    job.say(f"{len(rows)} of {len(samples)} images have a text -> {path}")


def line(texts: Sequence[Text], sample: Sample, found: Found) -> dict[str, Any]:
    """The line of retrieved.jsonl that holds the text of a sample."""
    assert found.number is not None
    text = texts[found.number]
    return {
        "id": sample.id, "image": sample.image, "text": text.text, "text_id": text.id,
        "score": found.score,
    }  # fmt: skip


def read_all(job: Job) -> list[Record]:
    """The records of config.retrieval.data, or else of config.data.path."""
    config = job.config
    names = [part.strip() for part in config.retrieval.data.split(",") if part.strip()]
    if not (names or config.data.path):
        raise UserError("no samples: set config.retrieval.data or config.data.path")
    captions = Path(config.data.captions or job.workdir / "captions.jsonl")
    extra = captions if config.data.captions or captions.is_file() else None
    return usable_records(
        [Path(name) for name in names or [config.data.path]],
        max_bad_fraction=config.data.max_bad_fraction,
        say=job.say,
        texts=read_side_files({"captions": extra}),
    )


def search(
    retriever: Retriever, samples: Sequence[Sample], images: np.ndarray
) -> list[Found | None]:
    """A text for each image; None for one that could not be read."""
    readable = np.any(images != 0, axis=1)
    noised = noised_ids(
        [s.name for s, ok in zip(samples, readable, strict=True) if ok], retriever.rules
    )
    found: list[Found | None] = [None] * len(samples)
    size = retriever.embedder.batch_size
    for start in range(0, len(samples), size):
        rows = [i for i in range(start, min(start + size, len(samples))) if readable[i]]
        if not rows:
            continue
        chosen = [samples[i] for i in rows]
        new = retriever.find(
            [s.name for s in chosen], np.asarray(images[rows]), [s.own for s in chosen], noised
        )
        for i, one in zip(rows, new, strict=True):
            found[i] = one
    return found


def report(
    retriever: Retriever,
    found: Sequence[Found | None],
    rows: Sequence[dict[str, Any]],
    captions: Sequence[str],
    counts: dict[str, int],
) -> dict[str, Any]:
    """What was found, in figures and examples.

    Args:
        retriever: that found it.
        found: for every image; None for one that could not be read.
        rows: the lines of retrieved.jsonl.
        captions: of the same images as `rows`.
        counts: what was left out before.
    """
    seen = [one for one in found if one is not None]
    scores = [one.score for one in seen if one.score is not None]
    rng = np.random.default_rng(retriever.rules.seed)
    shown = sorted(rng.permutation(len(rows))[:EXAMPLES].tolist())
    return {
        "settings": retriever.settings,
        "counts": {
            **counts,
            "pictures": len(found),
            "unreadable": len(found) - len(seen),
            "without_text": sum(one.number is None for one in seen),
            "written": len(rows),
            "noised": sum(one.noised for one in seen),
            "own_texts_excluded": sum(one.excluded for one in seen),
            "pictures_with_own_excluded": sum(one.excluded > 0 for one in seen),
            "different_texts": len({one.number for one in seen} - {None}),
        },
        "score_quantiles": {
            str(q): round(float(np.quantile(scores, q)), 4) for q in QUANTILES if scores
        },
        "examples": [rows[i] | {"caption": captions[i]} for i in shown],
    }
