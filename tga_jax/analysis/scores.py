"""Loss, per-layer cosines and guide loss of every sample, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tga_jax.alignment import guide
from tga_jax.alignment.guide import GuideConfig, GuideStates
from tga_jax.data.example import Example
from tga_jax.models.llava import Llava, Params
from tga_jax.parallel.sharding import replicated
from tga_jax.run.inference_batches import Batcher, InferenceBatch
from tga_jax.training.metrics import Progress
from tga_jax.training.objective import has_answer, has_terms
from tga_jax.training.passes import Batch, caption_pass, forward

Array = jax.Array


class Scorer:
    """Scores samples in batches; with centring, the captions' mean is taken over all of them."""

    def __init__(
        self,
        llava: Llava,
        guide: GuideConfig,
        batcher: Batcher,
        encode: Callable[[int], Example],
        *,
        batch_size: int,
        image_dir: Callable[[int], Path],
        title: str = "score",
    ) -> None:
        """Nothing is computed yet.

        Args:
            llava: the model.
            guide: whose loss is wanted, and whether states are centred.
            batcher: makes batches for the model.
            encode: number of a sample -> example.
            batch_size: of samples.
            image_dir: number of a sample -> its image folder.
            title: names the lines of progress; "": there are none.
        """
        self._title = title
        self._guide, self._decoder = guide, llava.config.decoder
        self._batcher, self._encode, self._image_dir = batcher, encode, image_dir
        self._batch_size = batch_size
        whole = replicated(batcher.mesh)
        self._forward = jax.jit(
            lambda p, b, mean: score_batch(llava, p, b, mean, guide), out_shardings=whole
        )
        self._captions = jax.jit(
            lambda p, b: caption_sums(llava, p, b, answers=guide.answers), out_shardings=whole
        )

    def score(
        self, rows: Sequence[int], total: int, params: Params
    ) -> Iterator[list[dict[str, Any]]]:
        """Yields finished rows, a batch at a time.

        Args:
            rows: numbers of the samples to score, best sorted by length.
            total: how many samples there are, over which captions are centred.
            params: nested parameters.
        """
        mean = self._mean(params, total)
        progress, done = Progress(self._title, len(rows)), 0
        for batch in self._batches(rows):
            out = jax.device_get(self._forward(params, batch.arrays, mean))
            yield [
                self._line(row, example.id, {k: v[..., i] for k, v in out.items()})
                for i, (row, example) in enumerate(zip(batch.rows, batch.examples, strict=True))
            ]
            done += len(batch.rows)
            progress.show(done)

    def _batches(self, rows: Sequence[int]) -> Iterator[InferenceBatch]:
        size = self._batch_size
        return self._batcher.batches(rows, self._encode, batch_size=size, image_dir=self._image_dir)

    def _mean(self, params: Params, total: int) -> Array:
        """Mean caption states of all samples that have one; 0 uncentred.

        float32[kinds, layers, D]: over the caption, and where the answer term is on before the
        answer.
        """
        kinds = 1 + self._guide.answers
        summed = np.zeros((kinds, self._decoder.layers, self._decoder.width), np.float32)
        count = np.zeros(kinds)
        if self._guide.center != "none":
            for batch in self._batches(range(total)):
                valid = np.arange(batch.arrays["tokens"].shape[0]) < len(batch.rows)
                part, number = self._captions(params, batch.arrays | {"valid": jnp.array(valid)})
                summed, count = summed + np.asarray(part), count + np.asarray(number)
        return jnp.array(summed / np.maximum(count, 1)[:, None, None], jnp.float32)

    def _line(self, row: int, sample: str, out: dict[str, np.ndarray]) -> dict[str, Any]:
        line: dict[str, Any] = {
            "row": row,
            "id": sample,
            "nll": float(out["nll"]),
            "tokens": int(out["tokens"]),
        }
        for name, present in (
            ("image_caption_cos", out["has_pair"]),
            ("retrieved_caption_cos", out["has_hinge"]),
        ):
            line[name] = out[name].tolist() if present else None
        if self._guide.center != "none":
            centred = out["image_caption_cos_centred"].tolist()
            line["image_caption_cos_centred"] = centred if out["has_pair"] else None
        guided = self._guide.active and out["has_pair"]
        line["guide"] = float(out["guide"]) if guided else None
        return line


def score_batch(
    model: Llava, params: Any, batch: Batch, means: Array, cfg: GuideConfig
) -> dict[str, Array]:
    """Figures of every sample, arrays of [..., B].

    `means` are the mean caption states, float32[kinds, layers, D], or 0 if uncentred.
    nll is the sum over the answer's tokens; the cosines are of the raw states of every layer;
    guide is the sample's weighted guide loss as config.guide says, at t = 0.
    """
    passes = forward(model, params, batch, guided=True, ce_chunk=0, answers=cfg.answers)
    assert passes.states is not None
    pair, hinge = has_terms(batch, None)
    raw = passes.states
    centred = guide.center(raw, means[0])
    guided: GuideStates = jax.tree.map(lambda s: s[jnp.array(cfg.layers)], centred)
    out = {
        "nll": jnp.sum(passes.nll, axis=1),
        "tokens": jnp.sum(batch["labels"][:, 1:] >= 0, axis=1),
        "has_pair": pair,
        "has_hinge": hinge,
        "image_caption_cos": guide.safe_cosine(raw.image, raw.caption),
        "retrieved_caption_cos": guide.safe_cosine(raw.retrieved, raw.caption),
        "image_caption_cos_centred": guide.safe_cosine(centred.image, centred.caption),
    }
    if cfg.active:
        terms = guide.guide_terms(guided, form=cfg.form, progress=jnp.float32(0))
        out["guide"] = cfg.pair_weight * terms.pair + cfg.hinge_weight * jnp.where(
            hinge, terms.hinge, 0.0
        )
    if passes.answers is not None:
        chosen = jnp.array(cfg.answer_layers)
        answers = guide.center(passes.answers, means[1])
        similar = guide.answer_terms(jax.tree.map(lambda s: s[chosen], answers))
        own = jnp.where(has_answer(batch), similar, 0.0)
        out["guide"] += cfg.answer_weight * own
    return out


def caption_sums(model: Llava, params: Any, batch: Batch, *, answers: bool) -> tuple[Array, Array]:
    """Sums and numbers of the caption states: float32[kinds, layers, D], int32[kinds]."""
    names = ["caption_span", *["caption_answer_span"] * answers]
    has = [has_terms(batch, None)[0], *[has_answer(batch)] * answers]
    chosen = jnp.stack(has) & batch["valid"]
    states = caption_pass(model, params, batch, names)
    # As `guide.caption_sum`: no device may round these products.
    full = jax.lax.Precision.HIGHEST
    total = jnp.einsum("lbnd,nb->nld", states, chosen.astype(jnp.float32), precision=full)
    return total, jnp.sum(chosen, axis=1)
