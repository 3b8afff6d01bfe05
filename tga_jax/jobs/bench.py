"""Job `bench`: the real train step on made-up rows, with the guide and without, in turn.

Both kinds run in one process, a step of each after the other, so that what else the machine does
meets both alike; they share one state, so that memory is that of a training run. Weights are
random: time does not depend on them. `bench/bench.json` has medians over config.bench.steps timed
steps of each; every step is waited for.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from tga_jax.errors import UserError
from tga_jax.files import digest, write_json
from tga_jax.parallel.sharding import batch_sharding, batch_shards
from tga_jax.planning.abstract import AbstractContext
from tga_jax.planning.architectures import MODELS
from tga_jax.planning.synthetic import BatchShape, made_up_batch
from tga_jax.run.context import STAGES, Context
from tga_jax.run.stage import Stage, packing_of
from tga_jax.training.flops import Flops, count_flops
from tga_jax.training.state import new_state, param_leaves, random_params
from tga_jax.training.step import TrainState
from tga_jax.training.throughput import peak_flops, peak_memory_bytes


def run(context: Context) -> None:
    """Time config.bench.stage."""
    bench, path = context.config.bench, context.workdir / "bench" / "bench.json"
    settings = settings_digest(context)
    if path.exists() and json.loads(path.read_text())["settings"] == settings:
        context.say(f"finished before: {path}; delete it to measure again")
        return
    if bench.model:
        context = _of_shapes(context, bench.model)
    shape = batch_shape(context)
    write_json(path, {"settings": settings} | described(context, shape) | measured(context, shape))


def measured(context: Context, shape: BatchShape) -> dict[str, Any]:
    """Time both kinds of step in turn."""
    bench = context.config.bench
    batch = made_up_batch(shape, context.model.config, seed=context.config.seed)
    placed = jax.device_put(batch, batch_sharding(context.mesh, leading=1))
    stages = {"guide": _stage(context), "lm_only": _stage(_without_guide(context))}
    state = random_state(stages["guide"])
    kinds = {name: Timed(stage, state, placed) for name, stage in stages.items()}
    for turn in range(bench.warmup + bench.steps):
        for kind in kinds.values():
            state = kind.step(state, timed=turn >= bench.warmup)
        context.say(f"turn {turn + 1} of {bench.warmup + bench.steps}")
    guide, lm_only = (kinds[name].result(shape) for name in ("guide", "lm_only"))
    return {
        "guide": guide,
        "lm_only": lm_only,
        "guide_over_lm_only_seconds": guide["step_seconds"] / lm_only["step_seconds"],
        "guide_over_lm_only_flops": guide["model_flops_per_step"] / lm_only["model_flops_per_step"],
        "peak_memory_bytes": peak_memory_bytes(),
    }


def described(context: Context, shape: BatchShape) -> dict[str, Any]:
    """What was measured, and on what."""
    config = context.config
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "mesh": dict(context.mesh.shape),
        "stage": config.bench.stage,
        "dtype": config.dtype,
        "remat": config.model.remat,
        **dataclasses.asdict(shape),
    }


def settings_digest(context: Context) -> str:
    """What a measurement depends on, as a short hash."""
    config = context.config
    keys = {"bench", "model", "dtype", "trained_dtype", "moments", "guide", "lora", "mesh"}
    keys |= {config.bench.stage, "compiler_options"}
    chosen = {key: v for key, v in config.to_dict().items() if key in keys}
    chosen["packing"] = config.data.packing
    return digest(chosen | {"device": jax.devices()[0].device_kind, "count": jax.device_count()})


def batch_shape(context: Context) -> BatchShape:
    """The batch that config.bench describes.

    Raises:
        UserError: it does not divide, or a number is not positive.
    """
    bench = context.config.bench
    if bench.stage not in STAGES:
        raise UserError(f"config.bench.stage={bench.stage!r}: one of {', '.join(STAGES)}")
    for key, least in (("steps", 1), ("warmup", 1), ("batch_size", 0)):
        if bench[key] < least:
            raise UserError(f"config.bench.{key}={bench[key]}: must be {least} or more")
    stage, ways = context.config[bench.stage], batch_shards(context.mesh)
    size, packing = bench.batch_size or stage.batch_size, packing_of(context.config)
    shape = BatchShape(size, stage.accumulate, bench.length, bench.caption_length, packing)
    if not shape.divides(ways):
        packed = f" times config.data.packing={packing}" if packing > 1 else ""
        raise UserError(
            f"config.bench.batch_size={size} must be a multiple of config.{bench.stage}.accumulate="
            f"{stage.accumulate}{packed} times the {ways} batch shards of the mesh"
        )
    return shape


class Timed:
    """A stage's jitted step, run step by step."""

    def __init__(self, stage: Stage, state: TrainState, batch: dict[str, jax.Array]) -> None:
        self._batch, self._guided = batch, stage.objective.guide.active
        own = state if self._guided else dataclasses.replace(state, running=None)
        self._step = stage.jitted(own)
        self.flops: Flops = count_flops(self._step.trace(own, batch).jaxpr)
        self._seconds: list[float] = []

    def step(self, state: TrainState, *, timed: bool) -> TrainState:
        """Run one step to its end."""
        running = state.running  # the mean that only a guided step has and moves
        own = state if self._guided else dataclasses.replace(state, running=None)
        began = time.perf_counter()
        own, metrics = self._step(own, self._batch)
        jax.block_until_ready((own, metrics))
        if timed:
            self._seconds.append(time.perf_counter() - began)
        return own if self._guided else dataclasses.replace(own, running=running)

    def result(self, shape: BatchShape) -> dict[str, Any]:
        """Figures of the timed steps."""
        seconds, peak = statistics.median(self._seconds), peak_flops(jax.devices()[0])
        devices = jax.device_count()
        per_second = self.flops.model / seconds
        return {
            "step_seconds": seconds,
            "step_seconds_min": min(self._seconds),
            "step_seconds_max": max(self._seconds),
            "tokens_per_second": shape.tokens / seconds,
            "images_per_second": shape.batch_size / seconds,
            "model_flops_per_step": self.flops.model,
            "hardware_flops_per_step": self.flops.hardware,
            "model_flops_per_second": per_second,
            "mfu": None if peak is None else per_second / (peak * devices),
            "recompilations": self._step._cache_size() - 1,
        }


def random_state(stage: Stage) -> TrainState:
    """A new state with random weights."""
    context = stage.context
    leaves = param_leaves(
        context.model,
        context.mesh,
        dtype=context.config.dtype,
        trained_dtype=context.config.trained_dtype,
        factors=stage.factors,
    )
    return new_state(
        random_params(context.model, leaves, seed=context.config.seed),
        factors=stage.factors,
        optimizer=stage.optimizer,
        objective=stage.objective,
        width=context.model.config.decoder.width,
        mesh=context.mesh,
    )


def _stage(context: Context) -> Stage:
    bench = context.config.bench
    return Stage(context, bench.stage, 2 * (bench.warmup + bench.steps))


def _of_shapes(context: Context, name: str) -> Context:
    """The same run with a known model's shapes in place of config.model's."""
    if name not in MODELS:
        raise UserError(f"config.bench.model={name!r}: one of {', '.join(MODELS)}, or ''")
    config = ConfigDict(context.config.to_dict())
    config.plan.model = name
    return AbstractContext(
        config.lock(),
        context.workdir,
        context.job,
        mesh=context.mesh,
        remat=config.model.remat,
        platform=jax.devices()[0].platform,
    )


def _without_guide(context: Context) -> Context:
    """The same run with language modelling alone; model and mesh are shared."""
    config = ConfigDict(context.config.to_dict())
    config.guide.form = "none"
    other = Context(config.lock(), context.workdir, context.job)
    other.__dict__ |= {"model": context.model, "mesh": context.mesh}  # its cached properties
    return other
