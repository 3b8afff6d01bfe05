"""Which process this is, and what is said when the others do not come."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from launch.rehearse import free_port
from tga_jax.cluster import hosts
from tga_jax.cluster.connect import Cluster, check_alike, connected, find_cluster
from tga_jax.errors import UserError

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
    from tga_jax.cluster import connect as cluster

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
    monkeypatch.setattr(
        hosts, "broadcast_from_first", lambda make: {"config.seed": "0", "code": "a"}
    )
    monkeypatch.setattr(hosts, "all_gather", lambda mine: [None, None, mine])
    check_alike({"config.seed": "0", "code": "a"})
    with pytest.raises(UserError, match="config.seed is '1' in process 2 and '0' in process 0"):
        check_alike({"config.seed": "1", "code": "a"})


def _settings(hosts: int) -> SimpleNamespace:
    return SimpleNamespace(hosts=hosts, start_seconds=2.0, dead_seconds=5.0, stall_minutes=0.0)


@pytest.mark.parametrize("wanted", [0, 1])
def test_the_right_number_of_hosts_and_none_pass(wanted: int) -> None:
    with connected(None, _settings(wanted)):
        pass


def test_another_number_of_hosts_is_the_users_mistake() -> None:
    said = r"^config.distributed.hosts=2, but JAX sees 1 process\(es\): start the same command"
    with pytest.raises(UserError, match=said), connected(None, _settings(2)):
        raise AssertionError("it went on")


# Arguments: address ("": SLURM says it), number of processes, this one, hosts wanted, seconds to
# wait for the others, the call at which it gets a signal ("": none), the signal.
JOIN = """
import os, sys
from types import SimpleNamespace
import jax
from tga_jax.cluster.connect import Cluster, connected
from tga_jax.cluster.membership import Membership
address, processes, process, hosts, seconds, call, number = sys.argv[1:]
settings = SimpleNamespace(
    hosts=int(hosts), start_seconds=float(seconds), dead_seconds=5.0, stall_minutes=0.0
)
if call:
    at = {"initialize": jax.distributed, "device_count": jax, "start": Membership}[call]
    setattr(at, call, lambda *_, **__: os.kill(os.getpid(), int(number)))
found = Cluster("flags", address, int(processes), int(process)) if address else Cluster("slurm")
with connected(found, settings):
    print("connected")
"""


def _join(
    address: str,
    process: int,
    *,
    hosts: int = 0,
    devices: int = 1,
    seconds: int = 60,
    hit: tuple[str, int] = ("", 0),
    **env: str,
) -> subprocess.Popen[str]:
    """One of two processes, with so many devices."""
    return subprocess.Popen(
        [sys.executable, "-c", JOIN, *map(str, (address, 2, process, hosts, seconds, *hit))],
        env={
            "JAX_PLATFORMS": "cpu",
            "PATH": "",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("hosts", "devices", "said"),
    [
        (2, (2, 2), None),
        (3, (1, 1), "config.distributed.hosts=3, but JAX sees 2 process(es)"),
        (0, (1, 2), " devices (cpu), process "),
    ],
    ids=["right", "wrong", "unlike"],
)
def test_two_processes_count_hosts_and_devices(
    hosts: int, devices: tuple[int, int], said: str | None
) -> None:
    address = f"localhost:{free_port()}"
    both = [_join(address, i, hosts=hosts, devices=n) for i, n in enumerate(devices)]
    for process in both:
        out, err = process.communicate(timeout=100)
        if said is None:
            assert process.returncode == 0 and out == "connected\n", err
        else:
            assert process.returncode == 2 and out == "", err
            # Its own finding, or the other's, where that came first.
            assert len([x for x in err.splitlines() if said in x]) == 1, err
            assert "Traceback" not in err


@pytest.mark.parametrize(
    ("process", "hint"), [(0, "start the same command on every host"), (1, "nothing listens there")]
)
def test_one_that_waits_alone_says_what_to_look_at(process: int, hint: str) -> None:
    address = f"localhost:{free_port()}"
    alone = _join(address, process, seconds=2)
    out, err = alone.communicate(timeout=100)
    assert alone.returncode == 75 and out == "", err
    (line,) = [x for x in err.splitlines() if "not connected" in x]
    assert address in line and hint in line


@pytest.mark.parametrize(
    ("call", "victim", "number", "how"),
    [
        ("initialize", 1, signal.SIGSTOP, "process 1 of 2 has been silent for"),
        ("device_count", 0, signal.SIGKILL, "process 0 of 2 is gone"),
    ],
)
def test_a_process_that_dies_while_jax_starts_ends_the_other(
    call: str, victim: int, number: int, how: str
) -> None:
    address = f"localhost:{free_port()}"
    hit = (call, number)
    both = [_join(address, i, seconds=600, hit=hit if i == victim else ("", 0)) for i in range(2)]
    _, said = both[1 - victim].communicate(timeout=100)
    both[victim].kill()
    both[victim].communicate()
    assert both[1 - victim].returncode == 75, said
    (line,) = [x for x in said.splitlines() if "run the same command again" in x]
    assert line.startswith(f"process {1 - victim}: {how}")


def test_sigterm_ends_a_process_that_waits_for_the_others() -> None:
    port = free_port()
    alone = _join(f"localhost:{port}", 0, seconds=600)
    while alone.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("localhost", port)).close()
            break
    alone.terminate()
    _, said = alone.communicate(timeout=100)
    wanted = "process 0: stopped by SIGTERM; run the same command again to go on\n"
    assert (alone.returncode, said) == (75, wanted)


def test_sigterm_in_the_middle_of_the_start_is_told_in_one_line_too() -> None:
    """It was once raised before anyone was there to catch it, on a busy machine."""
    hit = ("start", signal.SIGTERM)
    one = _join(f"localhost:{free_port()}", 0, seconds=600, hit=hit)
    _, said = one.communicate(timeout=100)
    wanted = "process 0: stopped by SIGTERM; run the same command again to go on\n"
    assert (one.returncode, said) == (75, wanted)


def test_slurm_says_who_there_is() -> None:
    names = {"JOB_ID": "1", "STEP_NODELIST": "localhost", "NTASKS": "1", "PROCID": "0"}
    env = {f"SLURM_{name}": value for name, value in names.items()} | {"SLURM_LOCALID": "0"}
    one = _join("", 0, hosts=1, **env, JAX_COORDINATOR_PORT=str(free_port()))
    out, err = one.communicate(timeout=100)
    assert one.returncode == 0 and out == "connected\n", err
