"""Packed rows against the same samples in rows of their own: losses, gradients, guide terms."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tga_jax.alignment.guide import GuideConfig, RunningMean
from tga_jax.data.batches import balanced_rows, collate
from tga_jax.data.example import Example
from tga_jax.training.objective import Objective, count_terms, loss_metrics, loss_sums, total_loss

KINDS = ("full", "no_retrieved", "text", "full", "no_caption", "tox", "full", "text")
SETTINGS = {"pad_id": tiny.PAD, "buckets": (24, 96), "caption_buckets": (8,), "accumulate": 1}


def _examples() -> tuple[list[Example], dict[str, np.ndarray]]:
    """Samples of every kind with different lengths, and their images."""
    rows = tiny.batch(KINDS, seed=4)

    def span(name: str, i: int) -> tuple[int, int] | None:
        start, end = rows[name][i].tolist()
        return (start, end) if end else None

    examples = []
    for i, kind in enumerate(KINDS):
        length, caption = rows["segments"][i].sum(), rows["caption_segments"][i].sum()
        image = span("image_span", i)
        examples.append(
            Example(
                id=f"{i}-{kind}",
                tokens=rows["tokens"][i, :length],
                labels=rows["labels"][i, :length],
                image_spans=(image,) if image else (),
                retrieved_span=span("retrieved_span", i),
                caption_tokens=rows["caption_tokens"][i, :caption],
                caption_span=span("caption_span", i),
                images=("x",) if image else (),
                tox=kind == "tox",
                truncated_tokens=0,
            )
        )
    return examples, rows["images"]


def _batch(packing: int) -> dict[str, np.ndarray]:
    examples, images = _examples()
    order = balanced_rows([len(e.tokens) for e in examples], packing)
    chosen = [examples[i] for i in order]
    arrays = {k: v[0] for k, v in collate(chosen, packing=packing, **SETTINGS).items()}
    # Of a row its samples' images one after the other, as the loader has them.
    rows = [order[i : i + packing] for i in range(0, len(order), packing)]
    shown = np.zeros((len(rows), packing, *images.shape[2:]), np.uint8)
    for row, samples in enumerate(rows):
        of_row = [images[i, 0] for i in samples if examples[i].images]
        shown[row, : len(of_row)] = of_row if of_row else shown[row, :0]
    return arrays | {"images": shown}


@functools.partial(jax.jit, static_argnames="objective")
def _run(params: Any, rows: Any, objective: Objective, running: RunningMean | None) -> Any:
    counts = count_terms({k: v[None] for k, v in rows.items()}, objective, running)

    def loss(params: Any) -> Any:
        sums = loss_sums(
            tiny.model(), params, rows, objective=objective, progress=jnp.float32(0.25),
            running=running,
        )  # fmt: skip
        return total_loss(sums, counts, objective.guide), sums

    grads, sums = jax.grad(loss, has_aux=True)(params)
    return loss_metrics(sums, counts, objective.guide), counts, sums.captions, grads


@pytest.mark.parametrize(
    ("packing", "form", "center"),
    [
        (4, "paper", "batch"),
        pytest.param(2, "released", "running", marks=pytest.mark.slow),
        pytest.param(4, "none", "none", marks=pytest.mark.slow),
    ],
)
def test_packed_equals_unpacked(packing: int, form: str, center: str) -> None:
    cfg = GuideConfig(form, (0, 2), center=center, pair_weight=0.7, hinge_weight=1.3)
    objective, running = Objective(cfg, ce_chunk=8), None
    if center == "running":
        total = np.random.default_rng(1).normal(size=(2, tiny.WIDTH)).astype(np.float32)
        running = RunningMean(jnp.array(total), jnp.float32(0.5))
    plain, packed = _batch(1), _batch(packing)
    assert len(packed["tokens"]) == len(KINDS) // packing
    expected = _run(tiny.params(), plain, objective, running)
    found = _run(tiny.params(), packed, objective, running)
    if form == "paper":
        assert (int(expected[1]["guide_pair"]), int(expected[1]["guide_hinge"])) == (4, 3)

    def close(a: Any, b: Any) -> None:
        # Some gradients are zero but for rounding, as those of the vision tower's key biases.
        scale = float(np.max(np.abs(a), initial=1e-2))
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=2e-5 * scale)

    jax.tree.map(close, expected, found)


def test_without_segments_or_positions_of_their_own_samples_would_disturb_each_other() -> None:
    objective, packed = Objective(GuideConfig("paper", (0, 2))), _batch(4)
    losses = []
    for changes in (
        {},
        {"segments": (packed["segments"] > 0).astype(np.int32)},
        {"positions": np.broadcast_to(np.arange(96, dtype=np.int32), packed["positions"].shape)},
    ):
        rows = packed | changes
        losses.append(float(_run(tiny.params(), rows, objective, None)[0]["loss"]))
    assert abs(losses[1] - losses[0]) > 1e-3
    # Rotary attention sees differences of positions only: moved as a whole, a sample is the same.
    assert abs(losses[2] - losses[0]) < 1e-4
