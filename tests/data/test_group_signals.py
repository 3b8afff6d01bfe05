"""Ctrl-C and SIGTERM go to a whole process group: one line, no traceback of a worker process."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import itertools, sys, time
import numpy as np
from absl import flags
from tga_jax.cluster.watch import WatchConfig, watching
from tga_jax.data.in_parallel import map_in_order
from tga_jax.data.loader import Batch, make_loader
from tga_jax.errors import Preempted
from tga_jax.main import leave

class Source:
    def __len__(self):
        return 10**6
    def __getitem__(self, step):
        time.sleep(0.01)
        return Batch({"tokens": np.zeros((1, 2, 2000), np.int32)}, ("a",), (0,))

def pool():
    return map_in_order(time.sleep, itertools.repeat(0.01), workers=2)

def loader():
    flags.FLAGS.mark_as_parsed()
    return make_loader(Source(), workers=2)

def up(*_):
    print("up", flush=True)
"""
RUN = """
if __name__ == "__main__":
    try:
        with watching(WatchConfig()):
            results = %s()
            %s
            for _ in results:
                %s
    except Preempted as stop:
        print(stop, file=sys.stderr)
        getattr(results, "close", up)()
        leave(75)
"""


# Of each pair of kinds one at least is quick to be seen; all are tried in the slow tier.
QUICK = {("pool", "working", signal.SIGINT), ("loader", "starting", signal.SIGTERM)}
ROUNDS = itertools.product(
    ("pool", "loader"), ("starting", "working"), (signal.SIGINT, signal.SIGTERM)
)


@pytest.mark.parametrize(
    ("workers", "moment", "number"),
    [pytest.param(*one, marks=[] if one in QUICK else pytest.mark.slow) for one in ROUNDS],
)
def test_worker_processes_do_not_hear_what_the_whole_group_is_sent(
    workers: str, moment: str, number: signal.Signals, tmp_path: Path
) -> None:
    script = tmp_path / "job.py"
    marks = ("up()", "pass") if moment == "starting" else ("pass", "up()")
    script.write_text(BEGIN + RUN % (workers, *marks))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    reason = {signal.SIGINT: "stopped by Ctrl-C", signal.SIGTERM: "stopped by SIGTERM"}[number]
    # Loading is interrupted where it is, or where nothing answers soon, by the watch, with advice.
    assert process.returncode == 75
    assert said in (f"{reason}\n", f"{reason}; run the same command again to go on\n")
