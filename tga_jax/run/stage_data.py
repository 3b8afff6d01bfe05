"""The batches of a stage: which samples form which step."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ml_collections import ConfigDict

from tga_jax.data.ablation import ablate
from tga_jax.data.images import ImageTransform
from tga_jax.data.loader import BatchSource
from tga_jax.data.mixture import Mixture
from tga_jax.data.prompts import Prompter
from tga_jax.data.tiles import TileTransform
from tga_jax.errors import UserError, refuse_below
from tga_jax.parallel.sharding import batch_shards, local_rows
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel
from tga_jax.run.prompts import PromptStyle, caption_buckets, make_prompter, prompt_buckets
from tga_jax.run.sample_files import SampleFiles
from tga_jax.run.samples import Samples, read_samples

MOST_IMAGES = 8  # of a sample; how many a stage's shapes are counted for


def check_counts(cfg: ConfigDict, stage: str) -> None:
    """Refuse numbers of config.<stage> that count something and are not positive."""
    for key in ("batch_size", "accumulate", "save_every", "log_every", "keep"):
        refuse_below(f"{stage}.{key}", cfg[key], 1)
    if cfg.steps < -1:
        raise UserError(f"config.{stage}.steps={cfg.steps} must be 0 or more, or -1 for epochs")


def stage_samples(
    job: Job, model: OpenModel, files: SampleFiles
) -> tuple[Samples, BatchSource, int]:
    """The usable samples of the job's stage, the batches that they form, and how many steps."""
    prompter = training_prompter(job, model.prompts)
    samples = read_samples(job, files, prompter, model.transform, stage=job.name)
    return samples, *batch_source(job, model, prompter, samples)


def batch_source(
    job: Job, model: OpenModel, prompter: Prompter, found: Samples
) -> tuple[BatchSource, int]:
    """The batches of the job's stage, and how many steps it has."""
    samples = found.records
    config, stage = job.config, job.name
    cfg, data, packing = config[stage], config.data, packing_of(config)
    check_division(cfg, stage, packing=packing, shards=batch_shards(model.mesh))
    records = ablate(
        samples,
        caption_noise=data.caption_noise,
        retrieved_share=data.retrieved_share,
        seed=config.seed,
    )
    steps = cfg.steps if cfg.steps >= 0 else math.ceil(cfg.epochs * len(records) / cfg.batch_size)
    max_length = cfg.max_length or data.max_length
    buckets = prompt_buckets(data, max_length * packing)
    if line := short_buckets_line(buckets, max_length):
        job.say(line)
    source = BatchSource(
        records,
        prompter,
        model.transform,
        image_dir=found.image_dir,
        batch_size=cfg.batch_size,
        accumulate=cfg.accumulate,
        steps=steps,
        seed=config.seed,
        buckets=buckets,
        caption_buckets=caption_buckets(data, max_length),
        pad_id=model.source.tokenizer.pad_id,
        rows=local_rows(model.mesh, cfg.batch_size // cfg.accumulate // packing),
        parts=samples.parts if isinstance(samples, Mixture) else (),
        packing=packing,
    )
    return source, steps


def short_buckets_line(buckets: Sequence[int], max_length: int) -> str:
    """What is to be said of padded lengths that do not reach the longest sample; else ""."""
    if max(buckets) >= max_length:
        return ""
    return (
        f"config.data.buckets end at {max(buckets)}, and max_length is {max_length}: samples are "
        "cut at the smaller one"
    )


def training_prompter(job: Job, style: PromptStyle) -> Prompter:
    """The prompter of the job's stage; says so where it closes answers itself."""
    cfg = job.config[job.name]
    prompter = make_prompter(
        job.config, style, template=cfg.template, max_length=cfg.max_length, training=True
    )
    say_closing(job, prompter)
    return prompter


def say_closing(job: Job, prompter: Prompter) -> None:
    """Say so where the prompter closes the answers of a chat template that does not."""
    if prompter.closing:
        job.say(
            "the chat template puts no special token after an answer; "
            f"in training {prompter.closing} closes it"
        )


def check_division(cfg: ConfigDict, stage: str, *, packing: int, shards: int) -> None:
    """Refuse a batch that does not divide into micro-batches, packed rows and batch shards."""
    if cfg.batch_size % (cfg.accumulate * packing * shards):
        raise UserError(
            f"config.{stage}.batch_size={cfg.batch_size} must be a multiple of "
            f"config.{stage}.accumulate={cfg.accumulate} times config.data.packing={packing} "
            f"times the {shards} batch shards of the mesh"
        )


def packing_of(config: ConfigDict) -> int:
    """config.data.packing, the number of samples that share a row.

    Raises:
        UserError: it is no number of samples.
    """
    packing = int(config.data.packing)
    if packing < 1:
        raise UserError(f"config.data.packing={packing} must be 1 or more")
    return packing


def most_shapes(config: ConfigDict, stage: str, transform: ImageTransform | TileTransform) -> int:
    """How many batch shapes can occur: lengths x caption lengths x numbers of images or tiles."""
    length, packing = config[stage].max_length or config.data.max_length, config.data.packing
    lengths = len(prompt_buckets(config.data, length * packing))
    return (
        lengths * len(caption_buckets(config.data, length)) * transform.rooms(MOST_IMAGES * packing)
    )
