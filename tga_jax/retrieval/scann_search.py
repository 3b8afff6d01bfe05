"""ScaNN: tree, asymmetric hashing and reordering (arXiv 1908.10396). Imported here only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.errors import UserError
from tga_jax.files import replacing_folder
from tga_jax.hf.hidden_packages import hidden

PICKLE = "scann_docids.pkl"  # ScaNN would unpickle it; it writes none for searchers like ours
DEFAULT_NEIGHBOURS = 10
LEAVES_READ_ANYWAY = 100  # which costs next to nothing; a small share of a small tree misses much
SMALLEST_TREE = 16  # vectors; a code of 4 bits wants as many to choose its centres from


def scann_parameters(count: int, *, exact_below: int, leaves_share: float) -> dict[str, Any]:
    """How `count` vectors are searched; benchmarks/NOTES.md has what that finds.

    Below `exact_below`, and where they are too few for a tree, all are compared. Above, a share of
    sqrt(10 count) leaves is read, with codes of 2 dimensions, and the best are compared exactly: of
    100,000 `leaves_share` and the best 100, of ten times as many a tenth of the leaves more and the
    best 316. Of a small tree 100 leaves are read, or all.

    Raises:
        UserError: the share is not above 0 and at most 1.
    """
    if not 0 < leaves_share <= 1:
        raise UserError(f"config.retrieval.leaves_share={leaves_share} must be above 0, at most 1")
    if count < max(exact_below, SMALLEST_TREE):
        return {"kind": "exact"}
    leaves, larger = round(math.sqrt(10 * count)), max(count / 100_000, 1.0)
    share = min(leaves_share + 0.1 * math.log10(larger), 1.0)
    return {
        "kind": "tree",
        "leaves": leaves,
        "leaves_read": min(max(math.ceil(share * leaves), LEAVES_READ_ANYWAY), leaves),
        "training_sample": min(count, 250_000),
        "seed": 1,
        "soar_lambda": None,
        "dimensions_a_code": 2,
        "anisotropic_threshold": 0.2,
        "reordered": round(100 * math.sqrt(larger)),
    }


def available() -> bool:
    """Whether ScaNN can be imported here; it has wheels for some machines only."""
    try:
        _scann()
    except ImportError:
        return False
    return True


class ScannSearch:
    """A searcher in ScaNN's hands."""

    def __init__(self, searcher: Any, count: int, parameters: dict[str, Any]) -> None:
        self._searcher, self._count, self._parameters = searcher, count, parameters

    @classmethod
    def build(cls, vectors: np.ndarray, parameters: dict[str, Any]) -> ScannSearch:
        """Build a ScaNN searcher of the embeddings float32[N, E].

        A tree is not the same twice, in spite of the seed: ScaNN draws a sample by the clock where
        `training_sample` is not all vectors, and its threads add up and number leaves as they
        finish. Two builds find nearly the same texts.
        """
        vectors = np.asarray(vectors)
        builder = _scann().builder(vectors, min(DEFAULT_NEIGHBOURS, len(vectors)), "dot_product")
        if parameters["kind"] == "exact":
            return cls(builder.score_brute_force().build(), len(vectors), parameters)
        builder = builder.tree(
            num_leaves=parameters["leaves"],
            num_leaves_to_search=parameters["leaves_read"],
            training_sample_size=parameters["training_sample"],
            soar_lambda=parameters["soar_lambda"],
        )
        builder = builder.score_ah(
            parameters["dimensions_a_code"],
            anisotropic_quantization_threshold=parameters["anisotropic_threshold"],
        ).reorder(parameters["reordered"])
        config = builder.create_config()  # text; the builder itself takes no seed
        seed = parameters["seed"]
        for part, keys in (
            ("partitioning {", f"clustering_seed: {seed}"),
            ("asymmetric_hash {", f"clustering_seed: {seed} sampling_seed: {seed}"),
        ):
            config = config.replace(part, f"{part} {keys}", 1)
        return cls(_scann().create_searcher(vectors, config), len(vectors), parameters)

    @classmethod
    def load(cls, folder: Path, count: int, parameters: dict[str, Any]) -> ScannSearch:
        """Of what `save` wrote: protocol buffers and .npy files.

        Raises:
            UserError: a file to unpickle is among them, or ScaNN cannot read them.
        """
        if (folder / PICKLE).exists():
            raise UserError(
                f"{folder / PICKLE}: this program did not write this file; run job index"
            )
        try:
            searcher = _scann().load_searcher(str(folder), assets_backcompat_shim=False)
        except (ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{folder}: ScaNN cannot read it ({reason}); run job index") from error
        return cls(searcher, count, parameters)

    def save(self, folder: Path) -> None:
        """Write a folder that can be moved; whole or not at all."""
        with replacing_folder(folder) as new:
            self._searcher.serialize(str(new), relative_path=True)

    def __call__(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See `tga_jax.retrieval.search.Search`; of a tree the answer is approximate."""
        count = min(count, self._count)
        numbers, scores = self._searcher.search_batched_parallel(
            np.ascontiguousarray(queries, np.float32),
            final_num_neighbors=count,
            pre_reorder_num_neighbors=max(count, self._parameters.get("reordered", 0)),
            leaves_to_search=self._parameters.get("leaves_read"),
        )
        # Where fewer were found in the leaves read, ScaNN fills up with NaN scores.
        scores = np.asarray(scores, np.float32)
        return np.where(np.isnan(scores), -1, numbers.astype(np.int64)), scores


def _scann() -> Any:
    with hidden("tensorflow"):  # which ScaNN needs for nothing here, and may crash with
        from scann.scann_ops.py import scann_ops_pybind
    return scann_ops_pybind
