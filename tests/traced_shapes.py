"""Trace the core with its array annotations checked: run by test_shapes in a process of its own.

The import hook has to be there before the modules are. Tracing costs no compilation.
"""

from __future__ import annotations

from jaxtyping import TypeCheckError, install_import_hook

CHECKED = (
    "tga_jax.models",
    "tga_jax.alignment",
    "tga_jax.inference",
    "tga_jax.training.objective",
    "tga_jax.training.cross_entropy",
)
install_import_hook(CHECKED, "beartype.beartype")

import functools  # noqa: E402
from typing import Any  # noqa: E402

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from tests import tiny  # noqa: E402
from tga_jax.alignment.guide import GuideConfig, RunningMean, safe_cosine  # noqa: E402
from tga_jax.inference.generate import Decoding, make_generate  # noqa: E402
from tga_jax.models.attention import attend  # noqa: E402
from tga_jax.models.clip import Clip  # noqa: E402
from tga_jax.models.config import ClipConfig, TextConfig  # noqa: E402
from tga_jax.training.objective import (  # noqa: E402
    Objective,
    count_terms,
    loss_metrics,
    loss_sums,
    total_loss,
)


def objective(center: str, chunk: int) -> None:
    """The gradient of a guided batch, centred in this way."""
    cfg = GuideConfig("paper", (0, 2), center=center, answer_weight=1.0, answer_layers=(1,))
    goal = Objective(cfg, ce_chunk=chunk)
    running = RunningMean.empty(2, tiny.WIDTH) if center == "running" else None

    def step(params: Any, rows: Any, running: RunningMean | None) -> Any:
        counts = count_terms({k: v[None] for k, v in rows.items()}, goal, running)

        def loss(params: Any) -> Any:
            sums = loss_sums(
                tiny.model(), params, rows, objective=goal, progress=jnp.float32(0), running=running
            )
            return total_loss(sums, counts, cfg), sums

        grads, sums = jax.grad(loss, has_aux=True)(params)
        if running is not None:
            running = running.update(sums.captions.pair.total, sums.captions.pair.count, 0.9)
            grads = grads, running.mean()
        return grads, loss_metrics(sums, counts, cfg)

    jax.jit(step).trace(tiny.params(), tiny.batch(), running)


def generation() -> None:
    """Sampled answers with their refusal margins."""
    rows, decoding = tiny.batch(), Decoding(3, (2,), 0, temperature=1.0, top_p=0.9)
    generate = make_generate(tiny.model(), decoding, apologies=(7, 8))
    keys = jax.random.split(jax.random.key(0), len(rows["tokens"]))
    generate.trace(tiny.params(), rows["tokens"], rows["segments"], rows["images"], keys)


def clip() -> None:
    """Cosines of images and texts."""
    text = TextConfig(vocab=32, length=8, width=16, layers=1, heads=2, ffn=32, end_token=2)
    model = Clip(ClipConfig(tiny.CONFIG.vision, text, embedding=12), tiny.NORM)

    def cosines(key: Any, images: Any, tokens: Any) -> Any:
        params = jax.tree.map(jnp.asarray, nn.meta.unbox(model.init(key)))
        embedded = model.embed_images(params, images)
        return model.logits(params, embedded, model.embed_texts(params, tokens, tokens > 0))

    images = jnp.zeros((3, tiny.SIDE, tiny.SIDE, 3), jnp.uint8)
    jax.jit(cosines).trace(jax.random.key(0), images, jnp.ones((2, 8), jnp.int32))


def refused(call: Any, *shapes: tuple[int, ...]) -> bool:
    """Whether arrays of these shapes are refused."""
    try:
        jax.eval_shape(call, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    except TypeCheckError:
        return True
    return False


if __name__ == "__main__":
    for center, chunk in (("none", 0), ("batch", 8), ("running", 8)):
        objective(center, chunk)
    generation()
    clip()
    assert refused(safe_cosine, (2, 3, 4), (2, 3, 5))
    assert not refused(safe_cosine, (2, 3, 4), (2, 3, 4))
    for backend in ("xla", "blockwise"):
        run = functools.partial(attend, visible=None, backend=backend)
        assert refused(run, (2, 5, 4, 8), (2, 5, 2, 8), (2, 6, 2, 8)), backend
