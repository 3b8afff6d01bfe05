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
import re
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
    memory_problem,
    option_problem,
)
from tga_jax.files import read_json
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
    except KeyboardInterrupt:  # before the watch takes it
        print(f"stopped by Ctrl-C{RETRY}", file=sys.stderr)
        return EXIT_PREEMPTED
    except (MemoryError, OSError, RuntimeError, ValueError) as error:
        problem = outside_problem(error, Path(flags.workdir))
        if problem is None:
            raise
        print(f"error: {problem}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


def outside_problem(error: Exception, workdir: Path) -> str | None:
    """What the user can mend about the disk, the memory or the compiler's options, in one line."""
    disk = disk_problem(error)
    if disk is not None:
        return f"--workdir={workdir}: {disk}"
    return memory_problem(error, planned_memory(workdir)) or option_problem(error)


def planned_memory(workdir: Path) -> str:
    """What job `plan` found in this workdir, in words; "" where it was not run."""
    path = workdir / "plan" / "plan.json"
    found = read_json(path, missing_ok=True) or {}
    needed = found.get("bytes_per_device")
    return f" (the plan in {path} says {needed / 2**30:.1f} GiB a device)" if needed else ""


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
        raise UserError(unknown_key(str(error), argv)) from error
    except Exception as error:  # absl, ml_collections and the config file raise what they like
        raise UserError(f"{load_problem(error)} (see --help)") from error
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes ask absl's own flags
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag (see --help)")
    if missing:
        example = {"config": "configs/from_hf.py", "workdir": "runs/mine"}[missing[0]]
        raise UserError(
            f"--{missing[0]} is missing, for example --{missing[0]}={example} (see --help)"
        )
    return values


def unknown_key(message: str, argv: Sequence[str]) -> str:
    """What is wrong with a key that the configuration lacks; ml_collections knows its last part."""
    quoted = re.findall(r"['\"]([\w.]+)['\\\"]", message) or [message]
    flags = [
        arg.lstrip("-").partition("=")[0] for arg in argv if arg.lstrip("-").startswith("config.")
    ]
    wrong = next((flag for flag in flags if quoted[0] in flag.split(".")), quoted[0])
    meant = re.search(r'Did you mean "(\w+)"', message)
    known = wrong.split(".")[: wrong.split(".").index(quoted[0])]
    wrong = ".".join([*known, quoted[0]])
    hint = f"; did you mean {'.'.join([*known, meant[1]])}?" if meant else ""
    return f"there is no config key {wrong}{hint} (tga_jax/config.py has all keys)"


def load_problem(error: Exception) -> str:
    """Why the configuration could not be read, in one line and without a traceback's frames."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    if not lines:
        return type(error).__name__
    if any(line.startswith("Traceback") for line in lines):
        return f"{lines[0].split(': Error')[0].removeprefix('flag ')}: {lines[-1]}"
    gone = [line for line in lines if "No such file" in line]
    return f"--config: {gone[0].partition('] ')[2] or gone[0]}" if gone else " ".join(lines)


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
    except (MemoryError, OSError, RuntimeError, ValueError) as error:
        problem = outside_problem(error, job.workdir)
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
