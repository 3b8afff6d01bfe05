"""tga_jax: Text-Guided Alignment of large vision-language models in JAX.

    python -m tga_jax.main --config=configs/NAME.py --workdir=DIR [--job=a,b] [--config.KEY=VALUE]

Jobs run in the order given; without --job, those of config.jobs. Every output lies under the
workdir, and the same command run again goes on where it stopped.

On several hosts, start it on each of them with a workdir that all share. Cloud TPU, GKE and SLURM
say by themselves who is there; elsewhere add --coordinator=HOST:PORT --processes=N --process=K.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tga_jax.errors import (
    EXIT_PREEMPTED,
    EXIT_USER_ERROR,
    RETRY,
    Preempted,
    UserError,
    disk_problem,
    option_problem,
)
from tga_jax.jobs.registry import FIRST_ALONE, JOBS, TOGETHER, WITHOUT_DEVICES


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    if len(argv) == 1 or {"--help", "-h", "-help"} & set(argv[1:]):
        print(help_text())
        return 0
    try:
        flags = parse_flags(argv)
        jobs = choose_jobs(flags.job, flags.config)
        partners = {name: flags[name].value for name in ("coordinator", "processes", "process")}
        run_jobs(flags.config, Path(flags.workdir), jobs, partners)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Preempted as stop:
        print(f"{stop}{RETRY}", file=sys.stderr)
        return EXIT_PREEMPTED
    except (OSError, RuntimeError, ValueError) as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        print(f"error: --workdir={flags.workdir}: {problem}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


def help_text() -> str:
    """What a newcomer needs."""
    width = max(map(len, JOBS))
    jobs = "\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in JOBS.items())
    configs = "\n".join(f"  {p}" for p in sorted(Path("configs").glob("*.py")))
    return (
        f"{__doc__}\nJobs:\n{jobs}\n\nConfigs here:\n{configs or '  (none)'}\n\n"
        "Every key and its default: tga_jax/config.py. Set one with --config.KEY=VALUE, for\n"
        "example --config.model.checkpoint=FOLDER --config.data.path=samples.json."
    )


def parse_flags(argv: Sequence[str]) -> Any:
    """absl flags with the configuration behind --config."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "Configuration file.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Where every output goes.", flag_values=values)
    flags.DEFINE_string("job", "", "Jobs to run, with commas.", flag_values=values)
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0.", flag_values=values)
    flags.DEFINE_integer("processes", -1, "How many there are.", flag_values=values)
    flags.DEFINE_integer("process", -1, "Which one this is, from 0.", flag_values=values)
    sys.argv = list(argv)  # config_flags looks for overrides there, whatever it is asked to parse
    try:
        rest = values(argv)[1:]
        missing = [name for name in ("config", "workdir") if not getattr(values, name)]
        if not missing:
            values.config.jobs  # noqa: B018 - a config that failed to load says so when it is read
    except (KeyError, AttributeError) as error:
        reason = str(error).strip("\"'")
        raise UserError(f"there is no config key {reason!r}; see tga_jax/config.py") from error
    except Exception as error:  # absl, ml_collections and the config file raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{reason} (see --help)") from error
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes ask absl's own flags
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag (see --help)")
    if missing:
        raise UserError(f"--{missing[0]} is missing (see --help)")
    return values


def choose_jobs(flag: str, config: Any) -> list[str]:
    """The jobs of --job, or else of config.jobs."""
    jobs = [job.strip() for job in flag.split(",")] if flag else list(config.jobs)
    for job in jobs:
        if job not in JOBS:
            raise UserError(f"--job: there is no job {job!r}; there are {', '.join(JOBS)}")
    return jobs


def run_jobs(
    config: Any, workdir: Path, jobs: Sequence[str], partners: Mapping[str, str | int]
) -> None:
    """Connect with the other processes, start the devices, then run each job."""
    from tga_jax.cluster import connect, hosts
    from tga_jax.run.fingerprint import fingerprint
    from tga_jax.run.job import Job

    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {error.strerror}") from error
    config = expand_workdir(config, workdir)
    found = connect.find_cluster(partners, os.environ)
    with connect.connected(found, config.distributed):
        alike = fingerprint(config, jobs, workdir=workdir) if found else {}
        connect.check_alike(alike)
        for name in jobs:
            with device_scope(config, mesh=name not in WITHOUT_DEVICES):
                run_job(Job(config, workdir, name))
            hosts.barrier(name)


def run_job(job: Any) -> None:
    """A job; of several processes the first one alone, where the job is of that kind."""
    from tga_jax.cluster import hosts

    name = job.name
    if hosts.several() and name not in TOGETHER + FIRST_ALONE:
        raise UserError(f"job {name} is for one process; start it on one host, without the others")
    by_itself = hosts.several() and name in FIRST_ALONE
    if by_itself and not hosts.is_first():
        return
    try:
        with hosts.alone() if by_itself else contextlib.nullcontext():
            importlib.import_module(f"tga_jax.jobs.{JOBS[name][0]}").run(job)
    except RuntimeError as error:
        problem = option_problem(error)
        if problem is None:
            raise
        raise UserError(problem) from error


def expand_workdir(config: Any, workdir: Path) -> Any:
    """`{workdir}` in any text value stands for the workdir, so that jobs can build on others."""
    from ml_collections import ConfigDict

    def expand(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: expand(inner) for key, inner in value.items()}
        return value.replace("{workdir}", str(workdir)) if isinstance(value, str) else value

    return ConfigDict(expand(config.to_dict())).lock()


@contextlib.contextmanager
def device_scope(config: Any, *, mesh: bool) -> Iterator[None]:
    """The sharding rules, and `mesh`: this machine's mesh, set for everything inside."""
    import flax.linen as nn
    import jax

    from tga_jax.parallel.mesh import mesh_of
    from tga_jax.parallel.sharding import RULES

    cache = config.compile_cache
    if cache and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path(cache).expanduser()))
    scope = jax.set_mesh(mesh_of(config.mesh)) if mesh else contextlib.nullcontext()
    with scope, nn.logical_axis_rules(RULES):
        yield


def leave(code: int) -> NoReturn:
    """End this process. JAX's goodbye to the other processes takes seconds."""
    if code == EXIT_PREEMPTED:  # a compiler may still be at work in a thread
        sys.stdout.flush()
        os._exit(code)
    if code == 0:  # all is on the disk: SIGTERM must not make a failure of it
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    leave(main(sys.argv))
