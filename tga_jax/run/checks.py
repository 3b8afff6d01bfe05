"""What can be known to be wrong before any work begins: files, folders, shapes, room on the disk.

No parameter is loaded and nothing is written. Every job has a `check(job, before)` that is made of
these; `before` names the jobs that the same command does earlier, whose outputs may not be there
yet.
"""

from __future__ import annotations

import math
import operator
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tga_jax.data.prepared import is_prepared
from tga_jax.data.side_texts import SIDE_FILES
from tga_jax.data.templates import TEMPLATE_NAMES
from tga_jax.errors import UserError, refuse_below
from tga_jax.hf.source import Source
from tga_jax.models.llava import Llava, PixelNorm
from tga_jax.parallel.sharding import shapes
from tga_jax.run.guide import guide_config
from tga_jax.run.job import Job
from tga_jax.run.model import (
    as_configured,
    compute_of,
    image_settings,
    image_transform,
    open_source,
)
from tga_jax.run.sample_files import WRITERS, check_split, image_folder, named_sets, samples_key
from tga_jax.run.stage import trained_counts

TRAINED_BYTES = 12  # a float32 parameter and its two moments, as a checkpoint holds them
# What counts something in jobs that have no check of their own for it.
LEAST = {
    "seed": 0,
    "data.workers": 0,
    "score.batch_size": 1,
    "retrieval.batch_size": 1,
    "retrieval.top_k": 1,
    "evaluate.local.batch_size": 1,
    "evaluate.llava_judge.batch_size": 1,
}
MAKES_MODELS, MAKES_SAMPLES = "miniature", "prepare"


def check_numbers(config: ConfigDict) -> None:
    """Refuse numbers that are less than what they count allows."""
    for key, least in LEAST.items():
        refuse_below(key, operator.attrgetter(key)(config), least)


def check_template(key: str, name: str) -> None:
    """Refuse a prompt template that there is not; "" stands for the run's own."""
    known = ("auto", *TEMPLATE_NAMES)
    if name and name not in known:
        raise UserError(
            f"config.{key}={name!r}: there is no such template; name one of {', '.join(known)}"
        )


def check_guide(job: Job, before: Sequence[str], llava: Llava, stage: str = "") -> None:
    """Refuse a guide without a meaning; layers that an earlier job finds are not known yet."""
    guide = job.config.guide
    if guide.layers.strip() != "auto" or "analyze" not in before:
        guide_config(job.config, job.workdir, llava.config.decoder.layers, stage)


def check_samples(job: Job, stage: str = "", *, before: Sequence[str] = ()) -> None:
    """Refuse samples, files of texts beside them, or an image folder that are not there."""
    config = job.config
    check_split(config.data)
    for path, _ in named_sets(config, stage):
        if not path and not is_prepared(job.workdir / "data") and MAKES_SAMPLES not in before:
            raise UserError(
                "no samples: set config.data.path to a LLaVA JSON file or to prepared data"
            )
        if path and not Path(path).exists() and MAKES_MODELS not in before:
            raise UserError(f"{samples_key(config, stage)}={path!r}: there is no such file")
        if path and Path(path).is_file():
            image_folder(config, stage)
    for name in SIDE_FILES:
        given = config.data[name]
        if given and not Path(given).is_file() and not {WRITERS[name], MAKES_MODELS} & {*before}:
            raise UserError(f"config.data.{name}={given!r}: there is no such file")


def check_model(config: ConfigDict, *, before: Sequence[str] = ()) -> Llava | None:
    """Refuse a model that cannot be opened; returns it without parameters.

    Returns:
        None where an earlier job of the command makes the model.
    """
    model = config.model
    names = (model.checkpoint,) if model.checkpoint else (model.vision, model.llm)
    if MAKES_MODELS in before and any(name and not Path(name).exists() for name in names):
        return None
    source = open_source(model)
    settings = image_settings(source, config.data.pad_to_square)
    image_transform(source, settings)
    check_template("prompt.template", config.prompt.template)
    check_lengths(config, source)
    norm = PixelNorm(tuple(settings["mean"]), tuple(settings["std"]), settings["rescale"])
    compute = compute_of(config, model.remat, jax.default_backend())
    return Llava(as_configured(source.config, config), norm, compute)


def check_lengths(config: ConfigDict, source: Source) -> None:
    """Refuse a config.data.max_length that an image alone fills, even the smallest one."""
    tokens, most = source.config.image_tokens, config.data.max_length
    if tokens >= most:
        raise UserError(
            f"config.data.max_length={most}: an image alone has {tokens} tokens in {source.name}; "
            "set it to more than that"
        )


def check_checkpoint_room(llava: Llava, factors: dict[str, float | None], folder: Path) -> None:
    """Refuse a disk without room for one checkpoint of the trained parameters and their moments."""
    trained = sum(trained_counts(llava, factors).values())
    check_room(folder, trained * TRAINED_BYTES, "a checkpoint")


def check_export_room(llava: Llava, dtype: str, folder: Path) -> None:
    """Refuse a disk without room for the exported parameters."""
    sizes = shapes(llava.abstract_params())
    total = sum(map(math.prod, sizes.values()))
    check_room(folder, total * jnp.dtype(dtype).itemsize, "the exported model")


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse a disk that has less room than `what` needs at the least."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        unit, name = (1e9, "GB") if needed_bytes >= 1e8 else (1e6, "MB")
        raise UserError(
            f"--workdir={folder}: {what} needs at least {needed_bytes / unit:.1f} {name}, and the "
            f"disk has {free / unit:.1f} {name} left; make room or use another --workdir"
        )
