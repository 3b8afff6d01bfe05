"""tga_jax: Text-Guided Alignment of large vision-language models in JAX.

    tga --config=NAME --workdir=DIR [--job=a,b] [--config.KEY=VALUE ...]

`python -m tga_jax.main` takes the same flags. NAME is a configuration of the list below, or the
path of a file of your own. A variant follows a colon, as in audit:defences. Jobs run in the order
in which you name them; without --job, those of config.jobs run. Every output lies under the
workdir. The same command, run again, goes on where it stopped.

On several hosts, start the command on each of them, with a workdir that all share. Cloud TPU, GKE
and SLURM tell the processes of each other; elsewhere add --coordinator=HOST:PORT --processes=N
--process=K. One host with several GPUs needs none of these flags, because it uses all its devices.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
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
    memory_problem,
    option_problem,
)
from tga_jax.files import read_json
from tga_jax.flags import choose_jobs, expand_workdir, help_text, parse_flags
from tga_jax.jobs.registry import WITHOUT_DEVICES, module_of


def main(argv: Sequence[str], *, own_process: bool = False) -> int:
    """The command line; returns the exit code.

    Args:
        argv: the program's name and the flags.
        own_process: whether this process does nothing else, so that libraries may be left out.
    """
    if len(argv) == 1 or {"--help", "-h", "-help"} & set(argv[1:]):
        print(help_text(__doc__ or ""))
        return 0
    try:
        flags = parse_flags(argv)
        jobs = choose_jobs(flags.job, flags.config)
        if flags.print_config:
            from tga_jax.run.config_text import config_text

            print(config_text(flags.config))
            return 0
        partners = {name: flags[name].value for name in ("coordinator", "processes", "process")}
        if own_process and not flags.config.evaluate.local.folder:  # that judge needs torch
            from tga_jax.hf.hidden_packages import leave_torch_out

            leave_torch_out()
        run_jobs(argv, flags.config, Path(flags.workdir), jobs, partners)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Preempted as stop:
        print(f"{stop}{RETRY}", file=sys.stderr)
        return EXIT_PREEMPTED
    except KeyboardInterrupt:  # before the watch takes it
        print(f"stopped by Ctrl-C{RETRY}", file=sys.stderr)
        return EXIT_PREEMPTED
    except Exception as error:  # libraries raise what they like about a full disk
        problem = outside_problem(error, Path(flags.workdir))
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


def outside_problem(error: Exception, workdir: Path, job: str = "") -> str | None:
    """What the user can mend about the disk, the memory or the compiler's options, in one line."""
    disk = disk_problem(error)
    if disk is not None:
        return f"--workdir={workdir}: {disk}" if is_of_workdir(error, workdir) else disk
    return memory_problem(error, planned_memory(workdir), job=job) or option_problem(error)


def is_of_workdir(error: Exception, workdir: Path) -> bool:
    """Whether a disk's error is about a file of the workdir.

    A full disk is taken for the workdir's where no file is named, as nearly all is written there.
    """
    name, number = getattr(error, "filename", None), getattr(error, "errno", None)
    if isinstance(name, str):
        return Path(os.path.abspath(name)).is_relative_to(os.path.abspath(workdir))
    return number in (None, errno.ENOSPC, errno.EDQUOT)


def planned_memory(workdir: Path) -> str:
    """What job `plan` found in this workdir, in words; "" where it was not run."""
    path = workdir / "plan" / "plan.json"
    found = read_json(path, missing_ok=True) or {}
    needed = found.get("bytes_per_device")
    return f" (the plan in {path} says {needed / 2**30:.1f} GiB a device)" if needed else ""


def run_jobs(
    argv: Sequence[str],
    config: Any,
    workdir: Path,
    jobs: Sequence[str],
    partners: Mapping[str, str | int],
) -> None:
    """Connect with the other processes, start the devices, then run each job."""
    from tga_jax.cluster import connect, hosts
    from tga_jax.jobs.closing import closing_text
    from tga_jax.run.fingerprint import fingerprint
    from tga_jax.run.job import Job
    from tga_jax.run.one_run import claimed
    from tga_jax.run.start import start_text

    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"--workdir={workdir} is a file, not a folder") from error
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be made ({error.strerror}): name another folder"
        ) from error
    config = expand_workdir(config, workdir)
    found = connect.find_cluster(partners, os.environ)
    with connect.connected(found, config.distributed):
        alike = fingerprint(config, jobs, workdir=workdir) if found else {}
        connect.check_alike(alike)
        check_jobs(config, workdir, jobs)
        with claimed(workdir, config, jobs):
            hosts.log(start_text(config, workdir, jobs))
            seconds: dict[str, float] = {}
            for place, name in enumerate(jobs, 1):
                began = time.monotonic()
                with device_scope(config, mesh=name not in WITHOUT_DEVICES):
                    run_job(Job(config, workdir, name, tuple(jobs[place:])))
                seconds[name] = seconds.pop(name, 0.0) + time.monotonic() - began
        hosts.log(closing_text(argv, workdir, seconds))


def check_jobs(config: Any, workdir: Path, jobs: Sequence[str]) -> None:
    """Refuse what can be known to be wrong with any of the jobs before the first one runs."""
    from tga_jax.run.checks import check_numbers
    from tga_jax.run.job import Job

    check_numbers(config)
    for place, name in enumerate(jobs):
        module_of(name).check(Job(config, workdir, name), tuple(jobs[:place]))


def run_job(job: Any) -> None:
    """A job, with what libraries raise about disk and memory in one line."""
    from tga_jax.jobs.among_hosts import run_among_hosts

    try:
        run_among_hosts(job)
    except UserError:
        raise
    except Exception as error:  # libraries raise what they like about a full disk
        problem = outside_problem(error, job.workdir, job.name)
        if problem is None:
            raise
        raise UserError(problem) from error


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
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX keeps what took a second; the many small programs of a start take seconds together.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
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


def cli() -> NoReturn:
    """The console command `tga`, and `python -m tga_jax.main`."""
    leave(main(sys.argv, own_process=True))


if __name__ == "__main__":
    cli()
