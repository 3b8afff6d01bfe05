"""Job `experiment`: the same jobs for several arms, each the configuration with a few changes.

An arm is a nested dict of the keys that it changes, such as {"guide": {"form": "none"}}; its
workdir is arms/<name>/. What config.experiment.summary names of every arm's figures is put together
in summary.json. With config.experiment.processes, arms run side by side, each on its share of the
CPU's cores: small models leave half of them idle. Several processes of one run work on each arm
together, one arm after the other.
"""

from __future__ import annotations

import contextlib
import copy
import operator
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.cluster import hosts
from tga_jax.config import listed
from tga_jax.errors import UserError
from tga_jax.files import read_json, write_json
from tga_jax.jobs.among_hosts import check_among_hosts, run_among_hosts
from tga_jax.jobs.registry import JOBS, module_of
from tga_jax.run.checks import check_numbers
from tga_jax.run.job import Job
from tga_jax.run.one_run import one_run
from tga_jax.run.side_by_side import run_side_by_side

SECONDS, SO_FAR = "seconds.json", "seconds.partial.json"  # of an arm that is finished, or not
NEEDED = "config.experiment.summary needs it"


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse arms that there are not, keys that they cannot change, and what their jobs refuse."""
    settings = job.config.experiment
    check_names(settings.jobs)
    for inner in settings.jobs:
        check_among_hosts(inner, "config.experiment.jobs: ")
    if not settings.arms:
        raise UserError("config.experiment.arms is empty: name an arm and the keys that it changes")
    for name in arm_names(job.config):
        config, workdir = arm_config(job.config, name), job.workdir / "arms" / name
        check_numbers(config)
        for place, inner in enumerate(settings.jobs):
            module_of(inner).check(Job(config, workdir, inner), (*before, *settings.jobs[:place]))


def check_names(jobs: Sequence[str] | str) -> None:
    """Refuse a config.experiment.jobs that is no sequence of jobs' names."""
    key = f"config.experiment.jobs={jobs!r}"
    if isinstance(jobs, str):
        raise UserError(f"{key}: write a sequence of names, as in \"('pretrain','finetune')\"")
    for name in jobs:
        if name not in JOBS:
            raise UserError(f"{key}: there is no job {name!r}; the jobs are {', '.join(JOBS)}")


def arm_names(config: ConfigDict) -> list[str]:
    """The arms of config.experiment.only; without it, all that lack no key which they need."""
    settings = config.experiment
    names = listed(settings.only)
    if not names:
        left_out = lacking(config)
        return [name for name in settings.arms if name not in left_out]
    for name in names:
        if name not in settings.arms:
            raise UserError(
                f"config.experiment.only: there is no arm {name!r}; "
                f"there are {', '.join(settings.arms)}"
            )
    return names


def lacking(config: ConfigDict) -> dict[str, str]:
    """Arm -> the key that it needs, where that is empty."""
    needs = config.experiment.needs.to_dict().items()
    return {arm: key for arm, key in needs if not operator.attrgetter(key)(config)}


def run(job: Job) -> None:
    """Run config.experiment.jobs in every arm; write arms/<name>/seconds.json and summary.json."""
    settings = job.config.experiment
    names = arm_names(job.config)
    for name, key in ({} if listed(settings.only) else lacking(job.config)).items():
        job.say(f"arm {name} is left out: it needs config.{key}")
    side_by_side = settings.processes > 1 and len(names) > 1
    if side_by_side and hosts.several():
        job.say("config.experiment.processes is for one process: arm follows arm here")
    if side_by_side and not hosts.several():
        run_side_by_side(names, settings.processes, arm_command)
    else:
        for name in names:
            run_arm(job, name)
    if settings.summary and hosts.is_first():
        write_summary(job)


def write_summary(job: Job) -> None:
    """Write summary.json of the arms that are finished, in the first process."""
    settings, path = job.config.experiment, job.workdir / "summary.json"
    found = {name: job.workdir / "arms" / name for name in settings.arms}
    finished = {name: arm for name, arm in found.items() if (arm / SECONDS).exists()}
    write_json(path, summary(finished, settings.summary.to_dict()))
    job.say(f"-> {path}")


def arm_command(name: str) -> list[str]:
    """The command line that was given, for one arm alone."""
    alone = [f"--config.experiment.only={name}", "--config.experiment.processes=1"]
    return [sys.executable, "-m", "tga_jax.main", *sys.argv[1:], "--job=experiment", *alone]


def run_arm(job: Job, name: str) -> None:
    """One arm: its jobs in order, and how long each took."""
    config, workdir = arm_config(job.config, name), job.workdir / "arms" / name
    workdir.mkdir(parents=True, exist_ok=True)
    inner_jobs = tuple(job.config.experiment.jobs)
    with one_run(workdir):
        for place, inner in enumerate(inner_jobs, 1):
            job.say(f"{name}: {inner}")
            with timed(workdir, inner):
                run_among_hosts(Job(config, workdir, inner, inner_jobs[place:]))
        # A run that only found finished work took no time worth telling.
        if hosts.is_first() and not (workdir / SECONDS).exists():
            write_json(workdir / SECONDS, read_json(workdir / SO_FAR, missing_ok=True) or {})
            (workdir / SO_FAR).unlink(missing_ok=True)


@contextlib.contextmanager
def timed(workdir: Path, name: str) -> Iterator[None]:
    """Adds the time of a job to what it took before the arm was stopped, in the first process."""
    began = time.monotonic()
    try:
        yield
    finally:
        if hosts.is_first() and not (workdir / SECONDS).exists():
            seconds = read_json(workdir / SO_FAR, missing_ok=True) or {}
            took = seconds.get(name, 0.0) + time.monotonic() - began
            with contextlib.suppress(OSError):  # what went wrong in the job matters more
                write_json(workdir / SO_FAR, seconds | {name: round(took, 1)})


def summary(arms: dict[str, Path], figures: dict[str, str]) -> dict[str, Any]:
    """Chosen figures of finished arms, and the seconds of their jobs.

    Args:
        arms: name -> workdir.
        figures: name of a figure -> benchmark/scene/metric.

    Raises:
        UserError: an arm has no such figure.
    """
    out: dict[str, Any] = {"seconds": {}}
    for name, workdir in arms.items():
        rows = read_json(workdir / "evaluate" / "metrics.json", advice=NEEDED)
        values = {f"{r['benchmark']}/{r['scene']}/{r['metric']}": r["value"] for r in rows}
        # A rate that too few harmless items carry is absent on purpose: null.
        absent = {
            f"{r['benchmark']}/{r['scene']}/{name}" for r in rows for name in r.get("absent", ())
        }
        lacking = [place for place in figures.values() if place not in {*values, *absent}]
        if lacking:
            raise UserError(
                f"config.experiment.summary: arm {name} has no figure {lacking[0]!r} in "
                f"{workdir / 'evaluate' / 'metrics.json'}"
            )
        out[name] = {figure: values.get(place) for figure, place in figures.items()}
        seconds = read_json(workdir / SECONDS, advice=NEEDED)
        out["seconds"] |= {f"{name}/{job}": value for job, value in seconds.items()}
    return out


def arm_config(config: ConfigDict, name: str) -> ConfigDict:
    """The configuration with the arm's changes; a key that does not exist is an error."""
    where = f"config.experiment.arms.{name}"
    changed = ConfigDict(copy.deepcopy(config.to_dict()))
    try:
        with changed.unlocked():
            _update(changed, config.experiment.arms[name].to_dict(), where)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error
    return changed.lock()


def _update(config: ConfigDict, changes: dict, where: str) -> None:
    for key, value in changes.items():
        if key not in config:
            raise UserError(f"{where}.{key}: there is no such config key")
        if isinstance(value, dict):
            _update(config[key], value, f"{where}.{key}")
        else:
            config[key] = value
