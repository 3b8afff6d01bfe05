"""Jobs `pretrain` and `finetune`: train a stage, or go on with it."""

from __future__ import annotations

import math
from pathlib import Path

from tga_jax.data.ablation import ablate
from tga_jax.data.loader import BatchSource
from tga_jax.data.mixture import Mixture
from tga_jax.data.records import has_contents
from tga_jax.errors import UserError
from tga_jax.files import digest, write_json
from tga_jax.parallel.sharding import batch_shards
from tga_jax.run.context import Context
from tga_jax.run.sample_report import report_samples
from tga_jax.run.stage import Stage, packing_of
from tga_jax.run.stage_settings import check_finished, claim_folder, stage_settings
from tga_jax.training.feed import local_rows


def run(context: Context) -> None:
    """Train the stage that the job is named after."""
    stage = context.job
    start, done = context.current_weights(before=stage), context.finished(stage)
    if done is not None:
        check_finished(context, done, start)
        context.say(f"finished before: {context.stage_folder(stage)}")
        return
    check_counts(context, stage)
    source, steps = batch_source(context, stage)
    if not steps:
        context.say(f"config.{stage}.steps is 0: nothing to do")
        return
    settings = stage_settings(context, stage, steps, start)
    claim_folder(context, stage, settings)
    report_samples(context, stage, source.records)
    trained = Stage(context, stage, steps).train(source, start)
    marker = {"step": int(trained.step), "digest": digest(settings)}
    write_json(context.stage_folder(stage) / "done.json", marker)


def check_counts(context: Context, stage: str) -> None:
    """Refuse numbers that count something and are not positive."""
    for key in ("batch_size", "accumulate", "save_every", "log_every", "keep"):
        if context.config[stage][key] < 1:
            value = context.config[stage][key]
            raise UserError(f"config.{stage}.{key}={value}: must be 1 or more")


def batch_source(context: Context, stage: str) -> tuple[BatchSource, int]:
    """The stage's batches, and how many steps it has."""
    cfg, data = context.config[stage], context.config.data
    packing, ways = packing_of(context.config), batch_shards(context.mesh)
    rows = cfg.batch_size // cfg.accumulate // packing
    if cfg.batch_size % (cfg.accumulate * packing * ways):
        raise UserError(
            f"config.{stage}.batch_size={cfg.batch_size} must be a multiple of "
            f"config.{stage}.accumulate={cfg.accumulate} times config.data.packing={packing} "
            f"times the {ways} batch shards of the mesh"
        )
    samples = context.records(stage)
    records = ablate(
        samples,
        caption_noise=data.caption_noise,
        retrieved_share=data.retrieved_share,
        seed=context.config.seed,
    )
    steps = cfg.steps if cfg.steps >= 0 else math.ceil(cfg.epochs * len(records) / cfg.batch_size)
    max_length = cfg.max_length or data.max_length
    source = BatchSource(
        records,
        context.prompter(template=cfg.template, max_length=max_length, training=True),
        context.transform,
        image_dir=Path() if has_contents(samples) else context.image_dir(stage),
        batch_size=cfg.batch_size,
        accumulate=cfg.accumulate,
        steps=steps,
        seed=context.config.seed,
        buckets=context.buckets(max_length=max_length * packing),
        caption_buckets=context.caption_buckets(max_length=max_length),
        pad_id=context.source.tokenizer.pad_id,
        rows=local_rows(context.mesh, rows),
        parts=samples.parts if isinstance(samples, Mixture) else (),
        packing=packing,
    )
    return source, steps
