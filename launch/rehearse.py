"""A pod in small: N processes of one run on this machine, started again when they ask for it.

    python -m launch.rehearse --processes=4 -- --config=configs/from_hf.py --workdir=runs/x ...

Each process has its share of --devices (host devices of the CPU) and meets the others through
JAX's coordination service and gloo, as hosts do; a single one, too: the collectives that JAX has
for the devices of one process add in another order than gloo's. --dry-run prints the commands.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

RETRY = (75, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGTERM)  # what launchers start again
CODE = Path(__file__).parents[1]


def main(argv: Sequence[str]) -> int:
    """The command line; the exit code is the run's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--devices", type=int, default=0, help="of all together; 0: one each")
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("flags", nargs="+", help="-- and the flags of tga_jax.main")
    given = parser.parse_args(argv[1:])
    pod = Pod(given.processes, given.devices or given.processes, given.flags)
    if given.dry_run:
        print("\n".join(pod.shown(free_port())))
        return 0
    for attempt in range(given.restarts + 1):
        codes = pod.start(stderr=None).wait()
        if max(codes) == min(codes) == 0:
            return 0
        print(f"attempt {attempt}: exit codes {codes}", file=sys.stderr, flush=True)
        if 2 in codes:
            return 2
    return 1


class Pod:
    """The processes of a run."""

    def __init__(self, processes: int, devices: int, flags: Sequence[str]) -> None:
        """`devices`: of all together. `flags`: of tga_jax.main."""
        if devices % processes:
            raise SystemExit(f"--devices={devices} is not a multiple of --processes={processes}")
        self.processes, self._each, self._flags = processes, devices // processes, list(flags)

    def command(self, process: int, port: int) -> list[str]:
        """Of one process."""
        cluster = [
            f"--coordinator=localhost:{port}",
            f"--processes={self.processes}",
            f"--process={process}",
        ]
        return [sys.executable, "-m", "tga_jax.main", *self._flags, *cluster]

    def environment(self) -> dict[str, str]:
        """What is set besides the surroundings."""
        own = f"--xla_force_host_platform_device_count={self._each}"
        flags = f"{os.environ.get('XLA_FLAGS', '')} {own}".strip()
        return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}

    def shown(self, port: int) -> list[str]:
        """The commands as one would type them."""
        before = " ".join(f"{k}={shlex.quote(v)}" for k, v in self.environment().items())
        numbers = range(self.processes)
        return [f"{before} {shlex.join(self.command(i, port))}" for i in numbers]

    def start(self, *, stderr: int | None = subprocess.PIPE) -> Started:
        """All processes, on a new port."""
        port, env = free_port(), os.environ | self.environment()
        return Started(
            [
                subprocess.Popen(self.command(i, port), env=env, cwd=CODE, stderr=stderr, text=True)
                for i in range(self.processes)
            ]
        )


class Started:
    """Processes that run."""

    def __init__(self, processes: list[subprocess.Popen]) -> None:
        self.processes = processes

    def running(self) -> bool:
        """Whether any of them has not ended."""
        return any(p.poll() is None for p in self.processes)

    def wait(self, seconds: float | None = None) -> list[int]:
        """Their exit codes.

        Raises:
            subprocess.TimeoutExpired: one still runs after `seconds`.
        """
        until = None if seconds is None else time.monotonic() + seconds
        for process in self.processes:
            process.wait(None if until is None else max(until - time.monotonic(), 0.01))
        return [process.returncode for process in self.processes]

    def kill(self) -> None:
        """End what still runs."""
        for process in self.processes:
            process.kill()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
