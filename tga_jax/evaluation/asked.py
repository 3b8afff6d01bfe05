"""Reads every benchmark that is to be asked, before any model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tga_jax.cluster import hosts
from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import Benchmark, load
from tga_jax.evaluation.benchmarks.registry import parse_entries
from tga_jax.evaluation.items import DUPLICATE_OF
from tga_jax.evaluation.wrappers import draw_images
from tga_jax.run.job import Job


def check_benchmarks(job: Job, before: Sequence[str], text: str = "") -> list[Benchmark]:
    """Refuse benchmarks that are not there or not whole; nothing is drawn and no image is read.

    Args:
        job: whose config.evaluate.benchmarks they are.
        before: jobs that run earlier; "miniature" writes benchmarks of its own.
        text: stands in for config.evaluate.benchmarks.

    Returns:
        The benchmarks; none where an earlier job writes them.

    Raises:
        UserError: one is missing, or lacks files and config.evaluate.partial is not set.
    """
    config = job.config
    entries = parse_entries(text or config.evaluate.benchmarks)
    if not entries:
        raise UserError("no benchmarks: set config.evaluate.benchmarks to KIND:PATH,KIND:PATH,...")
    if "miniature" in before:
        return []
    images = Path(config.data.image_dir) if config.data.image_dir else None
    drawings = job.workdir / "evaluate"
    benchmarks = [
        load(entry, drawings=drawings / entry.name / "pictures", images=images) for entry in entries
    ]
    lost = [part.what for benchmark in benchmarks for part in benchmark.missing]
    check_missing(benchmarks, f": {lost[0]}" if lost else "", partial=config.evaluate.partial)
    return benchmarks


def read_benchmarks(job: Job, text: str = "") -> list[Benchmark]:
    """Everything that will be asked, read and checked before any model is loaded.

    `text` stands in for config.evaluate.benchmarks.
    """
    config, folder = job.config, job.workdir / "evaluate"
    entries = parse_entries(text or config.evaluate.benchmarks)
    if not entries:
        raise UserError("no benchmarks: set config.evaluate.benchmarks to KIND:PATH,KIND:PATH,...")
    images = Path(config.data.image_dir) if config.data.image_dir else None
    benchmarks = []
    for entry in entries:
        benchmark = load(entry, drawings=folder / entry.name / "pictures", images=images)
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
