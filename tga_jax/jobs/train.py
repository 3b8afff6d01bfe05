"""Jobs `pretrain` and `finetune`: train a stage, or go on with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import jax

from tga_jax.analysis.held_out import HeldOutFigures, check_held_out
from tga_jax.cluster import hosts, shared_files
from tga_jax.data.ablation import check_shares
from tga_jax.data.lazy_records import known_of
from tga_jax.data.loader import BatchSource, Loader, make_loader
from tga_jax.errors import UserError
from tga_jax.files import digest, read_log
from tga_jax.parallel.devices import GIB
from tga_jax.parallel.mesh import mesh_of
from tga_jax.parallel.sharding import batch_shards
from tga_jax.planning.abstract import start_state
from tga_jax.planning.analytic import state_bytes
from tga_jax.run.checks import (
    check_checkpoint_room,
    check_guide,
    check_model,
    check_samples,
    check_template,
)
from tga_jax.run.guide import guide_config, term_counts
from tga_jax.run.guide_line import guide_line, guide_warnings
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model
from tga_jax.run.sample_files import find_samples
from tga_jax.run.sample_report import report_samples, unlearnt_warning, untrained_warning
from tga_jax.run.stage import (
    Stage,
    check_dtypes,
    check_rates,
    compiler_options,
    stage_factors,
    trained_counts,
)
from tga_jax.run.stage_data import (
    check_counts,
    check_division,
    most_shapes,
    packing_of,
    stage_samples,
)
from tga_jax.run.stage_log import say_done, say_plan, say_steps
from tga_jax.run.stage_settings import check_finished, claim_folder, stage_settings
from tga_jax.run.start import device_memory
from tga_jax.run.tracking import about_stage
from tga_jax.run.weights import (
    Weights,
    current_weights,
    finished_stage,
    load_params,
    projector_is_new,
)
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.feed import DeviceBatches
from tga_jax.training.held_out import HeldOut
from tga_jax.training.loop import LoopConfig, train
from tga_jax.training.metrics import MetricsLog
from tga_jax.training.parameter_table import parameter_table
from tga_jax.training.profile import ProfileConfig
from tga_jax.training.state import abstract_state
from tga_jax.training.step import TrainState
from tga_jax.training.step_compiler import StepCompiler
from tga_jax.training.throughput import peak_flops
from tga_jax.training.trackers import About, check_trackers, tracker_names


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse what can be known to be wrong with the stage before any job runs."""
    config, name = job.config, job.name
    check_counts(config[name], name)
    check_dtypes(config)
    check_rates(config[name], name)
    check_held_out(job, before)
    compiler_options(config.compiler_options)
    profile_config(job, name)
    check_template(f"{name}.template", config[name].template)
    check_trackers(config.trackers, first=hosts.is_first())
    check_samples(job, name, before=before)
    check_shares(config.data.caption_noise, config.data.retrieved_share)
    llava = check_model(config, before=before, stage=name)
    if llava is None:
        return
    check_guide(job, before, llava, name)
    shards = batch_shards(mesh_of(config.mesh))
    check_division(config[name], name, packing=packing_of(config), shards=shards)
    factors = stage_factors(llava, config, name)
    check_checkpoint_room(llava, factors, job.workdir)


def run(job: Job) -> None:
    """Train the stage that the job is named after."""
    config, workdir, name = job.config, job.workdir, job.name
    start, done = current_weights(job, before=name), finished_stage(workdir, name)
    check_counts(config[name], name)
    files = find_samples(config, workdir, name)
    model = open_model(job, mesh_of(config.mesh))
    if done is not None:
        check_finished(job, model.prompts, files.content, done=done, start=start)
        job.say(f"was finished before: {workdir / name}")
        return
    samples, source, steps = stage_samples(job, model, files)
    if not steps:
        job.say(f"config.{name}.steps (or .epochs) is 0, so there is nothing to do")
        return
    figures = HeldOutFigures(job, model) if config[name].evaluate_every else None
    guide = guide_config(config, workdir, model.llava.config.decoder.layers, name)
    stage = Stage(config, name, steps, llava=model.llava, mesh=model.mesh, guide=guide)
    check_memory(job, stage)
    settings = stage_settings(
        job, model.prompts, samples.content, used=samples.used, steps=steps, start=start
    )
    claim_folder(job, settings)
    report_samples(
        workdir / name / "samples.json",
        source.records,
        samples.checked,
        samples.about,
        say=job.say,
    )
    asks = model.prompts.named(config[name].template) != "plain"
    shown = config.prompt.retrieved
    counts = term_counts(guide, source.records, asks=asks, retrieved=shown)
    parts = trained_counts(model.llava, stage.factors)
    warnings = guide_warnings(guide, source.records, counts, asks=asks, retrieved=shown)
    idle = [unlearnt_warning(source.records, counts), untrained_warning(source.records, parts)]
    say_plan(job, parts, [*warnings, *idle])
    job.say(
        guide_line(
            guide,
            counts,
            len(source.records),
            images=int((known_of(source.records).images > 0).sum()),
            batch_size=config[name].batch_size,
            asks=asks,
            image_first=guide.active and source.image_first(),
        )
    )
    began = time.monotonic()
    about = about_stage(job, model.llava, stage.factors, settings)
    result = train_stage(job, model, stage, source, start, figures, about)
    marker = {
        "step": result,
        "digest": digest(settings),
        "trained": parts,
        "terms": counts,
    }
    shared_files.write_json(workdir / name / "done.json", marker)
    say_done(job, steps, time.monotonic() - began, counts)


def check_memory(job: Job, stage: Stage) -> None:
    """Say what weights and optimizer take of a device, and refuse a device that is too small.

    Raises:
        UserError: they alone are more than JAX may use.
    """
    needed, room = state_bytes(start_state(stage, job.config)), device_memory(jax.devices())
    have = "" if room is None else f" of the {room / GIB:.2f} GiB that JAX may use"
    line = f"weights and optimizer take {needed / GIB:.2f} GiB of a device's memory{have}"
    if room is not None and needed > room:
        raise UserError(
            f"{line}: train adapters (config.lora.rank), set config.dtype=bfloat16 and "
            "config.moments, use more devices, or take a preset of docs/presets.md"
        )
    job.say(line)


def train_stage(
    job: Job,
    model: OpenModel,
    stage: Stage,
    source: BatchSource,
    start: Weights,
    figures: HeldOutFigures | None,
    about: About,
) -> int:
    """Train from the latest checkpoint, or from `start`, to the end; trackers are given `about`.

    Returns:
        the step whose checkpoint is the stage's result: the last one, or the best.
    """
    cfg, folder = job.config[stage.name], job.workdir / stage.name
    with contextlib.ExitStack() as opened:
        checkpoints = Checkpoints(folder / "checkpoints", keep=cfg.keep, keep_every=cfg.keep_every)
        opened.callback(checkpoints.close)
        loader = opened.enter_context(
            contextlib.closing(make_loader(source, workers=job.config.data.workers))
        )
        state = first_state(job, model, stage, checkpoints, loader, start)
        job.say(f"parameters:\n{parameter_table(state)}")
        say_steps(job, source, int(state.step))
        held_out = held_out_of(job, stage, figures, done=int(state.step))
        log = None
        if hosts.is_first():
            names = tracker_names(job.config.trackers)
            log = MetricsLog(folder, resume_step=int(state.step), trackers=names, about=about)
            opened.callback(log.close)
        trained = train(
            state,
            DeviceBatches(loader, model.mesh),
            StepCompiler(
                stage.jitted(state), most=most_shapes(job.config, stage.name, model.transform)
            ),
            config=loop_config(job, stage),
            checkpoints=checkpoints,
            log=log,
            held_out=held_out,
        )
        if held_out.best_step is None:
            if cfg.best:
                job.say(f"WARNING: {cfg.best} was never measured, so the last step is taken")
            return int(trained.step)
        job.say(f"the best {cfg.best} is that of step {held_out.best_step}, which later jobs take")
        return held_out.best_step


def first_state(
    job: Job,
    model: OpenModel,
    stage: Stage,
    checkpoints: Checkpoints,
    loader: Loader,
    start: Weights,
) -> TrainState:
    """The state that the loop begins with; the loader is put to the same step."""
    # The first process says which: a shared file system may show the others an older list.
    latest = hosts.broadcast_from_first(checkpoints.latest_step)
    state = stage.state(load_params(job, model, start, stage.factors))
    if latest is None:
        job.say(f"{stage.steps} steps from {start.tag}")
        if stage.name == "finetune" and projector_is_new(job.config, start):
            job.say(
                "WARNING: the projector is new and no first stage has trained it; --job=pretrain "
                "does, before this one"
            )
        return state
    abstract = abstract_state(state)
    del state
    restored = checkpoints.restore(latest, abstract)
    loader.set_state(restored.data)
    job.say(f"goes on at step {latest} of {stage.steps}")
    return restored.state


def held_out_of(job: Job, stage: Stage, figures: HeldOutFigures | None, *, done: int) -> HeldOut:
    """When `figures` are taken in the stage, which goes on at step `done`."""
    cfg, log = job.config[stage.name], job.workdir / stage.name / "metrics.jsonl"
    if figures is None:
        return HeldOut.never()

    def measured() -> list[dict[str, Any]]:
        lines = read_log(log) if cfg.best and log.exists() else ()
        return [line for line in lines if cfg.best in line and line["step"] <= done]

    before = hosts.broadcast_from_first(measured)
    return HeldOut(
        figures, every=cfg.evaluate_every, steps=stage.steps, best=cfg.best, before=before
    )


def loop_config(job: Job, stage: Stage) -> LoopConfig:
    """How often the loop logs and saves."""
    cfg = job.config[stage.name]
    return LoopConfig(
        name=stage.name,
        steps=stage.steps,
        log_every=cfg.log_every,
        save_every=cfg.save_every,
        save_seconds=60 * cfg.save_minutes,
        peak_flops=peak_flops(jax.devices()[0]),
        profile=profile_config(job, stage.name),
    )


def profile_config(job: Job, stage: str) -> ProfileConfig | None:
    """Which steps to profile, as config.profile says; None: none of them."""
    steps = tuple(job.config.profile.steps)
    if not steps:
        return None
    whole = all(isinstance(step, int) for step in steps)
    if not (whole and len(steps) == 2 and 1 <= steps[0] <= steps[1]):
        raise UserError(f"config.profile.steps={steps}: give the first and the last step")
    return ProfileConfig(*steps, job.workdir / stage / "profile")
