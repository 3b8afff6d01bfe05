"""Running a job where there are several processes: together, or in the first one alone."""

from __future__ import annotations

from tga_jax.cluster import hosts
from tga_jax.errors import UserError
from tga_jax.jobs.registry import FIRST_ALONE, TOGETHER, module_of
from tga_jax.run.job import Job


def check_among_hosts(name: str, where: str = "") -> None:
    """Refuse a job that is for one process, where there are several; `where`: what names it."""
    if hosts.several() and name not in TOGETHER + FIRST_ALONE:
        raise UserError(
            f"{where}job {name} is for one process; start it on one host, without the others"
        )


def run_among_hosts(job: Job) -> None:
    """Run a job in every process that takes part; all of them leave here together."""
    check_among_hosts(job.name)
    if not (hosts.several() and job.name in FIRST_ALONE):
        module_of(job.name).run(job)
    elif hosts.is_first():
        with hosts.alone():
            module_of(job.name).run(job)
    hosts.barrier(job.name)
