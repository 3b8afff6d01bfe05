"""The refusal direction that the defence "steering" adds, from the development texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tga_jax.analysis.analyst import Analyst, reference_of
from tga_jax.analysis.prompts import Prompt, make_prompts
from tga_jax.analysis.tables import Sums, direction_kind, safety_layers_of
from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.development import KEY
from tga_jax.evaluation.examinee import Examinee
from tga_jax.evaluation.items import lacking_kind
from tga_jax.evaluation.steering import Direction
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel


class NoDirection(UserError):
    """The model gives no direction to steer along."""


def text_prompts(job: Job, development: Sequence[Benchmark]) -> list[Prompt]:
    """The harmful and harmless texts among the development benchmarks, and images' captions.

    Raises:
        UserError: there are none of one of the two.
    """
    cfg = job.config.analyze
    prompts = make_prompts(
        development, image_prompt=cfg.image_prompt, scene_prompt=cfg.scene_prompt, limit=cfg.limit
    )
    texts = [prompt for prompt in prompts if prompt.kind != "images"]
    word = lacking_kind(prompt.harmful for prompt in texts)
    if word:
        raise UserError(
            f"{KEY}: has no {word} texts and no captions of {word} images, from which steering "
            "takes the refusal direction; add texts:FILE"
        )
    return texts


def find_direction(
    job: Job, model: OpenModel, examinee: Examinee, prompts: Sequence[Prompt]
) -> Direction:
    """The direction at config.evaluate.steering.layer, or at the first safety layer.

    Raises:
        UserError: the model has no such layer.
        NoDirection: it refuses all or none of the texts, or has no safety layers.
    """
    analyst = Analyst(job.config, model, prompts)
    decoder, layer = model.llava.config.decoder, job.config.evaluate.steering.layer
    if not 0 <= layer <= decoder.layers:
        raise UserError(
            f"config.evaluate.steering.layer={layer}: the model has layers "
            f"1..{decoder.layers}, and 0 takes the first safety layer"
        )
    sums = analyst.first_pass(examinee.params)
    kind = direction_kind(sums)
    if kind is None:
        raise NoDirection(
            f"{KEY}: the model refuses all of its texts, or none: that gives no refusal direction "
            "to steer along; name other texts"
        )
    layer = layer or _first_safety_layer(sums, analyst.apologies)
    found = reference_of(sums, decoder.layers, decoder.width)
    vector = np.asarray(found.length[:, None] * found.direction, np.float32)[layer - 1]
    return Direction(layer, decoder.layers, kind, tuple(vector.tolist()))


def _first_safety_layer(sums: Sums, apologies: tuple[int, ...]) -> int:
    layers, reason = safety_layers_of(sums, apologies)
    if layers is None:
        raise NoDirection(f"{reason}; or name the layer: config.evaluate.steering.layer")
    return int(layers.partition("-")[0])
