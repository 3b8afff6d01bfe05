"""Jobs `pretrain` and `finetune`: train a stage, or go on with it."""

from __future__ import annotations

import jax

from tga_jax.cluster import hosts, shared_files
from tga_jax.data.loader import BatchSource, Loader, make_loader
from tga_jax.errors import UserError
from tga_jax.files import digest
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run.guide import guide_config
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model
from tga_jax.run.sample_report import report_samples
from tga_jax.run.stage import Stage
from tga_jax.run.stage_data import batch_source, check_counts, most_shapes, stage_samples
from tga_jax.run.stage_settings import check_finished, claim_folder, stage_settings
from tga_jax.run.weights import Weights, current_weights, finished_stage, load_params
from tga_jax.training.checkpoints import Checkpoints
from tga_jax.training.feed import DeviceBatches
from tga_jax.training.loop import LoopConfig, StepCompiler, train
from tga_jax.training.metrics import MetricsLog
from tga_jax.training.profile import ProfileConfig
from tga_jax.training.state import abstract_state
from tga_jax.training.step import TrainState
from tga_jax.training.throughput import peak_flops


def run(job: Job) -> None:
    """Train the stage that the job is named after."""
    config, workdir, name = job.config, job.workdir, job.name
    start, done = current_weights(job, before=name), finished_stage(workdir, name)
    check_counts(config[name], name)
    model = open_model(job, mesh_of(config.mesh))
    if done is not None:
        check_finished(job, model.prompts, done=done, start=start)
        job.say(f"finished before: {workdir / name}")
        return
    samples = stage_samples(job, model)
    source, steps = batch_source(job, model, samples.records)
    if not steps:
        job.say(f"config.{name}.steps is 0: nothing to do")
        return
    settings = stage_settings(job, model.prompts, steps, start)
    claim_folder(workdir / name, settings)
    report_samples(
        workdir / name / "samples.json",
        source.records,
        samples.checked,
        samples.about,
        say=job.say,
    )
    guide = guide_config(config, workdir, model.llava.config.decoder.layers, name)
    stage = Stage(config, name, steps, llava=model.llava, mesh=model.mesh, guide=guide)
    trained = train_stage(job, model, stage, source, start)
    marker = {"step": trained, "digest": digest(settings)}
    shared_files.write_json(workdir / name / "done.json", marker)


def train_stage(
    job: Job, model: OpenModel, stage: Stage, source: BatchSource, start: Weights
) -> int:
    """Train from the latest checkpoint, or from `start`, to the end; returns the last step."""
    cfg, folder = job.config[stage.name], job.workdir / stage.name
    checkpoints = Checkpoints(folder / "checkpoints", keep=cfg.keep, keep_every=cfg.keep_every)
    loader = make_loader(source, workers=job.config.data.workers)
    state = first_state(job, model, stage, checkpoints, loader, start)
    log = MetricsLog(folder, resume_step=int(state.step)) if hosts.is_first() else None
    try:
        trained = train(
            state,
            DeviceBatches(loader, model.mesh),
            StepCompiler(stage.jitted(state), most=most_shapes(job.config, stage.name)),
            config=loop_config(job, stage),
            checkpoints=checkpoints,
            log=log,
        )
        return int(trained.step)
    finally:
        if log is not None:
            log.close()
        loader.close()
        checkpoints.close()


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
        return state
    abstract = abstract_state(state)
    del state
    restored = checkpoints.restore(latest, abstract)
    loader.set_state(restored.data)
    job.say(f"going on at step {latest} of {stage.steps}")
    return restored.state


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
