"""Job `index`: texts, embedded with CLIP's text tower, in an index that images are looked up in.

Without a corpus the captions of config.data.path and of the captions' file are the texts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.cluster import hosts, shared_files
from tga_jax.config import listed
from tga_jax.data.records import Record
from tga_jax.errors import UserError
from tga_jax.files import digest, write_json
from tga_jax.parallel.mesh import mesh_of
from tga_jax.retrieval.clip_embedder import ClipEmbedder, check_clip, embed_to_file
from tga_jax.retrieval.index import changed_files, choose_backend, read_about, seal_index, text_rows
from tga_jax.retrieval.scann_search import scann_parameters
from tga_jax.retrieval.texts import Text, read_lines, tidy
from tga_jax.run.checks import check_file_of_samples, check_side_files
from tga_jax.run.job import Job
from tga_jax.run.usable_rows import usable_records


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse a CLIP or a corpus that is not there, and numbers that are none."""
    cfg = job.config.retrieval
    if cfg.max_characters < 1:
        raise UserError(f"config.retrieval.max_characters={cfg.max_characters} must be at least 1")
    scann_parameters(0, exact_below=cfg.exact_below, leaves_share=cfg.leaves_share)  # refuses some
    choose_backend(cfg.backend, say=lambda line: None)  # refuses others
    check_clip(cfg.clip, before)
    if not cfg.corpus.strip():
        if job.config.data.path:
            check_file_of_samples(job, before)
        check_side_files(job.config.data, (*before, "retrieve"))
    if not {"caption", "miniature"} & {*before}:
        list(corpus_files(job))


def run(job: Job) -> None:
    """Write index/: texts.jsonl, embeddings.npy, scann/ and, last, index.json."""
    cfg, folder = job.config.retrieval, job.workdir / "index"
    mesh = mesh_of(job.config.mesh)
    embedder = ClipEmbedder(cfg.clip, mesh, batch_size=cfg.batch_size, say=job.say)
    backend = choose_backend(cfg.backend, say=job.say)
    names = hosts.broadcast_from_first(lambda: [str(path) for path in corpus_files(job)])
    sources = [Path(name) for name in names]
    texts, counts = tidy(read_corpus(job, sources), most=cfg.max_characters)
    if not texts:
        raise UserError(
            f"no texts to index in {', '.join(map(str, sources))}: set config.retrieval.corpus to "
            "files of texts, or run job caption"
        )
    job.say(", ".join(f"{count} {what}" for what, count in counts.items()))
    rows = text_rows(texts)
    signature = {
        "texts": digest(rows),
        "clip": embedder.digest,
        "batch_size": cfg.batch_size,
    }
    made_from = signature | {
        "backend": backend,
        "exact_below": cfg.exact_below,
        "leaves_share": cfg.leaves_share,
    }
    if hosts.broadcast_from_first(lambda: is_done(folder, made_from)):
        job.say(f"was finished before: {folder}")
        return
    shared_files.write_jsonl(folder / "texts.jsonl", rows)

    def batches(start: int) -> Iterator[np.ndarray]:
        for i in range(start, len(texts), embedder.batch_size):
            yield embedder.texts([item.text for item in texts[i : i + embedder.batch_size]])

    began = time.monotonic()
    embed_to_file(
        folder / "embeddings.npy", signature, (len(texts), embedder.width), batches,
        batch_size=embedder.batch_size,
    )  # fmt: skip
    rate = len(texts) / max(time.monotonic() - began, 1e-9)
    job.say(f"{len(texts)} texts were embedded ({rate:.0f}/s)")
    more = {"counts": counts, "sources": [str(path) for path in sources], "made_from": made_from}
    if hosts.is_first():
        build(job, embedder, backend, more)


def build(job: Job, embedder: ClipEmbedder, backend: str, more: dict[str, Any]) -> None:
    """Build the searcher and write index.json, in the first process; `more`: its further keys."""
    folder, began = job.workdir / "index", time.monotonic()
    about = seal_index(
        folder,
        backend=backend,
        exact_below=job.config.retrieval.exact_below,
        leaves_share=job.config.retrieval.leaves_share,
        clip={"name": embedder.name, "digest": embedder.digest},
        more=more,
    )
    write_json(folder / "index.json", about)
    seconds = time.monotonic() - began
    job.say(f"{backend} {about['parameters']['kind']} built in {seconds:.1f} s -> {folder}")


def is_done(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether this very index is there, unchanged; what is left of another one is removed."""
    if not (folder / "index.json").exists():
        return False
    try:
        about = read_about(folder)
    except UserError:  # of another version
        about = {}
    if about.get("made_from") == made_from and not changed_files(folder, about):
        return True
    shutil.rmtree(folder)
    return False


def corpus_files(job: Job) -> Iterator[Path]:
    """config.retrieval.corpus, or else where the captions are."""
    config = job.config
    given = [("config.retrieval.corpus", name) for name in listed(config.retrieval.corpus)]
    captions = config.data.captions or str(job.workdir / "captions.jsonl")
    if not given:
        given = [("config.data.path", config.data.path)] if config.data.path else []
        if config.data.captions or Path(captions).is_file():
            given.append(("config.data.captions", captions))
    if not given:
        raise UserError("no texts: set config.retrieval.corpus, or config.data.path for captions")
    for key, name in given:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{key}: {name}: there is no such file")
        if path.suffix not in (".txt", ".json", ".jsonl"):
            raise UserError(f"{key}: {name}: not a .txt, .jsonl or .json file")
        yield path


def check_captions(path: Path, records: Sequence[Record]) -> None:
    """Refuse a LLaVA file as a corpus that holds no text."""
    if not any(record.caption for record in records):
        raise UserError(
            f"config.retrieval.corpus: {path}: none of its {len(records)} records has an "
            '"image_caption"; name files of texts (.txt, .jsonl), or the output of job caption'
        )


def read_corpus(job: Job, sources: list[Path]) -> Iterator[Text]:
    """The texts of the files, in their order."""
    data = job.config.data
    captions = Path(data.captions) if data.captions else job.workdir / "captions.jsonl"
    as_records = () if job.config.retrieval.corpus else (Path(data.path or "."),)
    for path in sources:
        if path.suffix == ".json" or path in as_records:
            fraction = data.max_bad_fraction
            records = usable_records([path], max_bad_fraction=fraction, say=job.say)
            if path not in as_records:
                check_captions(path, records)
            yield from (Text(r.id, r.caption) for r in records if r.caption)
        elif path == captions:
            yield from read_lines(path, keys=("caption",))
        else:
            yield from read_lines(path)
