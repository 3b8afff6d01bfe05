"""One run at a time in a workdir: two would mix their rows and remove each other's checkpoints."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ml_collections import ConfigDict

from tga_jax.cluster import hosts
from tga_jax.errors import UserError
from tga_jax.files import digest

FILE = ".lock"
BESIDE = {"report", "plan"}  # jobs that may run beside others
# So long a lock may outlive its run: an arm whose experiment was killed ends with its next line,
# and a server of network files forgets a machine that is gone.
HERE_SECONDS, ELSEWHERE_SECONDS = 10.0, 100.0
POLL_SECONDS = 0.5


def claimed(
    workdir: Path, config: ConfigDict, jobs: Sequence[str]
) -> contextlib.AbstractContextManager[None]:
    """The workdir, for this run alone while it does these jobs.

    Arms that are started one by one have folders of their own, which `run_arm` claims, and hosts
    that caption one by one have logs of their own.
    """
    arms_alone = set(jobs) == {"experiment"} and config.experiment.only
    if arms_alone or set(jobs) <= BESIDE:
        return contextlib.nullcontext()
    part = f"-{digest(config.caption.shard)}" if "caption" in jobs and config.caption.shard else ""
    return one_run(workdir, FILE + part)


@contextlib.contextmanager
def one_run(workdir: Path, name: str = FILE) -> Iterator[None]:
    """Keeps a folder for this run, by a lock that vanishes with the first process.

    Where the file system knows no locks, the run goes on without.

    Raises:
        UserError: another run keeps it.
    """
    with contextlib.ExitStack() as opened:
        file: IO[bytes] | None = None
        if hosts.is_first():
            with contextlib.suppress(OSError):  # said by what is written there next
                # Without a buffer, whose rest would be a full disk's error at the end once more.
                file = opened.enter_context((workdir / name).open("a+b", buffering=0))
        if not hosts.broadcast_from_first(lambda: file is None or _locked(file, workdir)):
            raise UserError(
                f"{workdir}: another run is writing to it; wait until it has ended, or use another "
                "--workdir"
            )
        yield


def _locked(file: IO[bytes], workdir: Path) -> bool:
    """Whether the lock is this process's now, or there are none on this file system."""
    began, said = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            here = file.read() == _machine()
            most = HERE_SECONDS if here else ELSEWHERE_SECONDS
            if time.monotonic() - began >= most:
                return False
            if not said:
                hosts.log(f"another run is writing to {workdir}; waiting {most:.0f} s for its end")
            said = True
            time.sleep(POLL_SECONDS)
        except OSError:
            return True
        else:
            with contextlib.suppress(OSError):  # as above
                file.seek(0)
                if file.read() != _machine():
                    file.truncate(0)
                    file.write(_machine())
            return True


def _machine() -> bytes:
    """What tells this machine, since it was started, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        boot = ""
    return (boot or socket.gethostname()).encode()
