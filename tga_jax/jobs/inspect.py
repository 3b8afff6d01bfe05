"""Job `inspect`: exactly what the model is fed, a line a sample."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tga_jax.data.loader import example_pixels
from tga_jax.data.show import inspect_line, render
from tga_jax.files import write_jsonl
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run.checks import check_model, check_samples
from tga_jax.run.job import Job
from tga_jax.run.model import open_model
from tga_jax.run.prompts import make_prompter
from tga_jax.run.sample_files import find_samples
from tga_jax.run.sample_report import report_samples
from tga_jax.run.samples import read_samples
from tga_jax.run.stage_data import say_closing


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse samples or a model that are not there."""
    check_samples(job, before=before)
    check_model(job.config, before=before)


def run(job: Job) -> None:
    """Write inspect/samples.jsonl, and what was skipped; show the first samples."""
    config = job.config
    model = open_model(job, mesh_of(config.mesh))
    prompter = make_prompter(config, model.prompts, training=True)
    say_closing(job, prompter)
    samples = read_samples(job, find_samples(config, job.workdir), prompter, model.transform)
    report_samples(
        job.workdir / "inspect" / "samples.json",
        samples.records,
        samples.checked,
        samples.about,
        say=job.say,
    )
    lines = []
    for number, record in enumerate(samples.records):
        folder = Path() if record.contents else samples.image_dir
        example = prompter.encode(record, folder)
        for place in range(len(example.images)):
            example_pixels(example, place, image_dir=folder, transform=model.transform)
        lines.append(inspect_line(example))
        if number < config.inspect.show:
            tokenizer = model.source.tokenizer.tokenizer
            print(render(example, tokenizer, colours=sys.stderr.isatty()), file=sys.stderr)
    path = job.workdir / "inspect" / "samples.jsonl"
    write_jsonl(path, lines)
    job.say(f"{len(lines)} samples -> {path}")
