"""A training stage without its data: objective, optimizer, and the compiled step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tga_jax.alignment.guide import GuideConfig
from tga_jax.errors import UserError, refuse_below
from tga_jax.models.llava import Llava, part_of
from tga_jax.models.quantised import is_quantised, kernel_path
from tga_jax.parallel.sharding import shapes
from tga_jax.training.freezing import check_patterns, checked_table, learning_rate_factors
from tga_jax.training.objective import Batch, Objective
from tga_jax.training.optimizer import MOMENTS, OptimizerConfig, make_optimizer, schedule
from tga_jax.training.state import new_state
from tga_jax.training.step import TrainState, jit_step, make_train_step

# Keys of a stage by what their values may be; its counts are checked with its data.
AT_LEAST_0 = (
    "epochs", "learning_rate", "weight_decay", "clip_norm", "save_minutes", "keep_every",
    "max_length", "ce_chunk",
)  # fmt: skip
SHARES = ("warmup_fraction", "final_fraction")
BESIDE_ADAPTERS = r"decoder/(?!.*/lora_).*"


class Stage:
    """What a stage needs besides its data.

    Attributes:
        name: "pretrain" or "finetune".
        steps: how many it has.
        llava: the model.
        mesh: the devices that it trains on.
        factors: path -> factor on the learning rate; None: frozen.
        objective: the loss.
        optimizer: of the trained parameters.
    """

    def __init__(
        self,
        config: ConfigDict,
        name: str,
        steps: int,
        *,
        llava: Llava,
        mesh: Mesh,
        guide: GuideConfig,
    ) -> None:
        """Takes config.<name> and what all stages share.

        Raises:
            UserError: a dtype or a compiler option has no such value.
        """
        check_dtypes(config)
        check_rates(config[name], name)
        self.name, self.steps, self.llava, self.mesh = name, steps, llava, mesh
        cfg = config[name]
        self.factors = stage_factors(llava, config, name)
        self.objective = Objective(guide, ce_chunk=cfg.ce_chunk)
        settings = OptimizerConfig(
            learning_rate=cfg.learning_rate,
            steps=steps,
            warmup_fraction=cfg.warmup_fraction,
            final_fraction=cfg.final_fraction,
            weight_decay=cfg.weight_decay,
            clip_norm=cfg.clip_norm,
            moments=config.moments,
        )
        self._schedule = schedule(settings)
        trained = {path: f for path, f in self.factors.items() if f is not None}
        self.optimizer = make_optimizer(settings, trained)
        self._compiler_options = compiler_options(config.compiler_options)

    def step(self) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
        """The training step as a function of the state and a batch, not yet compiled."""
        return make_train_step(
            self.llava,
            self.objective,
            self.optimizer,
            learning_rate=self._schedule,
            steps=self.steps,
        )

    def jitted(self, state: TrainState) -> Any:
        """The step for a state, as all jobs compile it."""
        return jit_step(self.step(), state, compiler_options=self._compiler_options)

    def state(self, params: dict[str, jax.Array]) -> TrainState:
        """The state before the first step, with these parameters."""
        return new_state(
            params,
            factors=self.factors,
            optimizer=self.optimizer,
            objective=self.objective,
            width=self.llava.config.decoder.width,
            mesh=self.mesh,
        )


def stage_factors(llava: Llava, config: ConfigDict, stage: str) -> dict[str, float | None]:
    """Path -> factor on the learning rate; None: frozen.

    Args:
        llava: the model.
        config: the configuration, with config.<stage>.trainable, the table of (pattern, factor) of
            which the first match counts. Without config.lora.train_decoder the weights beside
            adapters are frozen, whatever the table says.
        stage: "pretrain" or "finetune".

    Raises:
        UserError: the table is not right, or wants kernels trained that are kept in few bits.
    """
    key, given = f"config.{stage}.trainable", config[stage].trainable
    table = list(checked_table(given, key))
    if llava.config.decoder.lora is not None and not config.lora.train_decoder:
        table.insert(0, (BESIDE_ADAPTERS, None))
    paths = shapes(llava.abstract_params())
    # The table speaks of kernels, also where they are kept in few bits.
    kernels = [kernel_path(path) for path in paths]
    check_patterns(kernels, table, key)
    by_kernel = learning_rate_factors(kernels, table, key=key)
    factors = {path: by_kernel[kernel_path(path)] for path in paths}
    trained = [path for path in paths if is_quantised(path) and factors[path] is not None]
    if trained:
        raise UserError(
            f"config.model.quantize={llava.config.decoder.quantize!r} is for frozen matrices, and "
            f"{kernel_path(trained[0])} is to be trained: set config.lora.rank to train adapters "
            "in its place, with config.lora.train_decoder=false"
        )
    return factors


def trained_counts(llava: Llava, factors: Mapping[str, float | None]) -> dict[str, int]:
    """How many parameters of each part are trained; "adapters" are those of LoRA."""
    sizes = shapes(llava.abstract_params())
    counts: dict[str, int] = {}
    for path, factor in factors.items():
        if factor is not None:
            part = part_of(path)
            counts[part] = counts.get(part, 0) + math.prod(sizes[path])
    return counts


def check_rates(cfg: ConfigDict, stage: str) -> None:
    """Refuse numbers of config.<stage> that are below 0, or shares of its steps above 1."""
    for key in AT_LEAST_0:
        refuse_below(f"{stage}.{key}", cfg[key], 0)
    for key in SHARES:
        if not 0 <= cfg[key] <= 1:
            raise UserError(f"config.{stage}.{key}={cfg[key]} must lie in 0..1")


def check_dtypes(config: ConfigDict) -> None:
    """Refuse dtypes of trained parameters and of moments that there are not."""
    for key, known in (("trained_dtype", ("float32", "bfloat16")), ("moments", MOMENTS)):
        if config[key] not in known:
            raise UserError(
                f"config.{key}={config[key]!r} must be one of {', '.join(map(repr, known))}"
            )


def compiler_options(options: Sequence[str]) -> dict[str, bool | int | str]:
    """config.compiler_options by name; XLA wants truth values and numbers as such.

    Raises:
        UserError: one is not NAME=VALUE.
    """
    found = [option.partition("=") for option in options]
    for name, equals, _ in found:
        if not (name and equals):
            raise UserError(f"config.compiler_options: {name!r} is not NAME=VALUE")
    known: dict[str, bool | int] = {"true": True, "false": False}
    numbers = {value: int(value) for _, _, value in found if value.lstrip("-").isdigit()}
    return {name: (known | numbers).get(value, value) for name, _, value in found}
