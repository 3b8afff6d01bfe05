"""What can be known to be wrong before any work begins: files, folders, shapes, room on the disk.

No parameter is loaded and nothing is written. Every job has a `check(job, before)` that is made of
these; `before` names the jobs that the same command does earlier, whose outputs may not be there
yet.
"""

from __future__ import annotations

import datetime
import itertools
import math
import operator
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from tga_jax.data.prepared import is_prepared
from tga_jax.data.records import Question
from tga_jax.data.row_check import allowed_bad
from tga_jax.data.side_texts import SIDE_FILES
from tga_jax.data.stored import VALIDATION
from tga_jax.data.templates import TEMPLATE_NAMES
from tga_jax.errors import UserError, refuse_below
from tga_jax.hf.source import Source
from tga_jax.hf.template_choice import choose_template
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
from tga_jax.run.prompt_date import prompt_date
from tga_jax.run.prompts import PromptStyle, caption_buckets, make_prompter, prompt_buckets
from tga_jax.run.sample_files import (
    WRITERS,
    check_prepared_images,
    check_split,
    image_folder,
    named_sets,
    samples_key,
)
from tga_jax.run.stage import trained_counts

LONGEST = 20  # questions whose length is checked before other jobs, with and without an image
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
    """Refuse numbers that are less than what they count allows, and shares that are none."""
    for key, least in LEAST.items():
        refuse_below(key, operator.attrgetter(key)(config), least)
    allowed_bad(config.data.max_bad_fraction, 0)


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
        check_held_out_share(config.data, path)
        if not path and not is_prepared(job.workdir / "data") and MAKES_SAMPLES not in before:
            raise UserError(
                "no samples: set config.data.path to a LLaVA JSON file or to prepared data"
            )
        if path and not Path(path).exists() and MAKES_MODELS not in before:
            raise UserError(f"{samples_key(config, stage)}={path!r}: there is no such file")
        if path and Path(path).is_file():
            image_folder(config, stage)
        if MAKES_SAMPLES not in before:
            check_prepared_images(config, job.workdir, path, stage)
    check_side_files(config.data, before)


def check_held_out_share(data: ConfigDict, path: str) -> None:
    """Refuse to read what is kept out of training where nothing is; "" stands for {workdir}/data.

    Prepared data that a path names has splits of its own.
    """
    if data.split == VALIDATION and not data.validation and not Path(path or "data.json").is_dir():
        raise UserError(
            "config.data.split='validation': config.data.validation is 0, so no sample is in it"
        )


def check_file_of_samples(job: Job, before: Sequence[str]) -> None:
    """Refuse a config.data.path that is no LLaVA file, as `prepare` and writers of texts need."""
    path = job.config.data.path
    if not path:
        raise UserError("no samples: set config.data.path to a LLaVA JSON file")
    if Path(path).is_dir():
        raise UserError(f"config.data.path={path!r}: job {job.name} needs a LLaVA JSON file")
    if not Path(path).exists() and MAKES_MODELS not in before:
        raise UserError(f"config.data.path={path!r}: there is no such file")


def check_side_files(data: ConfigDict, before: Sequence[str]) -> None:
    """Refuse files of texts that are not there, unless an earlier job writes them."""
    for name in SIDE_FILES:
        given = data[name]
        if given and not Path(given).is_file() and not {WRITERS[name], MAKES_MODELS} & {*before}:
            raise UserError(f"config.data.{name}={given!r}: there is no such file")


def check_model(
    config: ConfigDict,
    *,
    before: Sequence[str] = (),
    stage: str = "",
    see: Callable[[PromptStyle], None] | None = None,
) -> Llava | None:
    """Refuse a model that cannot be opened, or prompts that cannot be written for it.

    Args:
        config: the whole configuration.
        before: jobs that the same command does earlier.
        stage: whose template prompts are written in; "": the run's own.
        see: is given the model's files and its prompt style, for what a job refuses of its own.

    Returns:
        The model without parameters; None where an earlier job of the command makes it.
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
    style = prompt_style(config, source)
    make_prompter(
        config, style, template=config[stage].template if stage else "", training=bool(stage)
    )
    if see is not None:
        see(style)
    norm = PixelNorm(tuple(settings["mean"]), tuple(settings["std"]), settings["rescale"])
    compute = compute_of(config, model.remat, jax.default_backend())
    return Llava(as_configured(source.config, config), norm, compute)


def check_questions(
    config: ConfigDict,
    style: PromptStyle,
    questions: Iterable[tuple[Question, Path]],
    *,
    before: Sequence[str],
    system: str | None = None,
) -> None:
    """Refuse questions that are too long, where jobs come before that may take hours.

    Those of the most characters are looked at, as arms by the dozen ask the same. The job itself
    looks at all of them before it loads a parameter.

    Args:
        config: the whole configuration.
        style: how prompts are written.
        questions: each with its image folder.
        before: jobs that the same command does earlier.
        system: the system text, if not the run's own.
    """
    if not before:
        return
    prompter = make_prompter(config, style, system=system)
    by_length = sorted(questions, key=lambda asked: (asked[0].image is None, len(asked[0].text)))
    for _, same in itertools.groupby(by_length, key=lambda asked: asked[0].image is None):
        for question, folder in list(same)[-LONGEST:]:
            prompter.encode_question(question, folder)


def check_lengths(config: ConfigDict, source: Source) -> None:
    """Refuse a config.data.max_length that an image alone fills, even the smallest one."""
    prompt_buckets(config.data), caption_buckets(config.data)  # refuse lengths that are none
    tokens, most = source.config.image_tokens, config.data.max_length
    if tokens >= most:
        raise UserError(
            f"config.data.max_length={most}: an image alone has {tokens} tokens in {source.name}; "
            "set it to more than that"
        )


def prompt_style(config: ConfigDict, source: Source) -> PromptStyle:
    """How prompts will be written, by today's date where the workdir may have another one."""
    name = choose_template(config.prompt.template, source.template_facts).name
    given = config.prompt.date
    date = prompt_date(Path(), given) if given else datetime.date.today()
    return PromptStyle(source, name, date)


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
