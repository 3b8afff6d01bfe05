"""The development benchmarks: on which a defence chooses, and of which nothing is asked later."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tga_jax.cluster import shared_files
from tga_jax.errors import UserError
from tga_jax.evaluation.asked import check_missing, read_benchmarks
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.items import DRAWN, UNWRAPPED, EvalItem
from tga_jax.evaluation.result import FEW
from tga_jax.run.job import Job
from tga_jax.run.work import Work

DEVELOPMENT = "evaluate.development"  # the key of the configuration, under config
KEY = f"config.{DEVELOPMENT}"


def read_development(job: Job, asked: Sequence[Benchmark]) -> list[Benchmark]:
    """The benchmarks of config.evaluate.development; none where it is empty.

    Args:
        job: whose configuration names them.
        asked: the benchmarks whose figures count.

    Raises:
        UserError: one is missing or incomplete, or has an image or a text that is asked, too.
    """
    if not job.config.evaluate.development:
        return []
    development = read_benchmarks(job, DEVELOPMENT)
    check_missing(development, f" ({KEY})", partial=job.config.evaluate.partial)
    check_apart(development, asked)
    return development


def check_apart(development: Sequence[Benchmark], asked: Sequence[Benchmark]) -> None:
    """Refuse development benchmarks that have an image or a text which is asked, too."""
    known = {about(item): b.name for b in asked for item in b.items}
    shared = [item for item in all_items(development) if about(item) in known]
    if shared:
        first = shared[0]
        shown = str(first.image if isinstance(about(first), Path) else about(first))[:60]
        raise UserError(
            f"{KEY}: {len(shared)} of its questions are about what benchmark "
            f"{known[about(first)]} asks too, like {shown!r}. A "
            "defence must choose on other data than it is measured on: divide a benchmark with "
            "?part=development here and ?part=test there"
        )


def all_items(benchmarks: Sequence[Benchmark]) -> list[EvalItem]:
    """The items of several benchmarks."""
    return list(itertools.chain.from_iterable(benchmark.items for benchmark in benchmarks))


def about(item: EvalItem) -> Path | str:
    """What a question is about: its image's file, or its own text before any wrapper."""
    if item.image is None or item.image_dir is None or DRAWN in item.extra:
        return str(item.extra.get(UNWRAPPED, item.text))
    return (item.image_dir / item.image).resolve()


def few_images(development: Sequence[EvalItem], *, kinds: Sequence[bool] = (True, False)) -> str:
    """What is to be said of a choice on few images of a kind; "" where there are enough.

    Args:
        development: the items that it was chosen on, of which images count.
        kinds: whether harmful ones, harmless ones or both decide.
    """
    names = {True: "harmful", False: "harmless"}
    counts = {
        names[kind]: len(
            {about(i) for i in development if i.image is not None and i.harmful is kind}
        )
        for kind in kinds
    }
    few = [f"{count} {name}" for name, count in counts.items() if count < FEW]
    if not few:
        return ""
    return (
        f"chosen on {' and '.join(few)} images, which are few: on others it may do much better or "
        f"worse; {FEW} or more of a kind say more ({KEY})"
    )


def chosen(
    job: Job, signature: dict[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What a defence chose, from defence/choice.json where that was made for the same signature.

    A "warning" in it is said.
    """
    folder = job.workdir / "defence"
    work, path = Work(folder, "choice", signature), folder / "choice.json"
    if not work.is_done(path):
        shared_files.write_json(path, make())
        work.finish()
    found = dict(shared_files.read_json(path))
    if found.get("warning"):
        job.say(f"WARNING: {job.config.evaluate.defence}: {found['warning']}")
    return found
