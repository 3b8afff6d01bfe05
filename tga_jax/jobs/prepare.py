"""Job `prepare`: samples and their images, checked, as a TFDS dataset on ArrayRecord in data/.

Everything is written under prepare.tmp/ and renamed to data/ when it is whole; a run that was
killed leaves nothing else behind and is simply run again. With config.prepare.beam the records are
checked and written by Apache Beam, on a cluster that sees the same file system.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.data.image_sets import missing_lines
from tga_jax.data.in_parallel import cores
from tga_jax.data.prepared import is_prepared, read_report
from tga_jax.data.records import Record
from tga_jax.data.side_texts import SIDE_FILES, text_warnings
from tga_jax.data.stored import TRAIN, VALIDATION, split_of
from tga_jax.errors import UserError
from tga_jax.files import write_json
from tga_jax.preparation import tfds_builder
from tga_jax.preparation.check import check_rows
from tga_jax.preparation.inputs import Inputs, about_ids, made_from, read_inputs
from tga_jax.preparation.tally import Tally
from tga_jax.run.checks import check_file_of_samples, check_samples
from tga_jax.run.job import Job
from tga_jax.run.sample_files import image_folder, side_file
from tga_jax.training.metrics import Progress

SECONDS_BETWEEN_LINES = 5.0  # of progress


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse numbers that are none, and samples or an image folder that are not there."""
    share, workers = job.config.data.validation, job.config.prepare.workers
    if not 0 <= share < 1:
        raise UserError(f"config.data.validation={share} must be at least 0 and below 1")
    if workers < -1:
        raise UserError(f"config.prepare.workers={workers} must be -1, 0 or more")
    check_beam(job.config.prepare.beam.split())
    check_file_of_samples(job, before)
    check_samples(job, before=(*before, "prepare"))


def run(job: Job) -> None:
    """Write data/ with data/report.json, and prepare/speed.json."""
    check(job, ())
    share = job.config.data.validation
    data, folder = job.config.data, job.workdir / "data"
    files = {name: side_file(job.config, job.workdir, name) for name in SIDE_FILES}
    inputs, image_dir = read_inputs(data.path, files), image_folder(job.config)
    settings = made_from(
        inputs, image_dir, validation=share, max_bad_fraction=data.max_bad_fraction
    )
    source = str(image_dir.resolve())
    if is_finished(folder, settings):
        remember_images(folder, source)
        job.say(f"was finished before: {folder}")
        return
    splits: dict[str, list[Record]] = {TRAIN: [], VALIDATION: []}
    for record in inputs.records:
        splits[split_of(record, share)].append(record)
    splits = {name: records for name, records in splits.items() if records}
    tally = Tally(data.max_bad_fraction, inputs.total, say=job.say)
    for bad in inputs.bad:
        tally.add_bad("", bad)
    began = time.monotonic()
    with temporary_folder(job.workdir / "prepare.tmp") as temporary:
        new = temporary / "data"
        try:
            counts = write(job.config, new, splits, tally, image_dir)
        except Exception:
            say_missing(job, tally, inputs, image_dir)
            raise
        say_missing(job, tally, inputs, image_dir)
        report = tally.report(counts) | about_ids(inputs) | {"made_from": settings}
        report["image_dir"] = source
        finish(new, report, tally)
        if folder.exists():
            folder.rename(temporary / "old")
        new.rename(folder)
    say_speed(job, tally, time.monotonic() - began, folder, inputs)
    say_findings(job, report)


def check_beam(options: Sequence[str]) -> None:
    """Refuse Beam's options where they are none, or Beam where it is not installed."""
    wrong = next((option for option in options if not option.startswith("--")), None)
    if wrong is not None:
        raise UserError(
            f"config.prepare.beam: {wrong!r} is not an option; options look like "
            "--runner=FlinkRunner"
        )
    if options and importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "config.prepare.beam: Apache Beam is not installed: pip install apache-beam"
        )


def is_finished(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether data/ is there, made from these inputs, with files as long as they were.

    Raises:
        UserError: something else is there.
    """
    if not folder.exists():
        return False
    if not is_prepared(folder):
        raise UserError(f"{folder}: exists, but is no prepared data; move it away")
    try:
        report = read_report(folder)
    except UserError:  # of another version
        return False
    return report["made_from"] == settings and report["files"] == file_sizes(folder)


def remember_images(folder: Path, image_dir: str) -> None:
    """Notes where the images lie now that data/ was made from: jobs refuse another folder."""
    report = read_report(folder)
    if report.get("image_dir") != image_dir:
        write_json(folder / "report.json", report | {"image_dir": image_dir})


def write(
    config: ConfigDict, new: Path, splits: dict[str, list[Record]], tally: Tally, image_dir: Path
) -> dict[str, int]:
    """The dataset; the records go through the tally on their way."""
    if not splits:
        raise UserError(f"{config.data.path}: holds no usable record")
    options = config.prepare.beam.split()
    if options:
        from tga_jax.preparation.beam_rows import beam_examples, read_outcomes

        notes = new.with_name("outcomes")
        counts = tfds_builder.write(
            new,
            list(splits),
            lambda split: beam_examples(splits[split], image_dir, notes / split),
            beam=options,
        )
        for split in splits:
            for outcome in read_outcomes(notes / split):
                tally.add(split, outcome)
        return counts

    workers, total = config.prepare.workers, sum(map(len, splits.values()))
    workers = cores() if workers == -1 else workers
    progress, shown = Progress("prepare", total), time.monotonic()

    def examples(split: str) -> Iterator[tuple[int, Any]]:
        nonlocal shown
        for outcome in check_rows(splits[split], image_dir, workers=workers):
            tally.add(split, outcome)
            if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
                shown = time.monotonic()
                progress.show(tally.seen)
            if outcome.example is not None:
                yield tfds_builder.spread_key(outcome.number, tally.total), outcome.example
        tally.check_split(split)

    return tfds_builder.write(new, list(splits), examples)


def finish(new: Path, report: dict[str, Any], tally: Tally) -> None:
    """Index and report beside the dataset, all of it on the disk."""
    for split in report["splits"]:
        tally.write_index(new, split)
    write_json(new / "report.json", report | {"files": file_sizes(new)})
    for path in new.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file but the report."""
    files = sorted(path for path in folder.iterdir() if path.name != "report.json")
    return {path.name: path.stat().st_size for path in files}


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    try:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def say_missing(job: Job, tally: Tally, inputs: Inputs, image_dir: Path) -> None:
    """Which images of which sets are not there.

    Where no row was left out none is missing, and looking for each again is not free.
    """
    for line in missing_lines(inputs.records, image_dir) if tally.skipped else ():
        job.say(line)


def say_findings(job: Job, report: dict[str, Any]) -> None:
    """What of the samples is not used as it is written, and which texts are nobody's."""
    counts = {
        'samples marked "tox", with a blank image': report["tox"],
        "first gpt turns left out": report["left_out_turns"],
        "images scaled to 8 bits": report["scaled_pictures"],
        "ids that occur twice": report["duplicate_ids"]["count"],
    }
    said = [f"{count} {what}" for what, count in counts.items() if count]
    for line in [*([", ".join(said)] if said else []), *text_warnings(report)]:
        job.say(line)


def say_speed(job: Job, tally: Tally, seconds: float, folder: Path, inputs: Inputs) -> None:
    """What came of it; times are kept apart from data/, which is the same from run to run."""
    speed = {"pictures": tally.images, "seconds": round(seconds, 3)}
    speed |= {"images_per_second": round(tally.images / max(seconds, 1e-9), 1)}
    write_json(job.workdir / "prepare" / "speed.json", speed)
    skipped = f", {tally.skipped} skipped (see report.json)" if tally.skipped else ""
    job.say(
        f"{tally.seen - tally.skipped} of {inputs.total} records{skipped}, {tally.images} "
        f"images, {speed['images_per_second']}/s -> {folder}"
    )
