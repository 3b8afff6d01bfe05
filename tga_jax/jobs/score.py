"""Job `score`: loss and per-layer cosines of every sample, without training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tga_jax.alignment.guide import GuideConfig
from tga_jax.analysis.scores import Scorer
from tga_jax.cluster import hosts, shared_files
from tga_jax.data.example import Example
from tga_jax.data.lazy_records import known_of
from tga_jax.files import copy
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run.checks import check_guide, check_model, check_samples
from tga_jax.run.guide import guide_config
from tga_jax.run.inference_batches import Batcher
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model
from tga_jax.run.prompts import make_prompter
from tga_jax.run.sample_files import find_samples
from tga_jax.run.sample_report import say_samples, what_they_lack
from tga_jax.run.samples import Samples, images_digest, read_samples
from tga_jax.run.weights import Weights, current_weights, load_params
from tga_jax.run.work import Work
from tga_jax.training.step import nested


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse samples or a model that are not there, and a guide that has no meaning."""
    check_samples(job, before=before)
    llava = check_model(job.config, before=before)
    if llava is not None:
        check_guide(job, before, llava)


def run(job: Job) -> None:
    """Write score/<weights>.jsonl, and the same as score/scores.jsonl."""
    config, weights = job.config, current_weights(job)
    model = open_model(job, mesh_of(config.mesh))
    prompter = make_prompter(config, model.prompts)
    samples = read_samples(job, find_samples(config, job.workdir), prompter, model.transform)
    records = samples.records
    say_samples(len(records), what_they_lack(records), samples.about, say=job.say)
    guide = guide_config(config, job.workdir, model.llava.config.decoder.layers)
    folder = job.workdir / "score"
    signed = signature(job, model, weights, guide, samples)
    work, path = Work(folder, weights.tag, signed), folder / f"{weights.tag}.jsonl"
    if not work.is_done(path):
        rows = {row["row"]: row for row in work.rows()}
        lengths = known_of(records).lengths
        todo = sorted(set(range(len(records))) - rows.keys(), key=lambda i: lengths[i])

        def encode(row: int) -> Example:
            return prompter.encode(records[row], samples.image_dir)

        for new in scored(job, model, guide, encode, todo, samples, weights) if todo else ():
            work.append(new)
            rows |= {row["row"]: row for row in new}
        lines = [{k: v for k, v in rows[i].items() if k != "row"} for i in range(len(records))]
        shared_files.write_jsonl(path, lines)
        work.finish()
    if hosts.is_first():
        copy(path, folder / "scores.jsonl")
    job.say(f"weights {weights.tag}: {len(records)} samples -> {folder / 'scores.jsonl'}")


def signature(
    job: Job, model: OpenModel, weights: Weights, guide: GuideConfig, samples: Samples
) -> dict[str, Any]:
    """All that decides the scores."""
    config = job.config
    return {
        "weights": weights.digest,
        "data": samples.content,
        "used": samples.used,
        "pictures": images_digest(samples.records, samples.image_dir),
        "settings": {k: config[k].to_dict() for k in ("data", "model")},
        "guide": dataclasses.asdict(guide) | {"newlines": config.guide.newlines},
        "prompt": model.prompts.settings(config.prompt),
        "dtype": config.dtype,
    }


def scored(
    job: Job,
    model: OpenModel,
    guide: GuideConfig,
    encode: Callable[[int], Example],
    rows: Sequence[int],
    samples: Samples,
    weights: Weights,
) -> Iterator[list[dict[str, Any]]]:
    """Yields the lines of `rows` of the samples, a batch at a time."""
    scorer = Scorer(
        model.llava,
        guide,
        Batcher.of(job.config.data, model),
        encode,
        batch_size=job.config.score.batch_size,
        image_dir=lambda row: samples.image_dir,
    )
    yield from scorer.score(rows, len(samples.records), nested(load_params(job, model, weights)))
