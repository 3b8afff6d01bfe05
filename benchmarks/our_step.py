"""The method's train step of tga_jax by itself, without jobs: to be timed and profiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from benchmarks.adapters import start
from tga_jax.alignment.guide import GuideConfig
from tga_jax.hf.config import read_llava_config
from tga_jax.hf.processor import CLIP_MEAN, CLIP_STD
from tga_jax.hf.weights import load_weights
from tga_jax.models.config import Compute, LoraConfig
from tga_jax.models.llava import Llava, PixelNorm
from tga_jax.parallel.mesh import make_mesh
from tga_jax.parallel.sharding import RULES, batch_sharding
from tga_jax.training.flops import Flops, count_flops
from tga_jax.training.freezing import Table, learning_rate_factors
from tga_jax.training.objective import Objective
from tga_jax.training.optimizer import OptimizerConfig, make_optimizer, schedule
from tga_jax.training.state import Leaves, new_state, param_leaves
from tga_jax.training.step import TrainState, jit_step, make_train_step
from tga_jax.training.throughput import return_freed_memory

TABLE = (("vision/.*", None), (".*", 1.0))


class OurStep:
    """The jitted train step on one batch, its state held here.

    Args:
        folder: a LLaVA checkpoint.
        batch: arrays of [1, B, ...], as `tga_jax.planning.synthetic.made_up_batch` makes them.
        compute: dtype, remat, attention.
        learning_rate: constant.
        ce_chunk: see `token_nll`.
        table: what is trained.
        lora: adapters, which begin as `benchmarks.adapters.start` has it.
        form: of the guide; "none": the language model's loss alone.
        layers: how many the guide compares, from the first on; None: all.
    """

    def __init__(
        self,
        folder: Path,
        batch: Mapping[str, np.ndarray],
        compute: Compute,
        *,
        learning_rate: float,
        ce_chunk: int = 0,
        table: Table = TABLE,
        lora: LoraConfig | None = None,
        form: str = "paper",
        layers: int | None = None,
    ) -> None:
        config = read_llava_config(folder)
        decoder = dataclasses.replace(config.decoder, lora=lora)
        config = dataclasses.replace(config, decoder=decoder)
        self._model = Llava(config, PixelNorm(CLIP_MEAN, CLIP_STD), compute)
        self.mesh = make_mesh(data=1, fsdp=-1, tensor=1)
        guided = tuple(range(decoder.layers if layers is None else layers))
        self._objective = Objective(GuideConfig(form, guided), ce_chunk)
        self._settings = OptimizerConfig(
            learning_rate, 1_000_000, warmup_fraction=0.0, clip_norm=1.0
        )
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(RULES):
            leaves = param_leaves(self._model, self.mesh, dtype="float32")
            factors = learning_rate_factors(leaves, table)
            leaves = param_leaves(self._model, self.mesh, dtype=compute.dtype, factors=factors)
            self._optimizer = make_optimizer(
                self._settings, {path: f for path, f in factors.items() if f}
            )
            self.state: TrainState = new_state(
                start_params(folder, leaves),
                factors=factors,
                optimizer=self._optimizer,
                objective=self._objective,
                width=decoder.width,
                mesh=self.mesh,
            )
            self.batch = jax.device_put(dict(batch), batch_sharding(self.mesh, leading=1))
            self.traced = self._trace(self._model)
            self.compiled: Any = self.traced.lower().compile()
            return_freed_memory()  # as the training loop does

    def _trace(self, model: Llava) -> Any:
        step = make_train_step(
            model,
            self._objective,
            self._optimizer,
            learning_rate=schedule(self._settings),
            steps=self._settings.steps,
        )
        return jit_step(step, self.state).trace(self.state, self.batch)

    def flops(self) -> Flops:
        """Of the same step with attention as plain products: fused kernels hide theirs."""
        compute = dataclasses.replace(self._model.compute, attention="xla")
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(RULES):
            traced = self._trace(dataclasses.replace(self._model, compute=compute))
        return count_flops(traced.jaxpr)

    def step(self) -> float:
        """One optimizer step, waited for; returns the loss."""
        self.state, metrics = self.compiled(self.state, self.batch)
        jax.block_until_ready(self.state)
        return float(metrics["loss"])


def start_params(folder: Path, leaves: Leaves) -> dict[str, jax.Array]:
    """A checkpoint's weights, and new adapters."""
    stored = {path: leaf for path, leaf in leaves.items() if "/lora_" not in path}
    params = load_weights(folder, stored, family="llava")
    for path in leaves.keys() - stored.keys():
        leaf = leaves[path]
        params[path] = jax.device_put(start(path, leaf.shape).astype(leaf.dtype), leaf.sharding)
    return params


def compute_of(dtype: str, remat: str, attention: str) -> Compute:
    """The arithmetic's settings, "auto" attention resolved for this device."""
    from tga_jax.models.attention import choose_backend

    name = choose_backend(attention, platform=jax.devices()[0].platform, dtype=dtype)
    return dataclasses.replace(Compute(dtype), remat=remat, attention=name)
