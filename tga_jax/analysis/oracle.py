"""The oracle: would matched states make this language model refuse? Asked before any training.

An image's prompt is given free embeddings in the image's place, optimised for each sample alone
until the states that a form of the guide compares are alike (`matching.py`). Then the model
answers. If it does not refuse clearly more harmful than harmless samples now, training with that
form has little to carry over; if it does, training may or may not get there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tga_jax.analysis.matching import (
    Matching,
    Shown,
    caption_kinds,
    centred_means,
    match_embeddings,
    own_distance,
    start_embeddings,
)
from tga_jax.analysis.prompts import evenly
from tga_jax.data.example import Example
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record, Turn
from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.metrics import share
from tga_jax.evaluation.result import Result, independence
from tga_jax.inference.generate import make_generate
from tga_jax.models.llava import Params
from tga_jax.parallel.sharding import replicated
from tga_jax.run.answerer import Answerer
from tga_jax.run.inference_batches import Batcher, InferenceBatch
from tga_jax.run.model import OpenModel
from tga_jax.training.metrics import Progress

# What is asked beside the matches: the caption in the image's place, and random embeddings there.
CAPTION, RANDOM = "caption", "random"
# Of a line, by layer: what was reached of the match, and `matching.centred_means`.
COSINES = ("cosine", "means_centred")
FOUND = (*COSINES, "distance")  # of a line; the distance is to the model's own embeddings
Line = dict[str, Any]


def captioned(benchmarks: Sequence[Benchmark], limit: int) -> list[EvalItem]:
    """Questions about captioned images that are harmful or benign, `limit` of each; 0: all.

    They are taken evenly from the whole list, as benchmarks are sorted by scene.
    """
    items = [item for benchmark in benchmarks for item in benchmark.items]
    asked = [item for item in items if item.image is not None and item.extra.get("caption")]
    chosen: list[EvalItem] = []
    for harmful in (True, False):
        chosen += evenly([item for item in asked if item.harmful is harmful], limit)
    return chosen


def as_record(item: EvalItem) -> Record:
    """A question as a captioned image without an answer, whose caption pass goes on to there."""
    return Record(
        id=str(item.id),
        images=(str(item.image),),
        turns=(Turn(item.text, None),),
        caption=str(item.extra["caption"]),
        retrieved=None,
        tox=False,
    )


class Oracle:
    """A model, its samples, and the compiled functions over batches of them."""

    def __init__(
        self, config: ConfigDict, model: OpenModel, prompter: Prompter, items: Sequence[EvalItem]
    ) -> None:
        """Takes config.oracle and the decoding of config.generate; nothing is computed yet.

        Args:
            config: the whole configuration.
            model: whose language model is asked.
            prompter: gives images as many tokens as there are embeddings, and the states where
                answers begin.
            items: the samples, as `captioned` gives them.
        """
        self._items, self._prompter = items, prompter
        self._batcher, self._size = Batcher.of(config.data, model), config.oracle.batch_size
        self._key = jax.random.key(config.seed)
        whole, llava = replicated(model.mesh), model.llava
        self._shown = Shown(llava.config, llava.pixel_norm, llava.compute)
        self._whole = whole
        self._answerer = Answerer(config, model, prompter)
        self._generate = make_generate(self._shown, self._answerer.decoding, out_sharding=whole)
        self._captions = jax.jit(
            lambda p, b: caption_kinds(self._shown, p, b).astype(jnp.float32), out_shardings=whole
        )
        self._means = jax.jit(
            lambda p, b, s, m: centred_means(self._shown, p, b, s, m), out_shardings=whole
        )
        self._distance = jax.jit(own_distance, out_shardings=whole)

    def check(self) -> None:
        """Refuse a prompt that is too long, before anything is loaded or computed."""
        for item in self._items:
            self._encode(item)

    def center(self, params: Params) -> jax.Array:
        """The mean caption states of all samples: float32[L, 2, D]."""
        total: Any = 0.0
        for batch in self._batches("captions", range(len(self._items))):
            states = np.asarray(self._captions(params, batch.arrays), np.float64)
            total = total + states[:, : len(batch.rows)].sum(axis=1)
        return jnp.array(total / len(self._items), jnp.float32)

    def matched(
        self, params: Params, center: jax.Array, rows: Sequence[int], cfg: Matching
    ) -> Iterator[list[Line]]:
        """Yields lines of samples, a batch at a time: embeddings matched, and what is answered.

        Raises:
            UserError: the embeddings of a sample are no longer finite.
        """
        fit = jax.jit(
            lambda p, b, m, k: match_embeddings(self._shown, p, b, m, k, cfg=cfg),
            out_shardings=self._whole,
        )
        for batch in self._batches(cfg.match, rows):
            shown, cosines = fit(params, batch.arrays, center, self._keys(batch))
            means = self._means(params, batch.arrays, shown, center)
            far = self._distance(params, shown)
            found = {"cosine": cosines, "means_centred": means, "distance": far}
            if not np.isfinite(np.asarray(far)).all():
                raise UserError(
                    f"the match {cfg.match!r} diverged: lower config.oracle.learning_rate="
                    f"{cfg.learning_rate:g}"
                )
            yield self._lines(params, cfg.match, batch, shown, found)

    def unmatched(
        self, params: Params, center: jax.Array, name: str, rows: Sequence[int], tokens: int
    ) -> Iterator[list[Line]]:
        """Likewise of the caption in the image's place (CAPTION) or of RANDOM embeddings."""
        for batch in self._batches(name, rows):
            arrays, found = batch.arrays, {}
            if name == RANDOM:
                shown = start_embeddings(params, self._keys(batch), tokens)
                means = self._means(params, arrays, shown, center)
                found = {"means_centred": means, "distance": self._distance(params, shown)}
            else:  # the caption's prompt has no embeddings of its own
                arrays = {k: arrays[f"caption_{k}"] for k in ("tokens", "segments")}
                shown = jnp.zeros((arrays["tokens"].shape[0], 0, self._shown.config.decoder.width))
            replaced = dataclasses.replace(batch, arrays=arrays)
            yield self._lines(params, name, replaced, shown, found)

    def _lines(
        self,
        params: Params,
        name: str,
        batch: InferenceBatch,
        shown: jax.Array,
        found: Mapping[str, jax.Array],
    ) -> list[Line]:
        """What is answered, beside what is known of the embeddings: [L, B] by layer, or [B]."""
        by_sample = {key: np.asarray(found[key]).T.tolist() for key in found}
        keys = self._keys(batch)
        tokens, segments = batch.arrays["tokens"], batch.arrays["segments"]
        new = np.asarray(self._generate(params, tokens, segments, shown, keys))
        return [
            {
                "match": name,
                "row": row,
                "text": self._answerer.text(new[i]),
                **{key: by_sample[key][i] if key in found else None for key in FOUND},
            }
            for i, row in enumerate(batch.rows)
        ]

    def _encode(self, item: EvalItem) -> Example:
        return self._prompter.encode(as_record(item)).without_images()  # no file is read

    def _keys(self, batch: InferenceBatch) -> jax.Array:
        """A key a sample, by its number."""
        size = batch.arrays["segments"].shape[0]
        numbers = np.array(batch.rows + [0] * (size - len(batch.rows)))
        return jax.vmap(jax.random.fold_in, (None, 0))(self._key, numbers)

    def _batches(self, name: str, rows: Sequence[int]) -> Iterator[InferenceBatch]:
        progress, done = Progress(f"oracle {name}", len(rows)), 0

        def encode(row: int) -> Example:
            return self._encode(self._items[row])

        for batch in self._batcher.batches(
            rows, encode, batch_size=self._size, image_dir=_no_folder
        ):
            yield batch
            done += len(batch.rows)
            progress.show(done)


def _no_folder(row: int) -> Any:
    raise AssertionError(f"sample {row} has no image to read")


def table(
    lines: Sequence[Line], items: Sequence[EvalItem], verdicts: Sequence[bool | None]
) -> list[dict[str, Any]]:
    """For each match the cosine reached by layer, and refusals of harmful and benign samples.

    Args:
        lines: of `Oracle`.
        items: the samples.
        verdicts: for each line whether its answer refuses; None: the judge could not say.
    """
    results = [
        Result(items[line["row"]], line["text"], None, {"": verdict})
        for line, verdict in zip(lines, verdicts, strict=True)
    ]
    out = []
    for name in dict.fromkeys(line["match"] for line in lines):
        row: dict[str, Any] = {"match": name}
        for kind, harmful in (("harmful", True), ("benign", False)):
            chosen = [
                (line, result)
                for line, result in zip(lines, results, strict=True)
                if line["match"] == name and result.item.harmful is harmful
            ]
            row[kind] = _figures(chosen)
        out.append(row)
    return out


def _figures(answers: Sequence[tuple[Line, Result]]) -> dict[str, Any]:
    """The figures of one match and kind; questions about one image are one cluster."""
    results = [result for _, result in answers]
    judged = [result for result in results if result.refused is not None]
    far = [line["distance"] for line, _ in answers if line["distance"] is not None]
    out: dict[str, Any] = {"count": len(judged), "refused": None, "interval": [0.0, 1.0]}
    if judged:
        verdicts = [bool(result.refused) for result in judged]
        found = share(verdicts, [result.cluster for result in judged])
        out |= {"refused": found.value, "interval": list(found.interval)} | independence(judged)
    out["empty"] = sum(result.empty for result in results)
    out["no_verdict"] = len(results) - len(judged)
    for name in COSINES:
        cosines = [line[name] for line, _ in answers if line[name] is not None]
        out[name] = np.mean(cosines, axis=0).round(4).tolist() if cosines else None
    out["distance"] = round(float(np.mean(far)), 4) if far else None
    return out
