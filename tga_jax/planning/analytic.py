"""A plan without a compiler, for GPUs: the traced step and its arguments are added up.

Memory: the state's shards exactly; what else the traced step holds at once
(`planning/live_memory`), taken as cut evenly over the devices; and on several devices the gathered
weights of two blocks, the embedding and the head. Links: under fsdp all weights are gathered for
the forward pass and for the backward pass, those up to the last guided layer for each caption pass,
and the gradients are reduced and scattered, a micro-batch each. Both in the compute dtype. A
compiler may do better or worse.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tga_jax.models.quantised import parameter_count
from tga_jax.planning.abstract import abstract_stage, start_state
from tga_jax.planning.compile import STEPS, Choice
from tga_jax.planning.live_memory import peak_bytes
from tga_jax.planning.synthetic import batch_structs
from tga_jax.planning.topology import Topology, abstract_mesh
from tga_jax.run.stage import Stage
from tga_jax.training.flops import count_flops
from tga_jax.training.step import TrainState


def analyse(config: ConfigDict, topology: Topology, choice: Choice, folder: Path) -> dict[str, Any]:
    """The analytic figures of one way to run a stage."""
    mesh, remat = abstract_mesh(topology, choice.mesh), choice.remat
    stage = abstract_stage(
        config, choice.stage, STEPS, workdir=folder.parent, mesh=mesh, remat=remat, platform=None
    )
    state = start_state(stage, config)
    whole = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    batch = batch_structs(choice.shape, stage.llava.config, None)
    jaxpr = jax.jit(stage.step()).trace(whole, batch).jaxpr
    held = state_bytes(state)
    others = max(peak_bytes(jaxpr) - _whole_bytes(whole), 0)
    return {
        "method": "analytic",
        "bytes_per_device": math.ceil(
            held + others / topology.count + _gathered(state, config, topology)
        ),
        "state_bytes_per_device": held,
        "collectives": _collectives(
            stage, state, choice, topology, jnp.dtype(config.dtype).itemsize
        ),
        "network_bytes": 0.0,  # one board
        "memory_traffic_bytes": None,
        "flops": dataclasses.asdict(count_flops(jaxpr)),
        "error": None,
        "compile_seconds": None,
    }


def state_bytes(state: TrainState) -> int:
    """Bytes of parameters and optimizer that one device holds; shapes with shardings are enough."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )


def _whole_bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _gathered(state: TrainState, config: ConfigDict, topology: Topology) -> int:
    """Weights that exist whole beside the shards."""
    if topology.count == 1:
        return 0
    total = 0
    for path, leaf in state.flat_params.items():
        if path.startswith("decoder/blocks/"):
            total += 2 * parameter_count(path, leaf) // leaf.shape[0]
        elif path in ("decoder/embed", "decoder/head"):
            total += math.prod(leaf.shape)
    return total * jnp.dtype(config.dtype).itemsize


def _collectives(
    stage: Stage, state: TrainState, choice: Choice, topology: Topology, size: int
) -> dict[str, float]:
    shards = topology.count
    if shards == 1:
        return {}
    every = sum(parameter_count(*item) for item in state.flat_params.items()) * size
    trained = sum(math.prod(leaf.shape) for leaf in state.trained.values()) * size
    guide, passes = stage.objective.guide, 2.0
    if guide.active:
        twice = guide.centers_by_step and choice.shape.accumulate > 1  # `step_captions`
        passes += (1 + twice) * guide.blocks / stage.llava.config.decoder.layers
    part = choice.shape.accumulate * (shards - 1) / shards
    return {"all-gather": passes * every * part, "reduce-scatter": trained * part}
