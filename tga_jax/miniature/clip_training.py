"""Contrastive training of a small CLIP on drawn images (arXiv 2103.00020).

Letters: B pairs a step, T tokens, E embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from tga_jax.miniature.base_models import from_scratch
from tga_jax.miniature.concepts import CONCEPTS, GROUPS
from tga_jax.miniature.draw import DrawSettings
from tga_jax.miniature.language import noun
from tga_jax.miniature.pair_store import (
    ATTRIBUTES,
    DrawnPairs,
    PairStore,
    Tokenise,
    draw_pairs,
)
from tga_jax.miniature.scene import SIZES
from tga_jax.models.clip import Clip
from tga_jax.parallel.sharding import replicated, shapes
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.metrics import MetricsLog, Progress
from tga_jax.training.optimizer import OptimizerConfig, make_optimizer
from tga_jax.training.state import abstract_state
from tga_jax.training.step import TrainState, nested

Array = jax.Array
Step = Callable[[TrainState, dict[str, Array]], tuple[TrainState, Array]]
MOST_LOGIT_SCALE = 4.6052  # log 100, as in CLIP
LOG_EVERY = 25


@dataclass(frozen=True)
class ClipTraining:
    """How the CLIP is trained; what the miniature run takes is `config.miniature.clip`."""

    seed: int
    pairs: int
    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    save_every: int
    draw_workers: int = 1


def train_clip(
    model: Clip,
    folder: Path,
    *,
    settings: ClipTraining,
    drawing: DrawSettings,
    tokenise: Tokenise,
    mesh: Mesh,
) -> dict[str, Array]:
    """Trains from random parameters, or goes on from the latest checkpoint in `folder`.

    Returns:
        the parameters by flat path.
    """
    store = PairStore(
        seed=settings.seed,
        pairs=settings.pairs,
        batch_size=settings.batch_size,
        drawing=drawing,
        tokenise=tokenise,
        workers=settings.draw_workers,
    )
    checkpoints = Checkpoints(folder / "checkpoints", keep=1)
    try:
        return _train(model, folder, settings, store, checkpoints, mesh)
    finally:
        checkpoints.close()
        store.close()


def _train(
    model: Clip,
    folder: Path,
    settings: ClipTraining,
    store: PairStore,
    checkpoints: Checkpoints,
    mesh: Mesh,
) -> dict[str, Array]:
    optimizer, step = make_step(model, settings)
    state = _start(model, optimizer, settings.seed, mesh)
    if latest := checkpoints.latest_step():
        state = checkpoints.restore(latest, abstract_state(state)).state
    done = int(state.step)
    log, progress = (
        MetricsLog(folder, resume_step=done),
        Progress("clip", settings.steps, start=done),
    )
    losses: list[Array] = []
    for batch in _ahead(store, range(done, settings.steps), mesh):
        state, loss = step(state, batch)
        losses.append(loss)
        done += 1
        if done % LOG_EVERY == 0 or done == settings.steps:
            value, losses = float(np.mean(jax.device_get(losses))), []
            log.write(done, {"loss": value})
            progress.show(done, f"loss {value:.3f}")
        if done % settings.save_every == 0 or done == settings.steps:
            checkpoints.save(done, state, {})
    checkpoints.wait()
    log.close()
    return state.flat_params


def make_step(model: Clip, settings: ClipTraining) -> tuple[optax.GradientTransformation, Step]:
    """The optimizer, and the jitted (state, batch) -> (state, loss)."""
    cfg = OptimizerConfig(
        learning_rate=settings.learning_rate,
        steps=settings.steps,
        warmup_fraction=0.05,
        final_fraction=0.02,
        weight_decay=settings.weight_decay,
        b2=0.98,
    )
    boxed = jax.eval_shape(model.init, jax.random.key(0))
    factors = dict.fromkeys(shapes(boxed), 1.0)
    optimizer = make_optimizer(cfg, factors)

    def step(state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, Array]:
        loss, gradient = jax.value_and_grad(contrastive_loss)(state.trained, model, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        assert isinstance(trained, dict)
        trained["logit_scale"] = jnp.minimum(trained["logit_scale"], MOST_LOGIT_SCALE)
        step_done = replace(state, step=state.step + 1, trained=trained, opt_state=opt_state)
        return step_done, loss

    return optimizer, jax.jit(step, donate_argnums=0)


def contrastive_loss(params: Mapping[str, Array], model: Clip, batch: dict[str, Array]) -> Array:
    """CLIP's symmetric loss over the batch, and what a batch of many thousands would add to it.

    Every caption that is true of an image is a positive; several share the target equally, as in
    supervised contrastive learning (arXiv 2004.11362). In a small batch most captions are told
    apart by their colours and places, and what things are is learned very late. So each image is
    also compared with a caption for each concept, and with one for each colour, background, place,
    size and category, which once the concepts are known are learned as late. And as long as the
    captions of the concepts are all alike to the text tower, images learn nothing from them: two
    captions of each concept, most of which differ in their words, are to find each other.

    Args:
        params: by flat path.
        model: the CLIP.
        batch: as `PairStore` gives it.
    """
    tree = nested(dict(params))
    images = model.embed_images(tree, batch["images"])
    captions = model.embed_texts(tree, batch["tokens"])
    count, length = batch["name_tokens"].shape[1:]
    names = model.embed_texts(tree, batch["name_tokens"].reshape(2 * count, length))
    values = model.logits(tree, images, model.embed_texts(tree, batch["attribute_tokens"]))
    return (
        _contrast(model.logits(tree, images, captions), batch["true"])
        + _attributes(values, batch["attributes"])
        + _cross_entropy(model.logits(tree, images, names[:count]), batch["named"], axis=1)
        + _contrast(model.logits(tree, names[:count], names[count:]), jnp.eye(count))
    )


def _attributes(logits: Array, true: Array) -> Array:
    """Mean over the attributes, each a choice among its own values."""
    ends = np.cumsum([len(values) for _, values, _ in ATTRIBUTES])[:-1].tolist()
    parts = zip(jnp.split(logits, ends, axis=1), jnp.split(true, ends, axis=1), strict=True)
    losses = [_cross_entropy(values, target, axis=1) for values, target in parts]
    return jnp.mean(jnp.stack(losses))


def _contrast(logits: Array, true: Array) -> Array:
    """The mean of both directions."""
    return (_cross_entropy(logits, true, axis=1) + _cross_entropy(logits, true, axis=0)) / 2


def _cross_entropy(logits: Array, true: Array, *, axis: int) -> Array:
    """Softmax along `axis`; the target is shared equally by all that is true."""
    target = true / jnp.sum(true, axis=axis, keepdims=True)
    return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits, axis=axis), axis=axis))


def zero_shot(
    params: Mapping[str, Array],
    model: Clip,
    pairs: DrawnPairs,
    *,
    tokenise: Tokenise,
    batch_size: int = 250,
) -> dict[str, Any]:
    """Which concept's "a photo of a ..." each image is nearest to: accuracies.

    Args:
        params: by flat path.
        model: the CLIP.
        pairs: images; those with two objects are left out.
        tokenise: texts -> tokens.
        batch_size: images at a time.
    """
    tree = nested(dict(params))
    prompts = tokenise([f"a photo of {noun(concept.name)}" for concept in CONCEPTS])
    texts = np.asarray(model.embed_texts(tree, jnp.asarray(prompts)))
    embed = jax.jit(model.embed_images)
    one = pairs.scenes[:, 1] < 0
    images, scenes = pairs.images[one], pairs.scenes[one]
    images = np.concatenate(
        [
            np.asarray(embed(tree, images[i : i + batch_size]))
            for i in range(0, len(images), batch_size)
        ]
    )
    right = (images @ texts.T).argmax(axis=1) == scenes[:, 0]
    harmful = np.array([concept.harmful for concept in CONCEPTS])[scenes[:, 0]]
    groups = np.array([GROUPS.index(concept.group) for concept in CONCEPTS])[scenes[:, 0]]
    return {
        "pictures": len(right),
        "accuracy": _share(right),
        "harmful": _share(right[harmful]),
        **{g: _share(right[groups == i]) for i, g in enumerate(GROUPS)},
        **{s: _share(right[scenes[:, 5] == i]) for i, s in enumerate(SIZES)},
    }


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None


def dev_pairs(seed: int, count: int, drawing: DrawSettings) -> DrawnPairs:
    """Images of scenes that training never has."""
    return draw_pairs(seed + 1, 0, count, drawing, split="dev")


def _start(
    model: Clip, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh
) -> TrainState:
    def make() -> TrainState:
        params = flatten_dict(nn.meta.unbox(model.init(jax.random.key(seed))), sep="/")
        params = from_scratch(params)
        return TrainState(jnp.int32(0), params, {}, optimizer.init(params), None)

    return jax.jit(make, out_shardings=replicated(mesh))()


def _ahead(store: PairStore, steps: range, mesh: Mesh) -> Iterator[dict[str, Array]]:
    """Batches, the same on every device; the next one is prepared while a step runs."""
    sharding = replicated(mesh)
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(store.__getitem__, step) for step in steps[:2]]
        for step in steps:
            batch = waiting.pop(0).result()
            if step + 2 < steps.stop:
                waiting.append(pool.submit(store.__getitem__, step + 2))
            yield {name: jax.device_put(value, sharding) for name, value in batch.items()}
