"""A stage's step and its arguments as shapes alone: no weights, no data, no devices needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tga_jax.alignment.guide import RunningMean
from tga_jax.errors import UserError
from tga_jax.hf.config import read_decoder_config, read_vision_config
from tga_jax.hf.processor import CLIP_MEAN, CLIP_STD
from tga_jax.hf.source import checkpoint_shapes
from tga_jax.models.config import LlavaConfig
from tga_jax.models.llava import Llava, PixelNorm
from tga_jax.parallel.sharding import replicated
from tga_jax.planning.architectures import HUB, MODELS
from tga_jax.run.guide import guide_config
from tga_jax.run.model import as_configured, compute_of
from tga_jax.run.stage import Stage
from tga_jax.run.weights import leaves_of
from tga_jax.training.state import opt_shardings
from tga_jax.training.step import TrainState

# A plan's arithmetic does not depend on them.
_CLIP_NORM = PixelNorm(CLIP_MEAN, CLIP_STD)


def abstract_stage(
    config: ConfigDict,
    name: str,
    steps: int,
    *,
    workdir: Path,
    mesh: Any,
    remat: str,
    platform: str | None,
) -> Stage:
    """A stage of a model that is known by its shapes.

    Args:
        config: the whole configuration.
        name: "pretrain" or "finetune".
        steps: how many it has.
        workdir: where job `analyze` may have left the safety layers.
        mesh: any devices, also abstract ones.
        remat: the policy, in place of config.model.remat.
        platform: decides the attention; None: plain products, which show all FLOPs.
    """
    llava = abstract_model(config, remat=remat, platform=platform)
    guide = guide_config(config, workdir, llava.config.decoder.layers, name)
    return Stage(config, name, steps, llava=llava, mesh=mesh, guide=guide)


def abstract_model(config: ConfigDict, *, remat: str, platform: str | None) -> Llava:
    """The Flax modules of a model that is known by its shapes."""
    shapes = as_configured(model_shapes(config), config)
    return Llava(shapes, _CLIP_NORM, compute_of(config, remat, platform))


def model_shapes(config: ConfigDict) -> LlavaConfig:
    """The shapes of config.plan.model, or of config.model.

    Raises:
        UserError: neither names a known model or a folder with a config.json.
    """
    model, name = config.model, config.plan.model
    if name:
        if name not in MODELS:
            known = ", ".join(MODELS)
            raise UserError(
                f"config.plan.model={name!r} must be one of {known}, or '' for config.model"
            )
        return MODELS[name]
    named = model.checkpoint or f"{model.vision}+{model.llm}"
    if named in HUB:
        shapes = MODELS[HUB[named]]
    elif model.checkpoint and Path(model.checkpoint).is_dir():
        return checkpoint_shapes(Path(model.checkpoint))
    elif model.vision and model.llm and all(Path(p).is_dir() for p in (model.vision, model.llm)):
        decoder = read_decoder_config(Path(model.llm))
        vision = read_vision_config(Path(model.vision))
        shapes = LlavaConfig(vision, decoder, image_token=decoder.vocab - 1)
    else:
        raise UserError(
            f"config.model names {named!r}, of which no shapes are known here: set "
            f"config.plan.model to one of {', '.join(MODELS)}, or give folders with config.json"
        )
    if model.checkpoint:
        return shapes
    return dataclasses.replace(
        shapes,
        projector=model.projector,
        feature_layer=model.feature_layer,
        feature_select=model.feature_select,
    )


def start_state(stage: Stage, config: ConfigDict) -> TrainState:
    """Shapes, dtypes and shardings of `training.state.new_state`'s result."""
    mesh, factors = stage.mesh, stage.factors
    leaves = leaves_of(config, stage.llava, mesh, factors)
    trained = {p: x for p, x in leaves.items() if factors[p] is not None}
    frozen = {p: x for p, x in leaves.items() if factors[p] is None}
    moments = jax.eval_shape(stage.optimizer.init, trained)
    # Only shapes and shardings of the parameters are read.
    opt_state = _placed(moments, opt_shardings(moments, trained, mesh))
    objective, running = stage.objective, None
    if objective.guide.active and objective.guide.center == "running":
        width, layers = stage.llava.config.decoder.width, len(objective.guide.layers)
        running = jax.eval_shape(lambda: RunningMean.empty(layers, width))
    step, running = _placed((jax.ShapeDtypeStruct((), jnp.int32), running), replicated(mesh))
    return TrainState(step, trained, frozen, opt_state, running)  # type: ignore[arg-type]


def _placed(tree: Any, sharding: Any) -> Any:
    """Shapes with shardings: one for all, or a tree of them."""
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, tree)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, sharding
    )
