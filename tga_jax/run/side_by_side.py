"""Several command lines at once, each on its share of the CPU's cores."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO

from tga_jax.cluster.watch import hold
from tga_jax.errors import EXIT_PREEMPTED, Preempted, UserError

POLL_SECONDS = 0.2


def run_side_by_side(
    names: Sequence[str], processes: int, command: Callable[[str], Sequence[str]]
) -> None:
    """Run a command a name, `processes` at a time; their lines on stderr get the name in front.

    Args:
        names: what to run, in this order.
        processes: how many at once, but no more than there are cores. Each gets an equal share of
            the cores that this process has; the last one gets all if nothing is left beside it.
        command: name -> command line.

    Raises:
        UserError: one of them failed; the others were ended, and go on when started again.
        Preempted: a signal to stop came, and was passed on.
    """
    processes = min(processes, core_count())
    shares, lone = core_shares(processes), len(names) % processes == 1
    waiting, running = list(names), dict[int, tuple[str, subprocess.Popen]]()
    readers: list[threading.Thread] = []
    with hold() as held:
        try:
            while waiting or running:
                for share in [i for i in range(processes) if i not in running][: len(waiting)]:
                    name = waiting.pop(0)
                    cores = set().union(*shares) if lone and not waiting else shares[share]
                    running[share] = name, start(command(name), cores)
                    readers.append(relay(name, running[share][1].stderr))
                if held.stopped():
                    raise Preempted(f"experiment {held.reason}")
                time.sleep(POLL_SECONDS)
                for share, (name, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[share]
                        check(name, process.returncode)
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()
            for reader in readers:
                reader.join()


def core_count() -> int:
    """How many cores this process may use."""
    return len(_cores()) or os.cpu_count() or 1


def core_shares(processes: int) -> list[set[int]]:
    """The cores of each of at most `core_count` processes; empty sets where that is not known."""
    cores = _cores()
    return [set(cores[i::processes]) for i in range(processes)]


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def start(command: Sequence[str], cores: set[int]) -> subprocess.Popen:
    """The command, started; its stderr can be read line by line."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    if cores:  # before it starts any thread
        os.sched_setaffinity(process.pid, cores)
    return process


def relay(name: str, lines: IO[str] | None) -> threading.Thread:
    """Prints another process's lines as they come, with its name in front."""

    def read() -> None:
        for line in lines or ():
            print(f"{name}: {line}", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def check(name: str, code: int) -> None:
    """Raise for an exit code that isn't 0."""
    if code == EXIT_PREEMPTED:
        raise Preempted(f"arm {name} was stopped")
    if code:
        raise UserError(f"arm {name} ended with exit code {code}; its messages are above")
