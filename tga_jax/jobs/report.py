"""Job `report`: what the other jobs left in the workdir, as one page and as tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from PIL import Image

from tga_jax.config import listed
from tga_jax.data.images import load_image, resolve_image
from tga_jax.errors import UserError
from tga_jax.files import write_json, write_text
from tga_jax.jobs.experiment import lacking
from tga_jax.report.collect import Arm, Run, collect
from tga_jax.report.differences import differences
from tga_jax.report.examples import choose
from tga_jax.report.page import Report, latex, markdown, page
from tga_jax.run.job import Job


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse a config.report.pair that does not name two models, and a workdir with nothing."""
    wanted_pair(job.config.report.pair)
    if not before:
        collect(job.workdir, compare=job.config.evaluate.compare)


def wanted_pair(text: str) -> list[str]:
    """The two names of config.report.pair, or none."""
    wanted = listed(text)
    if len(wanted) not in (0, 2):
        raise UserError(f"config.report.pair={text!r}: write the names of two arms, or nothing")
    return wanted


def run(job: Job) -> None:
    """Write report/index.html, tables.md, tables.tex and metrics.json."""
    config, folder = job.config, job.workdir / "report"
    wanted = wanted_pair(config.report.pair)
    order = [*wanted, *config.experiment.arms]
    found = collect(job.workdir, compare=config.evaluate.compare, order=order)
    arms = pair(found, wanted)
    report = Report(
        run=found,
        pair=arms,
        differences=differences(*arms) if len(arms) == 2 else {},
        examples=choose(arms, config.report.examples, image) if arms else [],
        blur=config.report.blur,
        answers=config.report.answers,
        pair_reason=pair_reason(found, wanted, arms),
        left_out=left_out(config, found),
    )
    rows = [[{"arm": arm.name, **row} for row in arm.rows] for arm in found.arms]
    write_json(folder / "metrics.json", list(itertools.chain.from_iterable(rows)))
    write_text(folder / "tables.md", markdown(report))
    write_text(folder / "tables.tex", latex(report))
    write_text(folder / "index.html", page(report))
    names = ", ".join(arm.name for arm in found.arms) or "no models"
    job.say(f"{names} -> {folder / 'index.html'}")


def pair(found: Run, wanted: list[str]) -> tuple[Arm, ...]:
    """The arms to compare: those of config.report.pair where both are there, else the first two."""
    named = {arm.name: arm for arm in found.arms}
    if wanted and all(name in named for name in wanted):
        return tuple(named[name] for name in wanted)
    return tuple(found.arms[:2])


def pair_reason(found: Run, wanted: list[str], arms: Sequence[Arm]) -> str:
    """Why these two of more models are compared; "" where there is no choice."""
    if len(found.arms) < 3:
        return ""
    names = [arm.name for arm in arms]
    said = f"The headline compares {names[0]} with {names[1]}"
    others = "config.report.pair=A,B compares other models"
    if names == wanted:
        return f"{said}, because config.report.pair names them."
    if wanted:
        lacking = [name for name in wanted if name not in {arm.name for arm in found.arms}]
        return (
            f"{said}, the first two models. config.report.pair names {' and '.join(wanted)}, but "
            f"there is no {' and no '.join(lacking)} here; {others}."
        )
    return f"{said}, because they are the first two of {len(found.arms)} models; {others}."


def left_out(config: ConfigDict, found: Run) -> dict[str, str]:
    """Arm of the experiment -> the key that it needs, where it did not run for want of that."""
    if config.experiment.only:
        return {}
    there = {arm.name for arm in found.arms}
    return {name: key for name, key in lacking(config).items() if name not in there}


def image(folder: str, name: str, question: str) -> Image.Image | None:
    """An image inside its folder; None where it is no longer there or cannot be read."""
    try:
        return load_image(resolve_image(Path(folder), name, record_id=question), record_id=question)
    except UserError:
        return None
