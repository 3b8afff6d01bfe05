"""Searching texts for images: `python -m benchmarks.retrieval --count 100000 --queries 1000`.

ScaNN as job `index` uses it, exact search in numpy, and faiss (flat, IVF-PQ with refinement, HNSW)
find the same queries among the same vectors, each in a process of its own; a JSON line a setting.
Seconds are the process's CPU time, over all threads, so that a busy machine counts less; run it
under `taskset -c 1`, so that nobody pays for threads that wait for each other.

The vectors are made up in the likeness of CLIP's text embeddings: a mean direction that all share,
clusters whose sizes follow a power law, variance that falls over rotated axes, and near-duplicates.
A query is a text among them, seen through noise and a constant gap: the other modality.

`bytes` is what the search structure takes on disk, vectors included; `resident_bytes` is the memory
that the process holds more once it is built, mapped files not counted.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

NEIGHBOURS, CHUNK, BATCH = 10, 20_000, 256
BACKENDS = ("exact", "faiss_flat", "scann", "faiss_ivf_pq", "faiss_hnsw")
Search = Callable[[np.ndarray], np.ndarray]  # float32[Q, E] -> int64[Q, NEIGHBOURS]
Setting = tuple[dict[str, Any], Search]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="texts")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--scann", default="{}", help="JSON: parameters in place of ours")
    parser.add_argument("--keep", default="", help="a folder for the vectors; reused")
    parser.add_argument("--child", default="", help="a backend (what the parent asks a child for)")
    args = parser.parse_args()
    if args.child:
        measure(args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary)
        folder.mkdir(exist_ok=True)
        if not (folder / "queries.npy").exists():
            print(json.dumps(make_data(folder, args)), flush=True)
        for backend in args.backends.split(","):
            command = [
                sys.executable,
                "-m",
                "benchmarks.retrieval",
                "--child",
                backend,
                "--keep",
                str(folder),
            ]
            subprocess.run([*command, "--scann", args.scann], check=True)


# --- data ---


def make_data(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """texts.npy float32[N, E], queries.npy float32[Q, E] and truth.npy int64[Q, 10]."""
    rng = np.random.default_rng(args.seed)
    turn = np.linalg.qr(rng.normal(size=(args.width, args.width)))[0].astype(np.float32)
    axes = np.arange(1, args.width + 1, dtype=np.float32)

    def noise(rows: int, power: float) -> np.ndarray:
        """Length about 1, variance falling over the axes."""
        scale = axes**-power / np.linalg.norm(axes**-power)
        return rng.standard_normal((rows, args.width), np.float32) * scale @ turn

    clusters = max(1, args.count // 100)
    share = 1 / (np.arange(clusters) + 10)
    centres, mean = noise(clusters, 0.5), turn[-1]
    texts = np.lib.format.open_memmap(
        folder / "texts.npy", "w+", np.float32, (args.count, args.width)
    )
    for start in range(0, args.count, CHUNK):
        rows = min(CHUNK, args.count - start)
        member = rng.choice(clusters, rows, p=share / share.sum())
        new = 0.6 * mean + 0.55 * centres[member] + 0.58 * noise(rows, 0.25)
        copies = rows // 20
        new[:copies] = new[-copies:] + 0.15 * noise(copies, 0.25)
        texts[start : start + rows] = unit(new)
    chosen = rng.integers(args.count, size=args.queries)
    seen = 0.3 * texts[chosen] + 0.5 * noise(args.queries, 0.5) + 0.8 * turn[-2]
    queries = unit(seen)
    found, scores = exact(texts)(queries), np.sum(queries * texts[chosen], axis=1)
    np.save(folder / "truth.npy", found)
    np.save(folder / "queries.npy", queries)
    return {
        "count": args.count, "width": args.width, "queries": args.queries, "seed": args.seed,
        "own_text_is_nearest": float(np.mean(found[:, 0] == chosen)),
        "cosine_with_own_text": float(scores.mean()),
        "cosine_with_nearest": float(np.sum(queries * texts[found[:, 0]], axis=1).mean()),
    }  # fmt: skip


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# --- backends: what was built, then a search for every setting worth trying ---


def exact(texts: np.ndarray) -> Search:
    """Our own."""
    from tga_jax.retrieval.search import ExactSearch

    search = ExactSearch(texts)
    return lambda queries: search(queries, NEIGHBOURS)[0]


def exact_settings(texts: np.ndarray, folder: Path, given: dict[str, Any]) -> Iterator[Setting]:
    yield {}, exact(texts)


def scann_settings(texts: np.ndarray, folder: Path, given: dict[str, Any]) -> Iterator[Setting]:
    from tga_jax.config import base_config
    from tga_jax.retrieval.scann_search import ScannSearch, scann_parameters

    share = base_config().retrieval.leaves_share
    ours = scann_parameters(len(texts), exact_below=0, leaves_share=share)
    ScannSearch.build(texts, ours | given).save(folder / "scann")
    # Leaves read and the number compared exactly can be chosen after building.
    for more in given.get("_then", [{}]):
        parameters = ours | given | more
        parameters.pop("_then", None)
        search = ScannSearch.load(folder / "scann", len(texts), parameters)
        yield parameters, functools.partial(nearest, search)


def nearest(search: Any, queries: np.ndarray) -> np.ndarray:
    """Indices of the texts that a search of ours finds."""
    return search(queries, NEIGHBOURS)[0]


def faiss_flat_settings(
    texts: np.ndarray, folder: Path, given: dict[str, Any]
) -> Iterator[Setting]:
    import faiss

    index = faiss.IndexFlatIP(texts.shape[1])
    index.add(texts)
    yield {}, lambda queries: index.search(queries, NEIGHBOURS)[1]


def faiss_ivf_pq_settings(
    texts: np.ndarray, folder: Path, given: dict[str, Any]
) -> Iterator[Setting]:
    """IVF-PQ with 4-bit codes of 2 dimensions (SIMD), the best then compared exactly."""
    import faiss

    lists, width = 4 * round(len(texts) ** 0.5), texts.shape[1]
    coarse = faiss.IndexFlatIP(width)
    codes = faiss.IndexIVFPQFastScan(
        coarse, width, lists, width // 2, 4, faiss.METRIC_INNER_PRODUCT
    )
    rng = np.random.default_rng(0)
    codes.train(texts[np.sort(rng.choice(len(texts), min(len(texts), 50 * lists), False))])
    index = faiss.IndexRefineFlat(codes)
    index.add(texts)
    faiss.write_index(index, str(folder / "faiss_ivf_pq"))
    for probes in (lists // 64, lists // 32, lists // 16, lists // 8, lists // 4):
        for factor in (10, 30, 100):
            index.k_factor, codes.nprobe = factor, probes
            settings = {"lists": lists, "probes": probes, "refined": factor * NEIGHBOURS}
            yield settings, lambda queries: index.search(queries, NEIGHBOURS)[1]


def faiss_hnsw_settings(
    texts: np.ndarray, folder: Path, given: dict[str, Any]
) -> Iterator[Setting]:
    import faiss

    index = faiss.IndexHNSWFlat(texts.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    for start in range(0, len(texts), CHUNK):
        index.add(texts[start : start + CHUNK])
    faiss.write_index(index, str(folder / "faiss_hnsw"))
    for effort in (64, 128, 256, 512, 1024):
        index.hnsw.efSearch = effort
        yield {"effort": effort}, lambda queries: index.search(queries, NEIGHBOURS)[1]


# --- measuring ---


def measure(args: argparse.Namespace) -> None:
    """Print a line for every setting of a backend."""
    folder = Path(args.keep)
    texts = np.load(folder / "texts.npy", mmap_mode="r")
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    if args.child.startswith("faiss"):
        import faiss

        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
    before, began = anonymous_bytes(), time.process_time()
    built: dict[str, Any] = {}
    for settings, search in globals()[f"{args.child}_settings"](
        np.asarray(texts), folder, json.loads(args.scann)
    ):
        built = built or {
            "build_seconds": round(time.process_time() - began, 1),
            "resident_bytes": anonymous_bytes() - before,
            "bytes": size_of(folder / args.child) or texts.nbytes,
        }
        line = {"backend": args.child, **settings, **timed(search, queries, truth), **built}
        print(json.dumps(line), flush=True)


def timed(search: Search, queries: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Recall against exact search, and the best rate of three rounds over all queries."""
    search(queries[:BATCH])
    seconds, found = [], np.zeros(0)
    for _ in range(3):
        began = time.process_time()
        parts = [search(queries[i : i + BATCH]) for i in range(0, len(queries), BATCH)]
        seconds.append(time.process_time() - began)
        found = np.concatenate(parts)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]
    return {
        "recall_at_1": round(float(np.mean(found[:, 0] == truth[:, 0])), 4),
        "recall_at_10": round(float(np.mean(hits)) / NEIGHBOURS, 4),
        "queries_per_second": round(len(queries) / min(seconds), 1),
    }


def anonymous_bytes() -> int:
    """Memory of this process that is not a mapped file (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def size_of(path: Path) -> int:
    """Of a file or of the files in a folder; 0 where there is none."""
    files = path.iterdir() if path.is_dir() else [path] if path.exists() else []
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    main()
