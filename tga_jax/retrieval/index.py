"""An index on disk: texts, their embeddings, and how they are searched; checked when opened.

texts.jsonl     {"text_id", "id", "text"}; text_id counts from 0
embeddings.npy  float32[N, E], each of length 1
scann/          ScaNN's files, where that is the backend
index.json      version, count, width, hashes of all of these, the CLIP, backend, parameters
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import file_digest, read_json, read_jsonl
from tga_jax.retrieval.scann_search import ScannSearch, available, scann_parameters
from tga_jax.retrieval.search import ExactSearch, Search
from tga_jax.retrieval.texts import Text

VERSION = 1
DIGITS = 64  # of the hashes: all
BACKENDS = ("auto", "scann", "exact")
Say = Callable[[str], None]


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Index:
    """An index that was opened: its texts and the searcher of their embeddings.

    Attributes:
        texts: N of them.
        embeddings: float32[N, E], memory-mapped.
        search: queries of length 1 -> nearest texts.
        about: index.json.
    """

    texts: list[Text]
    embeddings: np.ndarray
    search: Search
    about: dict[str, Any]

    @property
    def digest(self) -> str:
        """Tells indices apart by texts and embeddings."""
        about = self.about
        return hashlib.sha256(f"{about['texts']} {about['embeddings']}".encode()).hexdigest()[:16]


def choose_backend(wanted: str, *, say: Say = _to_stderr) -> str:
    """ "scann" or "exact" for config.retrieval.backend.

    Raises:
        UserError: an unknown name, or "scann" where there is none.
    """
    if wanted not in BACKENDS:
        raise UserError(f"config.retrieval.backend={wanted!r} must be one of {', '.join(BACKENDS)}")
    if wanted == "exact":
        return wanted
    if available():
        return "scann"
    if wanted == "scann":
        raise UserError(
            "config.retrieval.backend='scann': scann is not installed (pip install scann==1.4.2; "
            "it has wheels for Linux on x86_64); use 'exact'"
        )
    say("warning: scann is not installed, so the search is exact: right, but slow on large sets")
    return "exact"


def seal_index(
    folder: Path,
    *,
    backend: str,
    exact_below: int,
    leaves_share: float,
    clip: dict[str, str],
    more: dict[str, Any],
) -> dict[str, Any]:
    """Builds the searcher of the texts.jsonl and embeddings.npy in `folder`, returns index.json.

    Args:
        folder: the index.
        backend: "scann" or "exact".
        exact_below: with fewer texts ScaNN compares all.
        leaves_share: of ScaNN's leaves, how many are read.
        clip: {"name", "digest"}.
        more: further keys.
    """
    embeddings = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    parameters: dict[str, Any] = {"kind": "exact"}
    files: dict[str, str] = {}
    if backend == "scann":
        parameters = scann_parameters(
            len(embeddings), exact_below=exact_below, leaves_share=leaves_share
        )
        ScannSearch.build(embeddings, parameters).save(folder / "scann")
        files = {
            path.name: file_digest(path, digits=DIGITS)
            for path in sorted((folder / "scann").iterdir())
        }
    return {
        "version": VERSION,
        "count": len(embeddings),
        "width": embeddings.shape[1],
        "embeddings": file_digest(folder / "embeddings.npy", digits=DIGITS),
        "texts": file_digest(folder / "texts.jsonl", digits=DIGITS),
        "clip": clip,
        "backend": backend,
        "parameters": parameters,
        "scann_files": files,
        **more,
    }


def read_about(folder: Path) -> dict[str, Any]:
    """The content of index.json: what the index was made from, and how.

    Raises:
        UserError: there is none, or of another version.
    """
    path = folder / "index.json"
    about = read_json(path, missing_ok=True, advice="run job index")
    if about is None:
        raise UserError(f"{folder}: no finished index (no index.json); run job index")
    found = about.get("version") if isinstance(about, dict) else None
    if found != VERSION:
        raise UserError(
            f"{path}: it has version {found}, and this program reads {VERSION}; run job index"
        )
    return dict(about)


def changed_files(folder: Path, about: dict[str, Any]) -> list[Path]:
    """The files of an index that are not what index.json says: edited, lost, or added to scann/."""
    hashes = {"embeddings.npy": about["embeddings"], "texts.jsonl": about["texts"]}
    hashes |= {f"scann/{name}": value for name, value in about["scann_files"].items()}
    there = {f"scann/{path.name}" for path in (folder / "scann").glob("*")}
    names = sorted({*hashes, *(there if about["scann_files"] else ())})
    paths = [folder / name for name in names]
    return [
        path
        for name, path in zip(names, paths, strict=True)
        if not path.is_file() or file_digest(path, digits=DIGITS) != hashes.get(name)
    ]


def open_index(
    folder: Path, *, clip_digest: str, backend: str = "auto", say: Say = _to_stderr
) -> Index:
    """Opens an index and checks that nothing of it was changed.

    Args:
        folder: of the index.
        clip_digest: of the CLIP that will embed the queries.
        backend: config.retrieval.backend.
        say: takes warnings.

    Raises:
        UserError: it is unfinished, of another version or CLIP, or was edited.
    """
    about = read_about(folder)
    if about["clip"]["digest"] != clip_digest:
        raise UserError(
            f"{folder}: made with the CLIP {about['clip']['name']} ({about['clip']['digest']}), "
            f"not with this one ({clip_digest}); set config.retrieval.clip or run job index"
        )
    for path in changed_files(folder, about):
        raise UserError(f"{path}: it has changed since the index was made; run job index")
    embeddings = np.load(folder / "embeddings.npy", mmap_mode="r", allow_pickle=False)
    texts = [Text(row["id"], row["text"]) for row in read_jsonl(folder / "texts.jsonl")]
    if not len(texts) == len(embeddings) == about["count"]:
        raise UserError(
            f"{folder}: there are {len(texts)} texts but {len(embeddings)} embeddings; run "
            "job index"
        )
    search = _searcher(folder, embeddings, about, backend, say)
    return Index(texts, embeddings, search, about)


def _searcher(
    folder: Path, embeddings: np.ndarray, about: dict[str, Any], backend: str, say: Say
) -> Search:
    if about["backend"] == "exact" or choose_backend(backend, say=say) == "exact":
        return ExactSearch(embeddings)
    return ScannSearch.load(folder / "scann", about["count"], about["parameters"])


def text_rows(texts: Sequence[Text]) -> list[dict[str, Any]]:
    """The lines of texts.jsonl, one for each text of the index."""
    return [{"text_id": i, "id": item.id, "text": item.text} for i, item in enumerate(texts)]
