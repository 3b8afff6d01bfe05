"""What a run ends with: what was done, where its results are, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tga_jax.files import read_json
from tga_jax.html.formats import aligned
from tga_jax.jobs.registry import JOBS
from tga_jax.training.metrics import clock

AUDIT = "--config.evaluate.benchmarks='KIND:PATH, ...'"  # the user's own; docs/benchmarks.md


def closing_text(argv: Sequence[str], workdir: Path, seconds: Mapping[str, float]) -> str:
    """The lines that a run ends with.

    Args:
        argv: the command line.
        workdir: of the run.
        seconds: job -> how long it took, in their order.
    """
    rows = [
        (f"  {job}", clock(took), str(workdir / JOBS[job].writes)) for job, took in seconds.items()
    ]
    said = f"done in {clock(sum(seconds.values()))}:\n{aligned(rows)}"
    following = next_command(argv, workdir, list(seconds)[-1])
    return f"{said}\nnext: {following}" if following else said


def next_command(argv: Sequence[str], workdir: Path, last: str) -> str:
    """The command that usually follows job `last`, to be copied; "" where there is none."""
    if any(arg.startswith("--config.experiment.only") for arg in argv):
        return ""  # some arms alone, as job `experiment` starts them side by side
    if last == "report":
        return f"open {workdir / JOBS['report'].writes} in a browser"
    if last == "export":
        flags = ["--config=audit", f"--workdir={workdir}-audit"]
        flags += [f"--config.model.checkpoint={workdir / 'export'}"]
        return f"{shlex.join([*program(argv[0]), *flags])} {AUDIT}"
    if last == "plan" and not (read_json(workdir / "plan" / "plan.json") or {}).get("fits"):
        return with_job(argv, "plan", "--config.plan.search=True")
    if last == "score" and (workdir / "finetune" / "done.json").exists():
        return with_job(argv, "export")
    return with_job(argv, JOBS[last].next) if JOBS[last].next else ""


def with_job(argv: Sequence[str], job: str, *more: str) -> str:
    """The same command line with another --job."""
    kept, skip = [], False
    for arg in argv[1:]:
        name, equals, _ = arg.partition("=")
        is_job = name in ("--job", "-job")
        if not skip and not is_job:
            kept.append(arg)
        skip = is_job and not equals
    return shlex.join([*program(argv[0]), *kept, f"--job={job}", *more])


def program(path: str) -> list[str]:
    """How this program was called."""
    return ["tga"] if Path(path).name == "tga" else ["python", "-m", "tga_jax.main"]
