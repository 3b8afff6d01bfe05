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
    if last in ("inspect", "score") and any("config.model.checkpoint" in arg for arg in argv):
        trained = (workdir / "finetune" / "done.json").exists() and last == "score"
        return with_job(
            argv, "export" if trained else "finetune,export"
        )  # its projector is trained
    if last in ("pretrain", "finetune") and not any("config.data.path" in arg for arg in argv):
        jobs = [job for job in JOBS[last].next.split(",") if job != "score"]  # has no samples
        return with_job(argv, ",".join(jobs))
    if last == "score" and (workdir / "finetune" / "done.json").exists():
        return with_job(argv, "export")
    return with_job(argv, JOBS[last].next) if JOBS[last].next else ""


def with_job(argv: Sequence[str], job: str, *more: str) -> str:
    """The same command line with another --job; of a key that is set twice the last counts."""
    found: dict[str, list[str]] = {}
    for args in flags_of([*argv[1:], f"--job={job}", *more]):
        name = args[0].partition("=")[0].lstrip("-")
        found.pop(name, None)  # it goes to its last place
        found[name] = args
    return shlex.join([*program(argv[0]), *(arg for args in found.values() for arg in args)])


def flags_of(argv: Sequence[str]) -> list[list[str]]:
    """Each flag with its value, which may be an argument of its own."""
    found: list[list[str]] = []
    for arg in argv:
        awaited = bool(found) and len(found[-1]) == 1 and "=" not in found[-1][0]
        if awaited and not arg.startswith("-"):
            found[-1].append(arg)
        else:
            found.append([arg])
    return found


def program(path: str) -> list[str]:
    """How this program was called."""
    return ["tga"] if Path(path).name == "tga" else ["python", "-m", "tga_jax.main"]
