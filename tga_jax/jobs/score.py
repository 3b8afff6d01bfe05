"""Job `score`: loss and per-layer cosines of every sample, without training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from tga_jax.alignment.guide import GuideConfig
from tga_jax.analysis.scores import Scorer
from tga_jax.cluster import hosts, shared_files
from tga_jax.data.lazy_records import text_lengths
from tga_jax.data.records import Record
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run.guide import guide_config
from tga_jax.run.inference_batches import Batcher
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model
from tga_jax.run.prompts import make_prompter
from tga_jax.run.sample_report import say_samples
from tga_jax.run.samples import image_folder, read_samples, samples_digest
from tga_jax.run.weights import Weights, current_weights, load_params
from tga_jax.run.work import Work
from tga_jax.training.step import nested


def run(job: Job) -> None:
    """Write score/<weights>.jsonl, and the same as score/scores.jsonl."""
    config, weights = job.config, current_weights(job)
    model = open_model(job, mesh_of(config.mesh))
    prompter = make_prompter(config, model.prompts)
    samples = read_samples(config, job.workdir, prompter, say=job.say)
    records = samples.records
    say_samples(records, samples.about, say=job.say)
    guide = guide_config(config, job.workdir, model.llava.config.decoder.layers)
    folder = job.workdir / "score"
    work, path = (
        Work(folder, weights.tag, signature(job, model, weights)),
        folder / f"{weights.tag}.jsonl",
    )
    if not work.is_done:
        rows = {row["row"]: row for row in work.rows()}
        lengths = text_lengths(records)
        todo = sorted(set(range(len(records))) - rows.keys(), key=lambda i: lengths[i])
        for new in scored(job, model, guide, records, todo, weights) if todo else ():
            work.append(new)
            rows |= {row["row"]: row for row in new}
        lines = [{k: v for k, v in rows[i].items() if k != "row"} for i in range(len(records))]
        shared_files.write_jsonl(path, lines)
        work.finish()
    if hosts.is_first():
        shutil.copyfile(path, folder / "scores.jsonl")
    job.say(f"weights {weights.tag}: {len(records)} samples -> {folder / 'scores.jsonl'}")


def signature(job: Job, model: OpenModel, weights: Weights) -> dict[str, Any]:
    """All that decides the scores."""
    config = job.config
    return {
        "weights": weights.digest,
        "data": samples_digest(config, job.workdir),
        "settings": {k: config[k].to_dict() for k in ("data", "guide", "model")},
        "prompt": model.prompts.settings(config.prompt),
        "dtype": config.dtype,
    }


def scored(
    job: Job,
    model: OpenModel,
    guide: GuideConfig,
    records: Sequence[Record],
    rows: Sequence[int],
    weights: Weights,
) -> Iterator[list[dict[str, Any]]]:
    """Yields the lines of `rows`, a batch at a time."""
    prompter = make_prompter(job.config, model.prompts)
    scorer = Scorer(
        model.llava,
        guide,
        Batcher.of(job.config.data, model),
        lambda i: prompter.encode(records[i]),
        batch_size=job.config.score.batch_size,
        image_dir=lambda row: image_folder(job.config),
    )
    yield from scorer.score(rows, len(records), nested(load_params(job, model, weights)))
