"""Job `retrieve`: a text of the index for every image of the samples, never its own caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.cluster import hosts
from tga_jax.config import listed
from tga_jax.data.image_files import place_of, size_of
from tga_jax.data.records import Record
from tga_jax.data.side_texts import read_side_files
from tga_jax.errors import UserError
from tga_jax.files import digest, write_json, write_jsonl
from tga_jax.parallel.mesh import mesh_of
from tga_jax.retrieval.choose import Found, Query, noised_ids
from tga_jax.retrieval.clip_embedder import check_clip, embed_to_file
from tga_jax.retrieval.images import Sample, choose_samples
from tga_jax.retrieval.index import read_about
from tga_jax.retrieval.retriever import Retriever, check_rules
from tga_jax.retrieval.texts import Text
from tga_jax.run.budget import Budget
from tga_jax.run.checks import MAKES_MODELS, check_file_of_samples, check_side_files
from tga_jax.run.job import Job
from tga_jax.run.sample_files import image_folder
from tga_jax.run.usable_rows import usable_records
from tga_jax.run.work import Work

EXAMPLES = 20
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse samples, an image folder, a CLIP or an index that are not there."""
    config = job.config
    names = listed(config.retrieval.data)
    if not (names or config.data.path):
        raise UserError("no samples: set config.retrieval.data or config.data.path")
    for name in names:
        if not Path(name).is_file() and MAKES_MODELS not in before:
            raise UserError(f"config.retrieval.data: {name}: there is no such file")
    if not names:
        check_file_of_samples(job, before)
    check_side_files(config.data, (*before, "retrieve"))
    check_rules(config)
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
    sizes = [size_of(place_of(image_dir, s.image)) for s in samples]
    about = [[s.id, s.image, s.own, size] for s, size in zip(samples, sizes, strict=True)]
    budget = Budget(job.config.data.max_bad_fraction, len(samples), say=job.say)
    signature = {**retriever.settings, "samples": digest(about), "allowed": budget.allowed}
    work = Work(folder, "retrieved", signature)
    if work.is_done(path):
        job.say(f"was finished before: {path}")
        return
    embedder = retriever.embedder

    def batches(start: int) -> Iterator[np.ndarray]:
        return embedder.image_batches(shown[start:], budget.refuse)

    queries = {
        "pictures": digest([row[1::2] for row in about]), "clip": embedder.digest,
        "batch_size": job.config.retrieval.batch_size, "allowed": budget.allowed,
    }  # fmt: skip
    shape, size = (len(samples), embedder.width), embedder.batch_size
    embed_to_file(folder / "queries.npy", queries, shape, batches, batch_size=size)
    lost = hosts.broadcast_from_first(lambda: unreadable(folder / "queries.npy"))
    budget.check(len(lost))  # with those of a killed run
    found = search(retriever, samples, set(lost), folder / "queries.npy")
    if hosts.is_first():
        count = write(job, retriever, samples, found, counts)
        job.say(f"{count} of {len(samples)} images have a related text -> {path}")
        if not count:
            job.say(
                "WARNING: no image has a related text, so the file is empty and "
                "config.data.retrieved cannot name it; search in other texts "
                "(config.retrieval.corpus)"
            )
    work.finish()


def unreadable(queries: Path) -> list[int]:
    """The rows of images that could not be read; they have zeros."""
    images = np.load(queries, mmap_mode="r", allow_pickle=False)
    return np.flatnonzero(~np.any(images != 0, axis=1)).tolist()


def write(
    job: Job,
    retriever: Retriever,
    samples: Sequence[Sample],
    found: Sequence[Found | None],
    counts: dict[str, int],
) -> int:
    """Write what was found, in the first process; returns how many images have a text."""
    chosen = [
        (sample, one)
        for sample, one in zip(samples, found, strict=True)
        if one is not None and one.number is not None
    ]
    rows = [line(retriever.index.texts, sample, one) for sample, one in chosen]
    write_jsonl(job.workdir / "retrieved.jsonl", rows)
    captions = [sample.caption for sample, _ in chosen]
    said = report(retriever, found, rows, captions, counts)
    write_json(job.workdir / "retrieve" / "report.json", said)
    return len(rows)


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
    names = listed(config.retrieval.data)
    if not (names or config.data.path):
        raise UserError("no samples: set config.retrieval.data or config.data.path")
    captions = Path(config.data.captions or job.workdir / "captions.jsonl")
    there = hosts.broadcast_from_first(captions.is_file)
    extra = captions if config.data.captions or there else None
    return usable_records(
        [Path(name) for name in names or [config.data.path]],
        max_bad_fraction=config.data.max_bad_fraction,
        say=job.say,
        texts=read_side_files({"captions": extra}),
    )


def search(
    retriever: Retriever, samples: Sequence[Sample], lost: set[int], queries: Path
) -> list[Found | None]:
    """A text for each image; None for one that could not be read.

    Of several processes all embed the images' own texts, and the first one alone searches: the
    others get None for all.

    Args:
        retriever: searches.
        samples: whose images they are.
        lost: the rows of images that could not be read.
        queries: the file of the images' embeddings.
    """
    names = [sample.name for row, sample in enumerate(samples) if row not in lost]
    noised = noised_ids(names, retriever.rules)
    found: list[Found | None] = [None] * len(samples)
    size = retriever.embedder.batch_size
    images = np.load(queries, mmap_mode="r", allow_pickle=False) if hosts.is_first() else None
    for start in range(0, len(samples), size):
        rows = [i for i in range(start, min(start + size, len(samples))) if i not in lost]
        embedded = retriever.embed([samples[i].own for i in rows]) if rows else []
        if images is None or not rows:
            continue
        asked = [
            Query(samples[i].name, images[i], samples[i].own, own)
            for i, own in zip(rows, embedded, strict=True)
        ]
        for i, one in zip(rows, retriever.find(asked, noised), strict=True):
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
