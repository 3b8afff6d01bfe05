"""The defence that config.evaluate names, with what it chooses on the development benchmarks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from tga_jax.analysis.direction import NoDirection, find_direction, text_prompts
from tga_jax.analysis.prompts import analysis_profile
from tga_jax.errors import UserError
from tga_jax.evaluation.asked import check_benchmarks
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.defence import Defence
from tga_jax.evaluation.development import (
    DEVELOPMENT,
    KEY,
    all_items,
    check_apart,
    chosen,
    few_images,
)
from tga_jax.evaluation.ecso import Ecso, Prompts
from tga_jax.evaluation.examinee import Examinee
from tga_jax.evaluation.items import items_digest
from tga_jax.evaluation.judges import Judge
from tga_jax.evaluation.steering import Direction, Steering, check_strengths, choose, try_strengths
from tga_jax.evaluation.zero_shot import Detector, ZeroShot, read_descriptors, threshold_choice
from tga_jax.retrieval.clip_embedder import ClipEmbedder, check_clip
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel

NAMES = ("none", "ecso", "zero_shot", "steering")


def check_defence(job: Job, before: Sequence[str], asked: Sequence[Benchmark]) -> None:
    """Refuse a config.evaluate.defence that there is not, or that lacks what it needs.

    Args:
        job: whose configuration it is.
        before: jobs that run earlier.
        asked: the benchmarks whose figures count, where they are there already.
    """
    cfg = job.config.evaluate
    if cfg.defence not in NAMES:
        raise UserError(
            f"config.evaluate.defence={cfg.defence!r} must be one of {', '.join(NAMES)}"
        )
    if not 0 <= cfg.development_over_refusal <= 1:
        raise UserError(
            f"config.evaluate.development_over_refusal={cfg.development_over_refusal}: "
            "must lie in 0..1"
        )
    if cfg.defence == "ecso":
        Prompts.of(cfg.ecso)
    if cfg.defence == "zero_shot":
        check_clip(job.config.retrieval.clip, before)
        read_descriptors(cfg.zero_shot.descriptors)
    if cfg.defence == "steering":
        check_strengths(cfg.steering.strengths)
    if chooses(job):
        if not cfg.development:
            raise UserError(
                f"{KEY} is empty: the defence {cfg.defence} chooses on harmful and harmless "
                "questions that are not asked later; name them as KIND:PATH"
            )
        check_apart(check_benchmarks(job, before, DEVELOPMENT), asked)


def chooses(job: Job) -> bool:
    """Whether the defence needs development benchmarks."""
    cfg = job.config.evaluate
    return cfg.defence == "steering" or (
        cfg.defence == "zero_shot" and cfg.zero_shot.threshold is None
    )


def make_defence(
    job: Job,
    model: OpenModel,
    examinee: Examinee,
    development: Sequence[Benchmark],
    judge: Judge,
) -> Defence:
    """The defence of config.evaluate.defence.

    Args:
        job: whose configuration it is.
        model: the model under test, opened.
        examinee: the same, undefended.
        development: the benchmarks to choose on.
        judge: says what a refusal is, where strengths are compared.

    Raises:
        UserError: the development benchmarks lack what the defence chooses by.
    """
    cfg = job.config.evaluate
    if cfg.defence == "ecso":
        return Ecso(Prompts.of(cfg.ecso))
    if cfg.defence == "zero_shot":
        return _zero_shot(job, model, development)
    if cfg.defence == "steering":
        return _steering(job, model, examinee, development, judge)
    return Defence()


def _zero_shot(job: Job, model: OpenModel, development: Sequence[Benchmark]) -> ZeroShot:
    cfg, items = job.config.evaluate, all_items(development)
    size, rate = job.config.generate.batch_size, cfg.development_over_refusal
    clip = ClipEmbedder(job.config.retrieval.clip, model.mesh, batch_size=size, say=job.say)
    detector = Detector(clip, read_descriptors(cfg.zero_shot.descriptors))
    threshold = cfg.zero_shot.threshold
    if threshold is None:
        signature = {**detector.settings, "items": items_digest(items), "over_refusal": rate}
        make = functools.partial(threshold_choice, detector, items, rate)
        threshold = chosen(job, signature, make)["threshold"]
        job.say(f"zero_shot: threshold {threshold:.4g}, chosen on the development images")
    return ZeroShot(detector, threshold, cfg.zero_shot.refusal)


def _steering(
    job: Job,
    model: OpenModel,
    examinee: Examinee,
    development: Sequence[Benchmark],
    judge: Judge,
) -> Steering:
    cfg, prompts = job.config.evaluate, text_prompts(job, development)
    folder, rate = job.workdir / "defence", cfg.development_over_refusal

    def make() -> dict[str, Any]:
        try:
            direction = find_direction(job, model, examinee, prompts)
        except NoDirection as problem:
            return {"strength": 0.0, "tried": [], "direction": None, "why": str(problem)}
        job.say(f"steering: direction of {direction.kind}, at layer {direction.layer}")
        strengths = cfg.steering.strengths
        tried = try_strengths(
            examinee, direction, development, judge, strengths=strengths, folder=folder
        )
        return {
            "strength": choose(tried, rate),
            "tried": [dataclasses.asdict(one) for one in tried],
            "direction": dataclasses.asdict(direction),
            "warning": few_images(all_items(development)),
        }

    signature = {
        **examinee.settings,
        "steering": cfg.steering.to_dict(),
        "over_refusal": rate,
        "items": items_digest(all_items(development)),
        "texts": [analysis_profile(job.config), items_digest([p.item for p in prompts])],
        "judge": judge.version,
    }
    found = chosen(job, signature, make)
    none = "within the bound none refuses more than the model does"
    why = "" if found["strength"] else f", as {found.get('why', none)}"
    job.say(f"steering: strength {found['strength']:g}{why} -> {folder / 'choice.json'}")
    direction = found["direction"] and Direction(**found["direction"])
    return Steering(direction, found["strength"])
