"""Job `bench`: the real train step on made-up rows, with the guide and without, in turn.

Both kinds run in one process, a step of each after the other, so that what else the machine does
meets both alike; they share one state, so that memory is that of a training run. Weights are
random: time does not depend on them. `bench/bench.json` has medians over config.bench.steps timed
steps of each; every step is waited for.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tga_jax.config import STAGES
from tga_jax.errors import UserError, refuse_below
from tga_jax.files import digest, read_json, write_json
from tga_jax.html.formats import aligned
from tga_jax.models.llava import Llava
from tga_jax.parallel.devices import GIB
from tga_jax.parallel.mesh import mesh_of
from tga_jax.parallel.sharding import batch_sharding, batch_shards
from tga_jax.planning.abstract import abstract_model
from tga_jax.planning.architectures import MODELS
from tga_jax.planning.compile import STEP_ROOMS
from tga_jax.planning.synthetic import BatchShape, made_up_batch
from tga_jax.run.fingerprint import code_digest
from tga_jax.run.guide import guide_config
from tga_jax.run.job import Job
from tga_jax.run.model import open_model
from tga_jax.run.stage import Stage
from tga_jax.run.stage_data import packing_of
from tga_jax.run.weights import leaves_of
from tga_jax.training.flops import Flops, count_flops
from tga_jax.training.state import random_params
from tga_jax.training.step import TrainState
from tga_jax.training.throughput import peak_flops, peak_memory_bytes


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse a batch that does not divide over the mesh, and numbers that are not positive."""
    batch_shape(job.config, batch_shards(mesh_of(job.config.mesh)))


def run(job: Job) -> None:
    """Time the training step of config.bench.stage, and write bench/."""
    path = job.workdir / "bench" / "bench.json"
    settings = settings_digest(job.config)
    if path.exists() and read_json(path)["settings"] == settings:
        job.say(f"was finished before: {path}; delete it to measure again")
        return
    mesh = mesh_of(job.config.mesh)
    shape, llava = batch_shape(job.config, batch_shards(mesh)), model_of(job, mesh)
    found = described(job.config, mesh, shape) | measured(job, llava, mesh, shape)
    write_json(path, {"settings": settings} | found)
    job.say(f"{found['stage']} on {found['devices']} x {found['device']}:\n{bench_table(found)}")


def bench_table(found: Mapping[str, Any]) -> str:
    """Both kinds of step side by side, as lines for the terminal."""
    kinds = found["guide"], found["lm_only"]

    def row(name: str, key: str, form: str, scale: float = 1.0) -> tuple[str, ...]:
        values = [kind[key] for kind in kinds]
        return name, *("unknown" if v is None else format(v / scale, form) for v in values)

    table = [
        ("  a step", "with the guide", "without"),
        row("  seconds", "step_seconds", ".3f"),
        row("  tokens a second", "tokens_per_second", ",.0f"),
        row("  images a second", "images_per_second", ",.1f"),
        row("  TFLOP", "model_flops_per_step", ",.3g", 1e12),
        row("  MFU", "mfu", ".1%"),
    ]
    return f"{aligned(table)}\n  peak memory: {found['peak_memory_bytes'] / GIB:.1f} GiB"


def model_of(job: Job, mesh: Mesh) -> Llava:
    """The Flax modules of config.bench.model, or else of config.model."""
    config, name = ConfigDict(job.config.to_dict()), job.config.bench.model
    if not name:
        return open_model(job, mesh).llava
    if name not in MODELS:
        raise UserError(f"config.bench.model={name!r} must be one of {', '.join(MODELS)}, or ''")
    config.plan.model = name
    platform = jax.devices()[0].platform
    return abstract_model(config, remat=config.model.remat, platform=platform)


def measured(job: Job, llava: Llava, mesh: Mesh, shape: BatchShape) -> dict[str, Any]:
    """Time both kinds of step in turn."""
    config, bench = job.config, job.config.bench
    batch = made_up_batch(shape, llava.config, seed=config.seed)
    placed = jax.device_put(batch, batch_sharding(mesh, leading=1))
    guide = guide_config(config, job.workdir, llava.config.decoder.layers, bench.stage)
    guides = {"guide": guide, "lm_only": dataclasses.replace(guide, form="none")}
    steps = 2 * (bench.warmup + bench.steps)
    stages = {
        name: Stage(config, bench.stage, steps, llava=llava, mesh=mesh, guide=one)
        for name, one in guides.items()
    }
    state = random_state(stages["guide"], config)
    kinds = {name: Timed(stage, state, placed) for name, stage in stages.items()}
    for turn in range(bench.warmup + bench.steps):
        for kind in kinds.values():
            state = kind.step(state, timed=turn >= bench.warmup)
        job.say(f"turn {turn + 1} of {bench.warmup + bench.steps}")
    found = {name: kind.result(shape) for name, kind in kinds.items()}
    ours, alone = found["guide"], found["lm_only"]
    return {
        **found,
        "guide_over_lm_only_seconds": ours["step_seconds"] / alone["step_seconds"],
        "guide_over_lm_only_flops": ours["model_flops_per_step"] / alone["model_flops_per_step"],
        "peak_memory_bytes": peak_memory_bytes(),
    }


def described(config: ConfigDict, mesh: Mesh, shape: BatchShape) -> dict[str, Any]:
    """What was measured, and on what."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "mesh": dict(mesh.shape),
        "stage": config.bench.stage,
        "dtype": config.dtype,
        "remat": config.model.remat,
        **dataclasses.asdict(shape),
    }


def settings_digest(config: ConfigDict) -> str:
    """What a measurement depends on, as a short hash."""
    keys = {"bench", "model", "dtype", "trained_dtype", "moments", "guide", "lora", "mesh"}
    keys |= {config.bench.stage, "compiler_options"}
    chosen = {key: v for key, v in config.to_dict().items() if key in keys}
    chosen |= {"packing": config.data.packing, "code": code_digest(*STEP_ROOMS)}
    return digest(chosen | {"device": jax.devices()[0].device_kind, "count": jax.device_count()})


def batch_shape(config: ConfigDict, shards: int) -> BatchShape:
    """The batch that config.bench describes.

    Raises:
        UserError: it does not divide, or a number is not positive.
    """
    bench = config.bench
    if bench.stage not in STAGES:
        raise UserError(f"config.bench.stage={bench.stage!r} must be one of {', '.join(STAGES)}")
    for key, least in (("steps", 1), ("warmup", 1), ("batch_size", 0)):
        refuse_below(f"bench.{key}", bench[key], least)
    stage, packing = config[bench.stage], packing_of(config)
    size = bench.batch_size or stage.batch_size
    shape = BatchShape(size, stage.accumulate, bench.length, bench.caption_length, packing)
    if not shape.divides(shards):
        packed = f" times config.data.packing={packing}" if packing > 1 else ""
        raise UserError(
            f"config.bench.batch_size={size} must be a multiple of config.{bench.stage}.accumulate="
            f"{stage.accumulate}{packed} times the {shards} batch shards of the mesh"
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


def random_state(stage: Stage, config: ConfigDict) -> TrainState:
    """A new state with random weights."""
    leaves = leaves_of(config, stage.llava, stage.mesh, stage.factors)
    return stage.state(random_params(stage.llava, leaves, seed=config.seed))
