"""Job `analyze`: at which layers refusal is decided, and how near images come to their captions.

The first pass reads texts and captions alone and leaves sums: the mean D_j of harmful texts, the
mean states of refused and answered texts, the mean caption state. The second reads every prompt
and writes a line a sample. Nothing but these sums and lines is kept. Where job `evaluate` has just
asked the same prompts, their states are there (`analysis/kept_states.py`) and the model is not run.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.analysis.analyst import Analyst
from tga_jax.analysis.kept_states import kept_states, settings_of_states
from tga_jax.analysis.prompts import (
    Prompt,
    analysis_apologies,
    analysis_profile,
    analysis_system,
    check_analysed,
    make_prompts,
    pieces_warning,
    why_nothing,
)
from tga_jax.analysis.tables import PARTIAL, write_tables
from tga_jax.cluster import hosts
from tga_jax.errors import UserError, refuse_below
from tga_jax.evaluation.asked import check_benchmarks, check_missing, read_benchmarks
from tga_jax.evaluation.items import items_digest
from tga_jax.files import copy, digest, read_json
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run.checks import check_model
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model
from tga_jax.run.weights import Weights, current_weights, load_params
from tga_jax.run.work import Work
from tga_jax.training.step import nested


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse benchmarks or a model that are not there, and numbers that are none."""
    check_values(job.config.analyze)
    check_benchmarks(job, before, "analyze.benchmarks")
    analysis_system(job.config, base="")  # refuses profiles, also where there is no model yet
    check_model(job.config, before=before, see=functools.partial(check_analysed, job.config))


def check_values(cfg: ConfigDict) -> None:
    """Refuse numbers of config.analyze that are none."""
    refuse_below("analyze.batch_size", cfg.batch_size, 1)
    refuse_below("analyze.limit", cfg.limit, 0)


def run(job: Job) -> None:
    """Write analyze/<weights>/, and the same files into analyze/."""
    weights = current_weights(job)
    check_values(job.config.analyze)
    prompts = read_prompts(job)
    if not prompts:
        return
    model = open_model(job, mesh_of(job.config.mesh))
    settings = settings_of(job.config, model, weights, prompts)
    top = job.workdir / "analyze"
    folder = top / weights.tag
    work = Work(folder, "samples", settings)
    kept = None if hosts.several() else kept_states(job, model, weights)
    if work.is_done(folder / "summary.json"):
        job.say(f"was finished before: {folder}")
    else:
        analyst = Analyst(job.config, model, prompts, kept)
        params = nested(load_params(job, model, weights))
        sums = analyst.first_pass(params)
        for lines in analyst.second_pass(params, sums, start=work.count()):
            work.append(lines)
        if hosts.is_first():
            warning = pieces_warning(job.config, model.source.tokenizer.tokenizer)
            write_tables(folder, sums, analyst.apologies, settings, warning)
        work.finish()
    if kept is not None:
        kept.remove()
    if hosts.is_first():
        publish(folder, top)
        found = read_json(folder / "summary.json")
        layers = found["safety_layers"]
        if found.get("warning"):
            job.say(f"WARNING: {found['warning']}")
        job.say(found["reason"] if layers is None else f"safety layers: {layers}")
    job.say(f"weights {weights.tag}: {len(prompts)} prompts -> {top / 'layers.csv'}")


def publish(folder: Path, top: Path) -> None:
    """The results of one set of weights as those of the whole job; what others left there goes."""
    for path in top.iterdir():
        if path.is_file():
            path.unlink()
    for path in folder.iterdir():
        if path.name not in (PARTIAL, "samples.done.json"):
            copy(path, top / path.name)


def read_prompts(job: Job) -> list[Prompt]:
    """What config.analyze names; a benchmark that lacks something is an error unless accepted.

    None where the benchmarks are those of job `evaluate` and none says what is harmful.
    """
    cfg = job.config.analyze
    benchmarks = read_benchmarks(job, "analyze.benchmarks")
    check_missing(benchmarks, " (listed above)", partial=job.config.evaluate.partial)
    prompts = make_prompts(
        benchmarks, image_prompt=cfg.image_prompt, scene_prompt=cfg.scene_prompt, limit=cfg.limit
    )
    if not prompts and cfg.benchmarks:
        raise UserError(f"config.analyze.benchmarks: {why_nothing(benchmarks)}")
    if not prompts:  # they are those of job evaluate, which has use for them
        job.say(f"config.evaluate.benchmarks: {why_nothing(benchmarks)}; skipped")
    return prompts


def settings_of(
    config: ConfigDict, model: OpenModel, weights: Weights, prompts: Sequence[Prompt]
) -> dict[str, Any]:
    """All that decides what the analysis says, as summary.json repeats it."""
    tokenizer = model.source.tokenizer.tokenizer
    return {
        **settings_of_states(config, model, weights),
        "profile": analysis_profile(config),
        "apologies": [tokenizer.decode([t]) for t in analysis_apologies(config, tokenizer)],
        "prompts": digest([[p.set for p in prompts], items_digest([p.item for p in prompts])]),
    }
