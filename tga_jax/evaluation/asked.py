"""Reads every benchmark that is to be asked, before any model is loaded."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path

from tga_jax.cluster import hosts
from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import Benchmark, load
from tga_jax.evaluation.benchmarks.registry import Entry, parse_entries
from tga_jax.evaluation.items import DUPLICATE_OF
from tga_jax.evaluation.wrappers import draw_images
from tga_jax.run.job import Job

BENCHMARKS = "evaluate.benchmarks"  # the key of the configuration that names them, under config


def check_benchmarks(job: Job, before: Sequence[str], key: str = BENCHMARKS) -> list[Benchmark]:
    """Refuse benchmarks that are not there or not whole; nothing is drawn and no image is read.

    Args:
        job: whose benchmarks they are.
        before: jobs that run earlier; "miniature" writes benchmarks of its own.
        key: of the configuration that names them; where it is empty, config.evaluate.benchmarks.

    Returns:
        The benchmarks; none where an earlier job writes them.

    Raises:
        UserError: one is missing, or lacks files and config.evaluate.partial is not set.
    """
    entries = _entries(job, key)
    if "miniature" in before:
        return []
    benchmarks = [_loaded(job, entry) for entry in entries]
    lost = [part.what for benchmark in benchmarks for part in benchmark.missing]
    where = f": {lost[0]}" if lost else ""
    check_missing(benchmarks, where, partial=job.config.evaluate.partial)
    return benchmarks


def read_benchmarks(job: Job, key: str = BENCHMARKS) -> list[Benchmark]:
    """Everything that will be asked, read, drawn and checked before any model is loaded.

    `key` is as for `check_benchmarks`; what is missing is said and is no error yet.
    """
    benchmarks = []
    for benchmark in (_loaded(job, entry) for entry in _entries(job, key)):
        if hosts.is_first():
            draw_images(benchmark.items)
        hosts.barrier("images are drawn")
        for scene in dict.fromkeys(part.scene for part in benchmark.missing):
            lost = [part for part in benchmark.missing if part.scene == scene]
            where = f"{benchmark.name} {scene}".strip()
            job.say(f"MISSING in {where}: {lost[0].what}{_more(len(lost) - 1)}")
        twice = sum(DUPLICATE_OF in item.extra for item in benchmark.items)
        if twice:
            job.say(f"{benchmark.name}: {twice} ids occur twice; the second is called ID#2")
        benchmarks.append(benchmark)
    return benchmarks


def _entries(job: Job, key: str) -> list[Entry]:
    """What a key names, or else config.evaluate.benchmarks."""
    asked, text = key, operator.attrgetter(key)(job.config)
    key, text = (key, text) if text else (BENCHMARKS, job.config.evaluate.benchmarks)
    entries = parse_entries(text, key=f"config.{key}")
    if not entries:
        raise UserError(f"no benchmarks: set config.{asked} to KIND:PATH,KIND:PATH,...")
    return entries


def _loaded(job: Job, entry: Entry) -> Benchmark:
    images = Path(job.config.data.image_dir) if job.config.data.image_dir else None
    drawings = job.workdir / "evaluate" / entry.name / "pictures"
    return load(entry, drawings=drawings, images=images)


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def check_missing(benchmarks: Sequence[Benchmark], where: str, *, partial: bool) -> None:
    """A run is not done while something that was asked for could not be asked.

    Args:
        benchmarks: what was asked for.
        where: what is missing in detail, for the message.
        partial: config.evaluate.partial, which accepts it.
    """
    lacking = [benchmark.name for benchmark in benchmarks if benchmark.missing]
    if lacking and not partial:
        raise UserError(
            f"missing from {', '.join(lacking)}{where}; add what is missing, or accept it "
            "with --config.evaluate.partial=true"
        )
