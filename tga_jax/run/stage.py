"""A training stage without its data: objective, optimizer, and the compiled step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from tga_jax.alignment.guide import CENTERS, FORMS, GuideConfig
from tga_jax.alignment.layers import parse_layers
from tga_jax.cluster import hosts
from tga_jax.data.loader import BatchSource, Loader, make_loader
from tga_jax.errors import UserError
from tga_jax.parallel.sharding import shapes
from tga_jax.run.context import Context, Weights
from tga_jax.run.guided_layers import guided_layers
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.feed import DeviceBatches
from tga_jax.training.freezing import learning_rate_factors
from tga_jax.training.loop import LoopConfig, StepCompiler, train
from tga_jax.training.metrics import MetricsLog
from tga_jax.training.objective import Batch, Objective
from tga_jax.training.optimizer import MOMENTS, OptimizerConfig, make_optimizer, schedule
from tga_jax.training.profile import ProfileConfig
from tga_jax.training.state import abstract_state, new_state
from tga_jax.training.step import TrainState, jit_step, make_train_step
from tga_jax.training.throughput import peak_flops


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


def check_dtypes(context: Context) -> None:
    """Refuse dtypes that there are not."""
    for key, known in (("trained_dtype", ("float32", "bfloat16")), ("moments", MOMENTS)):
        value = context.config[key]
        if value not in known:
            raise UserError(f"config.{key}={value!r}: one of {', '.join(map(repr, known))}")


class Stage:
    """What a stage needs besides its data: objective, optimizer, step."""

    def __init__(self, context: Context, name: str, steps: int) -> None:
        self.context, self.name, self.steps = context, name, steps
        check_dtypes(context)
        cfg = context.config[name]
        boxed = jax.eval_shape(context.model.init, jax.random.key(0))
        table = [(pattern, factor) for pattern, factor in cfg.trainable]
        self.factors = learning_rate_factors(shapes(boxed), table)
        self.objective = Objective(guide_config(context, name), ce_chunk=cfg.ce_chunk)
        settings = OptimizerConfig(
            learning_rate=cfg.learning_rate,
            steps=steps,
            warmup_fraction=cfg.warmup_fraction,
            final_fraction=cfg.final_fraction,
            weight_decay=cfg.weight_decay,
            clip_norm=cfg.clip_norm,
            moments=context.config.moments,
        )
        self.schedule = schedule(settings)
        trained = {p: f for p, f in self.factors.items() if f is not None}
        self.optimizer = make_optimizer(settings, trained)

    def step(self) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
        """The step function."""
        return make_train_step(
            self.context.model,
            self.objective,
            self.optimizer,
            learning_rate=self.schedule,
            steps=self.steps,
        )

    def jitted(self, state: TrainState) -> Any:
        """The step for a state, as all jobs compile it."""
        options = compiler_options(self.context.config.compiler_options)
        return jit_step(self.step(), state, compiler_options=options)

    def train(self, source: BatchSource, start: Weights) -> TrainState:
        """From the latest checkpoint, or from `start`, to the end."""
        context, cfg = self.context, self.context.config[self.name]
        folder = context.stage_folder(self.name)
        checkpoints = Checkpoints(folder / "checkpoints", keep=cfg.keep, keep_every=cfg.keep_every)
        loader = make_loader(source, workers=context.config.data.workers)
        state = self._start(checkpoints, loader, start)
        log = MetricsLog(folder, resume_step=int(state.step)) if hosts.is_first() else None
        try:
            return train(
                state,
                DeviceBatches(loader, context.mesh),
                StepCompiler(self.jitted(state), most=most_shapes(context, self.name)),
                config=self._loop_config(),
                checkpoints=checkpoints,
                log=log,
            )
        finally:
            if log is not None:
                log.close()
            loader.close()
            checkpoints.close()

    def _start(self, checkpoints: Checkpoints, loader: Loader, start: Weights) -> TrainState:
        # The first process says which: a shared file system may show the others an older list.
        context, latest = self.context, hosts.broadcast_from_first(checkpoints.latest_step)
        params = context.load_params(start, self.factors)
        state = new_state(
            params,
            factors=self.factors,
            optimizer=self.optimizer,
            objective=self.objective,
            width=context.model.config.decoder.width,
            mesh=context.mesh,
        )
        del params
        if latest is None:
            context.say(f"{self.steps} steps from {start.tag}")
            return state
        abstract = abstract_state(state)
        del state
        restored = checkpoints.restore(latest, abstract)
        loader.set_state(restored.data)
        context.say(f"going on at step {latest} of {self.steps}")
        return restored.state

    def _loop_config(self) -> LoopConfig:
        cfg = self.context.config[self.name]
        return LoopConfig(
            name=self.name,
            steps=self.steps,
            log_every=cfg.log_every,
            save_every=cfg.save_every,
            save_seconds=60 * cfg.save_minutes,
            peak_flops=peak_flops(jax.devices()[0]),
            profile=self._profile(),
        )

    def _profile(self) -> ProfileConfig | None:
        steps = tuple(self.context.config.profile.steps)
        if not steps:
            return None
        whole = all(isinstance(step, int) for step in steps)
        if not (whole and len(steps) == 2 and 1 <= steps[0] <= steps[1]):
            raise UserError(f"config.profile.steps={steps}: give the first and the last step")
        return ProfileConfig(*steps, self.context.stage_folder(self.name) / "profile")


def guide_config(context: Context, stage: str = "") -> GuideConfig:
    """config.guide, checked; form "none" in a stage that turns the guide off."""
    guide, layers = context.config.guide, context.model.config.decoder.layers
    for key, allowed in (("form", FORMS), ("center", CENTERS)):
        if guide[key] not in allowed:
            raise UserError(f"config.guide.{key}={guide[key]!r}: one of {', '.join(allowed)}")
    off = guide.form == "none" or bool(stage and not context.config[stage].guide)
    guided = guided_layers(context, needed=not off)
    answers = guide.answer_layers if guide.answer_layers and guide.answer_weight else guided
    return GuideConfig(
        form="none" if off else guide.form,
        layers=parse_layers(guided, layers),
        center=guide.center,
        pair_weight=guide.pair_weight,
        hinge_weight=guide.hinge_weight,
        answer_weight=guide.answer_weight,
        answer_layers=parse_layers(answers, layers),
        center_decay=guide.center_decay,
        detach_caption=guide.detach_caption,
    )


def packing_of(config: ConfigDict) -> int:
    """config.data.packing.

    Raises:
        UserError: it is no number of samples.
    """
    packing = int(config.data.packing)
    if packing < 1:
        raise UserError(f"config.data.packing={packing}: must be 1 or more")
    return packing


def most_shapes(context: Context, stage: str) -> int:
    """How many batch shapes can occur: lengths x caption lengths x numbers of pictures."""
    length = context.config[stage].max_length or context.config.data.max_length
    packing = context.config.data.packing
    pictures = 8 * packing
    lengths = len(context.buckets(max_length=length * packing))
    return lengths * len(context.caption_buckets(max_length=length)) * pictures
