"""Which process this is, and what is said when the others do not come."""

from __future__ import annotations

import subprocess
import sys

import pytest

from launch.rehearse import free_port
from tga_jax.errors import UserError
from tga_jax.parallel import hosts
from tga_jax.parallel.cluster import Cluster, check_alike, find_cluster

NONE = {"coordinator": "", "processes": -1, "process": -1}
FLAGS = {"coordinator": "h:1", "processes": 4, "process": 3}
ENV = {"JAX_COORDINATOR_ADDRESS": "e:2", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
SLURM = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "3"}


@pytest.mark.parametrize(
    ("flags", "env", "found"),
    [
        (NONE, {}, None),
        (FLAGS, {}, Cluster("flags", "h:1", 4, 3)),
        (FLAGS, ENV, Cluster("flags", "h:1", 4, 3)),
        (NONE, ENV, Cluster("environment", "e:2", 2, 0)),
        (NONE, SLURM, Cluster("slurm")),
        (NONE, {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (NONE, SLURM | ENV, Cluster("environment", "e:2", 2, 0)),
    ],
)
def test_found_by_flags_then_environment(flags: dict, env: dict, found: Cluster | None) -> None:
    assert find_cluster(flags, env) == found


def test_a_tpu_host_asks_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    from tga_jax.parallel import cluster

    monkeypatch.setattr(cluster.Path, "exists", lambda self: str(self) == "/dev/accel0")
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: name == "libtpu")
    assert find_cluster(NONE, {}) == Cluster("tpu")
    assert find_cluster(NONE, {"JAX_PLATFORMS": "cpu"}) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"process": -1}, "--process is missing"),
        ({"coordinator": ""}, "--coordinator is missing"),
        ({"process": 4}, "must lie in 0..3"),
        ({"coordinator": "h"}, "HOST:PORT"),
    ],
)
def test_what_does_not_fit_is_said(change: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_cluster(FLAGS | change, {})


def test_what_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_alike({"config.seed": "0"})
    monkeypatch.setattr(hosts, "from_first", lambda make: {"config.seed": "0", "code": "a"})
    monkeypatch.setattr(hosts, "from_all", lambda mine: [None, None, mine])
    check_alike({"config.seed": "0", "code": "a"})
    with pytest.raises(UserError, match="config.seed is '1' in process 2 and '0' in process 0"):
        check_alike({"config.seed": "1", "code": "a"})


ALONE = """
import sys
from types import SimpleNamespace
from tga_jax.parallel.cluster import Cluster, connected
settings = SimpleNamespace(hosts=0, start_seconds=2.0, dead_seconds=5.0, stall_minutes=0.0)
with connected(Cluster("flags", sys.argv[1], 2, int(sys.argv[2])), settings):
    print("connected")
"""


@pytest.mark.parametrize(
    ("process", "hint"), [(0, "start the same command on every host"), (1, "nothing listens there")]
)
def test_one_that_waits_alone_says_what_to_look_at(process: int, hint: str) -> None:
    address = f"localhost:{free_port()}"
    done = subprocess.run(
        [sys.executable, "-c", ALONE, address, str(process)],
        env={"JAX_PLATFORMS": "cpu", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 75 and "connected" not in done.stdout, done.stderr
    (line,) = [x for x in done.stderr.splitlines() if "not connected" in x]
    assert address in line and hint in line
