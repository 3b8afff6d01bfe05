"""Texts for images: what job `retrieve` writes, and what unseen images get at inference."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tga_jax.cluster import hosts
from tga_jax.data.image_files import place_of
from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.files import digest
from tga_jax.retrieval.choose import Found, Query, Rules, find, noised_ids
from tga_jax.retrieval.clip_embedder import ClipEmbedder, Image
from tga_jax.retrieval.index import Index, choose_backend, open_index, read_about
from tga_jax.run.fingerprint import stat_digest
from tga_jax.run.job import Job
from tga_jax.run.work import Work

Asked = tuple[str, Image, str | None]  # an id, its image, its caption where it has one


class Retriever:
    """An index and the CLIP that made it.

    Of several processes all embed together, and the first one alone opens the index and searches.
    """

    def __init__(self, job: Job, mesh: Mesh) -> None:
        """Takes config.retrieval.index, or the workdir's own.

        Raises:
            UserError: there is none, it was edited, or config.retrieval.clip is another CLIP.
        """
        cfg = job.config.retrieval
        self.folder = Path(cfg.index or job.workdir / "index")
        about = hosts.broadcast_from_first(lambda: read_about(self.folder))
        clip = cfg.clip or about["clip"]["name"]
        self.embedder = ClipEmbedder(clip, mesh, batch_size=cfg.batch_size, say=job.say)
        self.rules = rules_of(job.config)
        self._backend, self._say = cfg.backend, job.say

    @functools.cached_property
    def index(self) -> Index:
        """The index, opened when the first process asks for it; the others have no use for it."""
        return open_index(
            self.folder,
            clip_digest=self.embedder.digest,
            backend=self._backend,
            say=self._say,
        )

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the texts, but for the images."""
        return dict(hosts.broadcast_from_first(self._settings))

    def _settings(self) -> dict[str, Any]:
        return {
            "index": self.index.digest,
            "backend": type(self.index.search).__name__,
            "clip": self.embedder.digest,
            **vars(self.rules),
        }

    def embed(self, own: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
        """Embeddings of the own texts of each image, float32[texts, E]; all processes call this."""
        size = self.embedder.batch_size
        flat = [text for texts in own for text in texts]
        parts = [self.embedder.texts(flat[i : i + size]) for i in range(0, len(flat), size)]
        embedded = np.concatenate([np.zeros((0, self.embedder.width), np.float32), *parts])
        return np.split(embedded, np.cumsum([len(texts) for texts in own])[:-1])

    def find(self, queries: Sequence[Query], noised: set[str]) -> list[Found]:
        """One text for each image, in the first process; `noised` ids get a random text."""
        return find(self.index, queries, self.rules, noised)

    def texts(self, asked: Sequence[Asked], work: Work) -> list[str | None]:
        """Texts for unseen images, in order; `work` keeps them.

        Raises:
            UserError: naming an image that cannot be read.
        """
        rows = {row["row"]: row["text"] for row in work.rows()}
        noised = noised_ids([one for one, _, _ in asked], self.rules)
        todo = asked[len(rows) :]
        done = len(rows)
        for images in self.embedder.image_batches([p for _, p, _ in todo], _refuse):
            part = asked[done : done + len(images)]
            own = [(caption,) if caption else () for _, _, caption in part]
            queries = [
                Query(part[i][0], images[i], own[i], embedded)
                for i, embedded in enumerate(self.embed(own))
            ]
            new = self._texts(queries, noised)
            work.append([{"row": done + i, "text": text} for i, text in enumerate(new)])
            rows |= {done + i: text for i, text in enumerate(new)}
            done += len(part)
        return [rows[i] for i in range(len(asked))]

    def _texts(self, queries: Sequence[Query], noised: set[str]) -> list[str | None]:
        """The texts that the first process finds, in all."""

        def look_up() -> list[str | None]:
            numbers = [found.number for found in self.find(queries, noised)]
            return [None if number is None else self.index.texts[number].text for number in numbers]

        return list(hosts.broadcast_from_first(look_up))


def _refuse(row: int, error: UserError) -> None:
    raise error


def rules_of(config: ConfigDict) -> Rules:
    """The rules of config.retrieval, and the run's seed."""
    names = ("top_k", "choice", "noise", "duplicate_cosine", "duplicate_jaccard")
    return Rules(seed=config.seed, **{name: config.retrieval[name] for name in names})


def check_rules(config: ConfigDict) -> None:
    """Refuse rules of config.retrieval by which no text can be found, and unknown backends."""
    rules_of(config)
    choose_backend(config.retrieval.backend, say=lambda line: None)


def check_index(job: Job, before: Sequence[str]) -> None:
    """Refuse a config.retrieval.index that is not there, unless job `index` makes it before.

    Likewise rules by which no text can be found in it, or in the workdir's own.
    """
    index = job.config.retrieval.index
    if not job.config.prompt.retrieved:
        if index:
            job.say(
                "WARNING: config.retrieval.index has no effect, since prompts have no retrieved "
                "texts (config.prompt.retrieved is False, as some recipes set it)"
            )
        return
    made, own = "index" in before, job.workdir / "index" / "index.json"
    if index or made or own.exists():
        check_rules(job.config)
        if index and not made:
            read_about(Path(index))


def configured(job: Job, mesh: Mesh) -> Retriever | None:
    """That of `generate` and `evaluate`, if prompts have texts and an index is there."""
    folder = job.workdir / "index" / "index.json"
    if job.config.prompt.retrieved and (job.config.retrieval.index or folder.exists()):
        return Retriever(job, mesh)
    return None


def look_up(retriever: Retriever, folder: Path, asked: Sequence[Asked]) -> list[str | None]:
    """`Retriever.texts`, done once for the same images and settings: FOLDER/retrieved.*."""
    about = [[one, name, caption] for one, (_, name, _), caption in asked]
    files = stat_digest(place_of(where, name) for _, (where, name, _), _ in asked)
    signature = {**retriever.settings, "pictures": digest([about, files])}
    return retriever.texts(asked, Work(folder, "retrieved", signature))


def with_retrieved(
    retriever: Retriever,
    questions: Sequence[Question],
    folder: Path,
    image_dir: Callable[[int], Path],
) -> list[Question]:
    """The questions, those that show an image and lack a retrieved text with one.

    Args:
        retriever: finds the texts.
        questions: all of them.
        folder: where they are kept, for the next time.
        image_dir: row -> its image folder.
    """
    rows = [i for i, q in enumerate(questions) if q.image and q.retrieved is None]
    asked = [
        (str(q.id), (image_dir(i), q.image or "", str(q.id)), q.caption)
        for i, q in ((i, questions[i]) for i in rows)
    ]
    texts = dict(zip(rows, look_up(retriever, folder, asked), strict=True))
    return [
        dataclasses.replace(q, retrieved=texts.get(i, q.retrieved)) for i, q in enumerate(questions)
    ]
