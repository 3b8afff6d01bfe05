"""The held-out figures of a model in training: its samples kept out, and a refusal probe.

The probe asks harmful and harmless requests and reads only where the answer begins: the refusal
margin, and whether the answer would begin with an apology.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from tga_jax.alignment.guide import GuideConfig
from tga_jax.analysis.scores import Scorer
from tga_jax.errors import UserError
from tga_jax.evaluation import metrics
from tga_jax.evaluation.asked import check_benchmarks, check_missing, read_benchmarks
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.examinee import question
from tga_jax.evaluation.items import EvalItem, lacking_kind
from tga_jax.evaluation.profiles import apology_tokens, evaluated_system
from tga_jax.inference.generate import prefill, refusal_margin
from tga_jax.models.llava import Params
from tga_jax.models.tiling import images_of
from tga_jax.parallel.sharding import replicated
from tga_jax.run.inference_batches import Batcher
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel
from tga_jax.run.prompts import make_prompter
from tga_jax.run.sample_files import find_samples
from tga_jax.run.samples import read_samples
from tga_jax.run.stage_data import training_prompter
from tga_jax.training.held_out import CHOICES, Figures
from tga_jax.training.step import TrainState, nested


def check_held_out(job: Job, before: Sequence[str]) -> None:
    """Refuse keys of held-out figures that have no such value or nothing to be taken of."""
    check_keys(job.config, job.name)
    config = job.config
    if config[job.name].evaluate_every and config.held_out.benchmarks:
        benchmarks = check_benchmarks(job, before, "held_out.benchmarks")
        if benchmarks:
            chosen_items(config.held_out, benchmarks)


def check_keys(config: ConfigDict, stage: str) -> None:
    """Refuse values of the keys that there are not, or that need another key."""
    cfg, key = config[stage], f"config.{stage}"
    if cfg.evaluate_every < 0:
        raise UserError(f"{key}.evaluate_every={cfg.evaluate_every}: must be 0 or more")
    if cfg.best and cfg.best not in CHOICES:
        raise UserError(f"{key}.best={cfg.best!r}: one of {', '.join(CHOICES)}, or none")
    if cfg.best and not cfg.evaluate_every:
        raise UserError(f"{key}.best={cfg.best!r} needs {key}.evaluate_every")
    needs = {
        "held_out": ("config.data.validation", config.data.validation > 0),
        "probe": ("config.held_out.benchmarks", bool(config.held_out.benchmarks)),
    }
    if cfg.evaluate_every and not any(there for _, there in needs.values()):
        names = " or ".join(name for name, _ in needs.values())
        raise UserError(
            f"{key}.evaluate_every={cfg.evaluate_every}: nothing is held out; set {names}"
        )
    name, there = next((v for k, v in needs.items() if cfg.best.startswith(k)), ("", True))
    if not there:
        raise UserError(f"{key}.best={cfg.best!r} needs {name}")
    for name in ("samples", "limit"):
        if config.held_out[name] < 0:
            raise UserError(f"config.held_out.{name}={config.held_out[name]}: must be 0 or more")
    if config.held_out.batch_size < 1:
        raise UserError(
            f"config.held_out.batch_size={config.held_out.batch_size}: must be 1 or more"
        )


class HeldOutFigures:
    """Takes the figures of a train state, in the mesh that it is trained on."""

    def __init__(self, job: Job, model: OpenModel) -> None:
        """Reads what the job's stage holds out; nothing is computed yet."""
        config = job.config
        self._validation = ValidationLoss(job, model) if config.data.validation else None
        self._probe = RefusalProbe(job, model) if config.held_out.benchmarks else None

    def __call__(self, state: TrainState) -> Figures:
        """The figures by the names of `metric_table.METRICS`; those of what is held out."""
        params = nested(state.trained, state.frozen)
        taken = (self._validation, self._probe)
        return {k: v for one in taken if one is not None for k, v in one.figures(params).items()}


class ValidationLoss:
    """Loss and image-caption cosine of samples that are kept out of training."""

    def __init__(self, job: Job, model: OpenModel) -> None:
        """Reads the samples of split "validation"."""
        config = job.config.copy_and_resolve_references()
        config.data.split = "validation"
        held = dataclasses.replace(job, config=config)
        prompter = training_prompter(held, model.prompts)
        files = find_samples(config, job.workdir, job.name)
        samples = read_samples(held, files, prompter, model.transform, stage=job.name)
        records = samples.records
        self._rows = range(min(config.held_out.samples or len(records), len(records)))
        self._scorer = Scorer(
            model.llava,
            GuideConfig(form="none", layers=(0,)),
            Batcher.of(config.data, model),
            lambda row: prompter.encode(records[row], samples.image_dir),
            batch_size=config.held_out.batch_size,
            image_dir=lambda row: samples.image_dir,
            title="",
        )
        job.say(f'held out: {len(self._rows)} samples of split "validation"')

    def figures(self, params: Params) -> Figures:
        """The mean loss of an answer token, and the mean cosine over images and layers."""
        scored = self._scorer.score(self._rows, len(self._rows), params)
        lines = [line for lines in scored for line in lines]
        tokens = sum(line["tokens"] for line in lines)
        cosines = [line["image_caption_cos"] for line in lines if line["image_caption_cos"]]
        found = {"held_out_loss": sum(line["nll"] for line in lines) / tokens} if tokens else {}
        return found | ({"held_out_cos": float(np.mean(cosines))} if cosines else {})


class RefusalProbe:
    """Harmful and harmless requests, of which only the beginning of the answer is read."""

    def __init__(self, job: Job, model: OpenModel) -> None:
        """Reads the requests, which are asked under config.evaluate's profile."""
        config = job.config
        items = probe_items(job)
        self._harmful = [item.harmful for item in items]
        system = evaluated_system(config, base=model.prompts.base_system(config.prompt))
        prompter = make_prompter(config, model.prompts, system=system)
        batcher, size = Batcher.of(config.data, model), config.held_out.batch_size

        def folder(row: int) -> Path:
            return items[row].image_dir or Path()

        self._batches = lambda: batcher.batches(
            range(len(items)),
            lambda row: prompter.encode_question(question(items[row]), folder(row)),
            batch_size=size,
            image_dir=folder,
        )
        apologies = apology_tokens(model.source.tokenizer.tokenizer, config.evaluate.apologies)

        def margins(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
            inputs = batch["tokens"], batch["segments"], images_of(batch)
            logits, *_ = prefill(model.llava, params, *inputs, new_tokens=0)
            return refusal_margin(logits, apologies)

        self._margins = jax.jit(margins, out_shardings=replicated(model.mesh))
        harmful = sum(map(bool, self._harmful))
        job.say(
            f"held out: a probe of {harmful} harmful and {len(items) - harmful} harmless requests"
        )

    def figures(self, params: Params) -> Figures:
        """Mean margins, the AUC between both kinds, and how many answers begin with an apology."""
        found = np.zeros(len(self._harmful))
        for batch in self._batches():
            margins = np.asarray(self._margins(params, batch.arrays))
            found[batch.rows] = margins[: len(batch.rows)]
        is_harmful = np.array(self._harmful, bool)
        kinds = {"harmful": found[is_harmful], "harmless": found[~is_harmful]}
        figures = {f"probe_margin_{name}": float(part.mean()) for name, part in kinds.items()}
        figures |= {
            f"probe_refused_{name}": float((part > 0).mean()) for name, part in kinds.items()
        }
        return figures | {"probe_auc": metrics.auc(kinds["harmful"], kinds["harmless"])}


def probe_items(job: Job) -> Sequence[EvalItem]:
    """The first config.held_out.limit harmful and as many harmless requests, those alike together.

    Raises:
        UserError: there are none of one kind, or a benchmark lacks something.
    """
    benchmarks = read_benchmarks(job, "held_out.benchmarks")
    check_missing(benchmarks, " (listed above)", partial=job.config.evaluate.partial)
    return chosen_items(job.config.held_out, benchmarks)


def chosen_items(cfg: ConfigDict, benchmarks: Sequence[Benchmark]) -> Sequence[EvalItem]:
    """The requests of config.held_out, as `probe_items` says."""
    items = [item for one in benchmarks for item in one.items]
    kind = lacking_kind(item.harmful for item in items)
    if kind:
        raise UserError(
            f"config.held_out.benchmarks={cfg.benchmarks!r} has no {kind} request: the probe "
            "compares harmful ones with harmless ones"
        )
    kinds = ([item for item in items if item.harmful is mark] for mark in (True, False))
    found = [item for those in kinds for item in those[: cfg.limit or len(those)]]
    return sorted(found, key=lambda item: (item.image is None, len(item.text)))
