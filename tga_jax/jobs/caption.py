"""Job `caption`: a LLaVA writes a caption for every image that has none.

Hosts share the work and do not wait for each other: host k of n describes every n-th image and
appends to a log of its own (captioning/log.py). Images are known by name and size, so a run that
was killed, or goes on with another number of hosts or with more samples, repeats nothing. Once the
logs together hold every image, captions.jsonl is written, in the order of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from tga_jax.captioning.captioner import (
    Captioner,
    captioner_config,
    captioner_weights,
    check_values,
)
from tga_jax.captioning.log import CaptionLog, Part, part_of
from tga_jax.captioning.wanted import Wanted, choose
from tga_jax.cluster import hosts
from tga_jax.data.records import Record
from tga_jax.data.side_texts import read_side_files
from tga_jax.errors import UserError
from tga_jax.files import digest, read_json, write_json, write_jsonl
from tga_jax.run.budget import Budget
from tga_jax.run.checks import check_file_of_samples, check_model, check_samples, check_template
from tga_jax.run.job import Job
from tga_jax.run.sample_files import image_folder
from tga_jax.run.usable_rows import usable_records
from tga_jax.run.work import Work


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse samples, an image folder or a model that are not there, and wrong settings."""
    check_file_of_samples(job, before)
    part_of(job.config.caption.shard)
    check_values(job.config.caption)
    if not (job.config.caption.checkpoint or {"pretrain", "finetune"} & {*before}):
        captioner_weights(job, foreign=False)
    # Neither retrieved texts nor prepared data are read here.
    check_samples(job, before=(*before, "caption", "retrieve", "prepare"))
    check_template("caption.template", job.config.caption.template)
    check_model(captioner_config(job.config), before=before)


def run(job: Job) -> None:
    """Write captions.jsonl and caption/report.json, or this host's part of them."""
    folder, path = job.workdir / "caption", job.workdir / "captions.jsonl"
    part = part_of(job.config.caption.shard)
    wanted = choose(read_samples(job, path), image_folder(job.config))
    captioner = Captioner(job)
    about = digest([[*one, wanted.own.get(one), wanted.shown.get(one)] for one in wanted.shows])
    finished = Work(folder, "captions", captioner.settings | {"samples": about})
    if finished.is_done(path):
        job.say(f"was finished before: {path}")
        return
    job.say(", ".join(f"{count} {what}" for what, count in wanted.counts.items()))
    log = CaptionLog(folder, part, captioner.settings)
    images = len(wanted.images)
    budget = Budget(job.config.data.max_bad_fraction, images, say=job.say)
    with jax.set_mesh(captioner.model.mesh):
        write_part(job, captioner, wanted, part, log, budget)
    hosts.barrier("captions are written")
    left = wanted.images.keys() - log.known().keys()
    if left:
        job.say(f"{len(left)} images are left to other hosts, the last of which writes {path}")
    elif part.index == 0 or jax.process_count() == 1:
        report = merge(job, wanted, log, budget)
        write_json(folder / "report.json", report)
        finished.finish()
    hosts.barrier("captions are merged")


def read_samples(job: Job, output: Path) -> list[Record]:
    """config.data's records; `output` itself may be named as the captions' file."""
    data = job.config.data
    if not data.path:
        raise UserError("no samples: set config.data.path to a LLaVA JSON file")
    given = Path(data.captions) if data.captions else None
    same = given is not None and given.resolve() == output.resolve()
    return usable_records(
        [Path(data.path)],
        max_bad_fraction=data.max_bad_fraction,
        say=job.say,
        texts=read_side_files({"captions": None if same else given}),
    )


def write_part(
    job: Job,
    captioner: Captioner,
    wanted: Wanted,
    part: Part,
    log: CaptionLog,
    budget: Budget,
) -> None:
    """Describe this host's images that no log has; those unreadable before are tried again.

    Batches are made of all its readable images, so that a killed run's are those of a whole
    one: sums over other shapes may differ in the last bit.
    """
    mine = list(wanted.images.items())[part.index :: part.count]
    known = {key for key, text in log.known().items() if text is not None}
    new = [(key, one) for key, one in mine if key not in known]
    if not new:
        return
    bad = captioner.unreadable([(key[0], one) for key, one in new])
    for row, error in bad.items():
        budget.refuse(row, error)
    lost = {new[row][0]: str(error) for row, error in bad.items()}
    log.append({"image": n, "bytes": size, "error": text} for (n, size), text in lost.items())
    readable, size = [item for item in mine if item[0] not in lost], captioner.batch_size
    batches = [readable[start : start + size] for start in range(0, len(readable), size)]
    todo = [item for batch in batches for item in batch if any(k not in known for k, _ in batch)]
    for texts in captioner.describe([(key[0], one) for key, one in todo]):
        keys = {row: todo[row][0] for row in texts}
        log.append(
            {"image": keys[row][0], "bytes": keys[row][1], "text": text}
            for row, text in texts.items()
        )
    if captioner.speed:
        speed = job.workdir / "caption" / f"{part}.speed.json"
        write_json(speed, captioner.speed)
        job.say(f"{part}: {captioner.speed['tokens_per_second']:.1f} tokens/s")


def merge(job: Job, wanted: Wanted, log: CaptionLog, budget: Budget) -> dict[str, Any]:
    """All logs -> captions.jsonl; returns the report.

    Raises:
        UserError: the hosts together found too many unreadable images.
    """
    folder, path = job.workdir / "caption", job.workdir / "captions.jsonl"
    known = log.known()
    texts = {key: known[key] for key in wanted.images}
    unreadable = [key[0] for key, text in texts.items() if text is None]
    budget.check(len(unreadable))
    captions = {one: texts[key] for one, key in wanted.shown.items()} | wanted.own
    rows = [
        {"id": one[0], "image": one[1], "caption": captions[one]}
        for one in wanted.shows
        if captions[one]
    ]
    write_jsonl(path, rows)
    empty = sum(text == "" for text in texts.values())
    job.say(f"{len(rows)} captions were written, {empty} empty ones left out -> {path}")
    counts = {
        "pictures": len(texts), "unreadable": len(unreadable), "empty": empty, "written": len(rows)
    }  # fmt: skip
    return {
        "settings": log.settings,
        "counts": wanted.counts | counts,
        "unreadable": unreadable,
        "speed": {
            file.name.removesuffix(".speed.json"): read_json(file)
            for file in sorted(folder.glob("*.speed.json"))
        },
    }
