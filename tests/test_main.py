"""How the process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tga_jax.errors import EXIT_PREEMPTED

LATE = """
import atexit, os, signal, sys
from tga_jax.main import leave
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))  # during JAX's goodbye
leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize(("code", "ended"), [(0, 0), (2, -15), (EXIT_PREEMPTED, EXIT_PREEMPTED)])
def test_a_finished_run_is_no_failure_when_sigterm_comes_late(code: int, ended: int) -> None:
    done = subprocess.run([sys.executable, "-c", LATE, str(code)])
    assert done.returncode == ended
