"""The model of job `caption`: a LLaVA with a question of its own, on one host's devices."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from tga_jax.data.images import load_pixels
from tga_jax.data.records import Question
from tga_jax.errors import UserError, refuse_below
from tga_jax.parallel.mesh import host_mesh
from tga_jax.parallel.sharding import batch_shards
from tga_jax.run.answerer import Answerer, greedy
from tga_jax.run.job import Job
from tga_jax.run.model import open_model
from tga_jax.run.prompts import make_prompter
from tga_jax.run.sample_files import image_folder
from tga_jax.run.weights import (
    Weights,
    current_weights,
    load_params,
    model_digest,
    projector_is_new,
)
from tga_jax.training.metrics import Progress
from tga_jax.training.step import nested

CHECKED_AT_ONCE = 1024  # images between two lines of progress


class CountingAnswerer(Answerer):
    """Counts the new tokens, each answer's end token included."""

    tokens = 0

    def text(self, tokens: np.ndarray) -> str:
        """The text of the prompt that asks for a caption; see `Answerer.text`."""
        ends = np.flatnonzero(np.isin(tokens, self.decoding.eos_ids))
        self.tokens += int(ends[0]) + 1 if len(ends) else len(tokens)
        return super().text(tokens)


class Captioner:
    """Describes images with config.caption's model, or else the run's."""

    def __init__(self, job: Job) -> None:
        """Opens the model's folder; the weights are loaded when first used.

        Raises:
            UserError: a value of config.caption has no meaning, or there is no trained model.
        """
        cfg = job.config.caption
        check_values(cfg)
        config, self.question = captioner_config(job.config), cfg.question
        self._job = dataclasses.replace(job, config=config)
        mesh = host_mesh(config.mesh)
        self.model = open_model(self._job, mesh)
        self.weights = captioner_weights(self._job, foreign=bool(cfg.checkpoint))
        ways = batch_shards(mesh)
        self.batch_size = -(-cfg.batch_size // ways) * ways
        self.speed: dict[str, float | int] = {}

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the captions; the batch size does not."""
        config = self._job.config
        return {
            "model": model_digest(self.model, self.weights),
            "question": self.question,
            "template": self.model.prompts.template,
            "prompt_date": self.model.prompts.written_date,
            "system": config.prompt.system,
            "max_new_tokens": config.generate.max_new_tokens,
            "pictures": self.model.image_settings,
            "dtype": config.dtype,
        }

    def unreadable(self, images: Sequence[tuple[str, str]]) -> dict[int, UserError]:
        """Row -> what is wrong, of (name, record's id); each is decoded once for that.

        A broken image is so found before hours of work, and the batches are the same whether
        or not a run was killed.
        """
        folder, transform = image_folder(self._job.config), self.model.transform

        def problem(image: tuple[str, str]) -> UserError | None:
            try:
                load_pixels(folder, image[0], transform=transform, record_id=image[1])
            except UserError as error:
                return error
            return None

        found: list[UserError | None] = []
        progress = Progress("images checked", len(images))
        with ThreadPoolExecutor(os.cpu_count()) as readers:
            for start in range(0, len(images), CHECKED_AT_ONCE):
                found += readers.map(problem, images[start : start + CHECKED_AT_ONCE])
                progress.show(len(found))
        return {row: error for row, error in enumerate(found) if error is not None}

    def describe(self, images: Sequence[tuple[str, str]]) -> Iterator[dict[int, str]]:
        """Yields {row: text} of (name, record's id), a batch at a time; then `speed` is set."""
        questions = [Question(one, name, self.question) for name, one in images]
        if not questions:
            return
        config, folder = self._job.config, image_folder(self._job.config)
        params = nested(load_params(self._job, self.model, self.weights))
        prompter = make_prompter(config, self.model.prompts)
        answerer = CountingAnswerer(config, self.model, prompter, title=self._job.name)
        marks = [(time.monotonic(), 0)]
        every = range(len(questions))
        for new in answerer.replies(questions, every, params, image_dir=lambda row: folder):
            marks.append((time.monotonic(), answerer.tokens))
            yield {row: reply.text for row, reply in new.items()}
        # The first batch compiles, so it does not count unless it is the only one.
        (began, before), (ended, after) = marks[1 if len(marks) > 2 else 0], marks[-1]
        tokens, seconds = after - before, ended - began
        self.speed = {
            "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / max(seconds, 1e-9)
        }  # fmt: skip


def check_values(cfg: ConfigDict) -> None:
    """Refuse values of config.caption that have no meaning."""
    for key in ("batch_size", "max_new_tokens"):
        refuse_below(f"caption.{key}", cfg[key], 1)
    if not cfg.question.strip():
        raise UserError("config.caption.question is empty; say what the model is asked")


def captioner_config(config: ConfigDict) -> ConfigDict:
    """The configuration with config.caption's model, prompt and greedy decoding."""
    config = config.copy_and_resolve_references()
    cfg = config.caption
    with config.unlocked():
        config.generate.update(greedy(cfg))
        config.prompt.retrieved = False
        config.prompt.template = cfg.template or config.prompt.template
        if cfg.checkpoint:
            config.model.checkpoint = cfg.checkpoint
            config.lora.rank = 0
            config.prompt.system = None
            config.data.pad_to_square = "auto"
    return config.lock()


def captioner_weights(job: Job, *, foreign: bool) -> Weights:
    """The weights that describe; those of a `foreign` checkpoint are its files'.

    Raises:
        UserError: nothing has trained the projector yet, or several processes would have to
            restore a stage.
    """
    if foreign:
        return Weights(None, 0, "")
    weights = current_weights(job)
    if projector_is_new(job.config, weights):
        raise UserError(
            "the model's projector is new and not trained: train it first, "
            "or set config.caption.checkpoint"
        )
    if weights.stage is not None and jax.process_count() > 1:
        raise UserError(
            f"several processes cannot caption with the weights of {weights.tag}: run job export "
            "and set config.caption.checkpoint to its folder"
        )
    return weights
