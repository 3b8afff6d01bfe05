"""The samples of a run: read from where they were found, checked row by row, mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.data.image_files import place_of
from tga_jax.data.lazy_records import has_contents
from tga_jax.data.mixture import Mixture
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record
from tga_jax.data.row_check import Checked, Transform
from tga_jax.data.sample_sets import SampleSet, of_split, prepared_set, read_json_sets
from tga_jax.data.side_texts import SIDE_FILES, read_side_files
from tga_jax.data.stored import TRAIN
from tga_jax.data.usable import usable
from tga_jax.errors import UserError
from tga_jax.files import digest
from tga_jax.run.fingerprint import code_digest, stat_digest
from tga_jax.run.job import Job
from tga_jax.run.sample_files import Content, SampleFiles, image_folder
from tga_jax.run.usable_rows import check_samples
from tga_jax.run.weights import source_digest


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples of a job.

    Attributes:
        records: the usable ones.
        checked: what checking each of their sets found.
        about: "duplicate_ids", and what the files of texts beside them are to them; see
            `data.sample_sets`.
        content: hashes of the files that they come from.
        image_dir: the folder of the images; not used where all sets are prepared data.
    """

    records: Sequence[Record]
    checked: tuple[Checked, ...]
    about: Mapping[str, Mapping[str, Any]]
    content: Content
    image_dir: Path

    @property
    def used(self) -> str:
        """A hash of which samples of which set are usable."""
        return digest([one.to_json()["keep"] for one in self.checked])


def read_samples(
    job: Job, files: SampleFiles, prompter: Prompter, transform: Transform, *, stage: str = ""
) -> Samples:
    """Reads the samples of a stage, or of config.data, and checks every row of them.

    Args:
        job: whose samples they are; it says what is left out and why.
        files: where they come from.
        prompter: makes tokens of the records, as the job will.
        transform: makes pixels of their images, as the job will.
        stage: "pretrain", "finetune" or none.

    Raises:
        UserError: there are none, or more are bad than config.data.max_bad_fraction allows.
    """
    config = job.config
    sets, about = read_sets(config.data, files)
    for one in files.sets:
        if one.report is not None:
            job.say(f"samples and images are those that job prepare put into {one.path}")
    decides = [files.content, str(transform), *prompt_keys(config, stage)]
    folder = Path() if all(one.report for one in files.sets) else image_folder(config, stage)
    checked = tuple(
        check_samples(
            samples,
            max_bad_fraction=config.data.max_bad_fraction,
            image_dir=folder,
            prompter=prompter,
            transform=transform,
            say=job.say,
            cache=job.workdir / "checked",
            decides=[*decides, place, images_digest(samples.records, folder)],
        )
        for place, samples in enumerate(sets)
    )
    records = [usable(s.records, found.keep) for s, found in zip(sets, checked, strict=True)]
    if not files.is_mixture:
        return Samples(records[0], checked, about, files.content, folder)
    weights = [one.weight for one in files.sets]
    return Samples(Mixture(records, weights), checked, about, files.content, folder)


def prompt_keys(config: ConfigDict, stage: str) -> list[Any]:
    """All but the samples and the transform that decides which of them are usable."""
    own = [config[stage][key] for key in ("template", "max_length")] if stage else []
    lengths = ("max_length", "buckets", "caption_buckets")
    data = [config.data[key] for key in (*lengths, "max_bad_fraction", "split", "validation")]
    model = source_digest(config.model)
    return [model, config.prompt.to_dict(), *own, *data, code_digest("data", "hf")]


def read_sets(data: ConfigDict, files: SampleFiles) -> tuple[list[SampleSet], dict[str, Any]]:
    """Returns the sets before they are checked, and what is known of their ids and texts.

    Prepared data has its texts inside: what job `prepare` found is repeated, unless other sets are
    mixed with it.
    """
    unprepared = [one.path for one in files.sets if one.report is None]
    read, about = read_json_sets(unprepared, read_side_files(files.texts) if unprepared else {})
    chosen = iter([_of_split(one, path, data) for one, path in zip(read, unprepared, strict=True)])
    sets = [
        prepared_set(one.path, data.split) if one.report else next(chosen) for one in files.sets
    ]
    report = files.sets[0].report
    if len(files.sets) == 1 and report is not None:
        about = {name: report[name] for name in (*SIDE_FILES, "duplicate_ids") if name in report}
    return sets, about


def _of_split(samples: SampleSet, path: Path, data: ConfigDict) -> SampleSet:
    if not data.validation and data.split == TRAIN:
        return samples
    chosen = of_split(samples, data.split, data.validation)
    if not chosen.records:
        raise UserError(f"{path}: no record is in split {data.split!r}; see config.data.validation")
    return chosen


def images_digest(records: Sequence[Record], image_dir: Path) -> str:
    """A hash of the names, sizes and times of the records' images, none of which is read.

    Prepared data holds its images, whose bytes are part of its content: for it this is constant.
    """
    if has_contents(records):
        return ""
    names = dict.fromkeys(name for record in records for name in record.images)
    return stat_digest(place_of(image_dir, name) for name in names)
