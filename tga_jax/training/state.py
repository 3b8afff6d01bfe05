"""The train state of a stage: which dtype and sharding every leaf has, and its start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from tga_jax.alignment.guide import RunningMean
from tga_jax.models.llava import Llava
from tga_jax.models.quantised import is_quantised
from tga_jax.parallel.sharding import flat_boxed, param_shardings, replicated
from tga_jax.training.objective import Objective
from tga_jax.training.step import TrainState

Leaves = dict[str, jax.ShapeDtypeStruct]


def param_leaves(
    model: Llava,
    mesh: Mesh,
    *,
    dtype: str,
    trained_dtype: str = "float32",
    factors: Mapping[str, float | None] | None = None,
) -> Leaves:
    """Shape, dtype and sharding of every parameter by path.

    Args:
        model: the model.
        mesh: where the parameters live.
        dtype: of frozen parameters; those of quantised kernels have their own.
        trained_dtype: of trained ones.
        factors: learning-rate factors of a stage; None: nothing is trained.
    """
    boxed = model.abstract_params()
    shardings = param_shardings(boxed, mesh)
    factors = factors or {}

    def dtype_of(path: str, leaf: jax.ShapeDtypeStruct) -> jnp.dtype:
        if is_quantised(path):
            return leaf.dtype
        return jnp.dtype(dtype if factors.get(path) is None else trained_dtype)

    return {
        path: jax.ShapeDtypeStruct(
            box.value.shape, dtype_of(path, box.value), sharding=shardings[path]
        )
        for path, box in flat_boxed(boxed).items()
    }


def random_params(
    model: Llava, leaves: Leaves, *, seed: int, projector_scale: float = 1.0
) -> dict[str, jax.Array]:
    """Freshly initialised parameters for these leaves only.

    `projector_scale` multiplies a new projector's last kernel, and so what it gives at first.
    """
    last = "linear_1" if model.config.projector == "linear" else "linear_2"
    scales = {f"projector/{last}/kernel": projector_scale}

    # Tracing the other parts takes a second.
    parts = {path.split("/")[0] for path in leaves}

    def init() -> dict[str, jax.Array]:
        params = flatten_dict(nn.meta.unbox(model.init(jax.random.key(seed), parts)), sep="/")
        return {
            path: (params[path] * scales.get(path, 1.0)).astype(leaf.dtype)
            for path, leaf in leaves.items()
        }

    return jax.jit(init, out_shardings={p: leaf.sharding for p, leaf in leaves.items()})()


def new_state(
    params: dict[str, jax.Array],
    *,
    factors: Mapping[str, float | None],
    optimizer: optax.GradientTransformation,
    objective: Objective,
    width: int,
    mesh: Mesh,
) -> TrainState:
    """The state before the first step; optimizer state exists for trained parameters only."""
    trained = {p: x for p, x in params.items() if factors[p] is not None}
    frozen = {p: x for p, x in params.items() if factors[p] is None}
    abstract = jax.eval_shape(optimizer.init, trained)
    placed = opt_shardings(abstract, trained, mesh)
    opt_state = jax.jit(optimizer.init, out_shardings=placed)(trained)
    running = None
    if objective.guide.active and objective.guide.center == "running":
        running = RunningMean.empty(len(objective.guide.layers), width)
    whole = replicated(mesh)
    step, running = jax.device_put((jnp.int32(0), running), whole)
    return TrainState(step, trained, frozen, opt_state, running)


def abstract_state(state: TrainState) -> TrainState:
    """Shapes, dtypes and shardings of a state, for restoring into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def opt_shardings(
    abstract: Any, trained: Mapping[str, jax.Array | jax.ShapeDtypeStruct], mesh: Mesh
) -> Any:
    """The optimizer state's shardings: moments as their parameters, counters replicated."""

    def sharding(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Any:
        keys = [str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey)]
        name = keys[-1] if keys else ""
        if name in trained and leaf.shape == trained[name].shape:
            return trained[name].sharding
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(sharding, abstract)
