"""Start JAX on several hosts: which process this is, the connection, and checks of likeness."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib.util
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from tga_jax.cluster import hosts
from tga_jax.cluster.agreement import Agreement
from tga_jax.cluster.membership import Membership
from tga_jax.cluster.watch import Watch, WatchConfig, watching
from tga_jax.errors import EXIT_PREEMPTED, EXIT_USER_ERROR, Preempted, UserError

JAX_HEARTBEAT_SECONDS = 100  # JAX's own; `membership` is quicker and says who is gone
# Of the texts of errors that a partner's death causes.
LOST = ("Gloo", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "NCCL", "barrier", "Socket closed")
_kept: list[Any] = []


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the first process listens, how many there are, and which one this is.

    `found_by`: "flags", "environment", "slurm" or "tpu". With "slurm" and "tpu" the other fields
    are empty until the platform is asked. `devices`: those of this host that the process takes;
    None: all.
    """

    found_by: str
    address: str = ""
    processes: int = 0
    process: int = -1
    devices: Sequence[int] | None = None


def find_cluster(flags: Mapping[str, str | int], env: Mapping[str, str]) -> Cluster | None:
    """The cluster that this process is to join; None: it is alone.

    Args:
        flags: "coordinator", "processes", "process" of the command line; "" and -1: not given.
        env: the environment. JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID
            are like the flags; then SLURM's and the TPU's own variables are looked at.

    Raises:
        UserError: some of the three were given and others not, or they do not fit.
    """
    given = {name: value for name, value in flags.items() if value not in ("", -1)}
    if given:
        return _plain("flags", {name: str(value) for name, value in given.items()})
    named = {
        "coordinator": env.get("JAX_COORDINATOR_ADDRESS", ""),
        "processes": env.get("JAX_NUM_PROCESSES", ""),
        "process": env.get("JAX_PROCESS_ID", ""),
    }
    if named["coordinator"]:
        return _plain("environment", {name: value for name, value in named.items() if value})
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return Cluster("slurm")
    if _is_tpu_host(env):
        return Cluster("tpu")
    return None


def _plain(found_by: str, given: Mapping[str, str]) -> Cluster:
    missing = {"coordinator", "processes", "process"} - given.keys()
    if missing:
        raise UserError(
            f"--{sorted(missing)[0]} is missing: several processes need --coordinator=HOST:PORT, "
            f"--processes and --process (or the JAX_* variables); given: {', '.join(sorted(given))}"
        )
    try:
        processes, process = int(given["processes"]), int(given["process"])
        int(given["coordinator"].rpartition(":")[2])
    except ValueError:
        raise UserError(
            f"--coordinator must be HOST:PORT, and the others must be numbers: {given}"
        ) from None
    if not 0 <= process < processes:
        raise UserError(f"--process={process} must lie in 0..{processes - 1} (--processes)")
    return Cluster(found_by, given["coordinator"], processes, process)


def _is_tpu_host(env: Mapping[str, str]) -> bool:
    """A Cloud TPU VM, or a GKE pod with TPUs; JAX then asks the platform for the rest."""
    devices = any(Path(name).exists() for name in ("/dev/accel0", "/dev/vfio/0"))
    return devices and importlib.util.find_spec("libtpu") is not None and not _is_cpu(env)


def _is_cpu(env: Mapping[str, str]) -> bool:
    return env.get("JAX_PLATFORMS", "") == "cpu"


@contextlib.contextmanager
def connected(cluster: Cluster | None, settings: Any) -> Iterator[None]:
    """JAX connected with the other processes, and watched. Must come before devices are used.

    With partners this ends the process itself where something is raised inside: JAX would wait
    for the others at the exit.

    Args:
        cluster: from `find_cluster`.
        settings: config.distributed.

    Raises:
        UserError: another number of processes, or hosts with unlike devices.
    """
    config = WatchConfig(settings.dead_seconds, 60 * settings.stall_minutes)
    if cluster is None:
        with watching(config):
            _check_count(settings.hosts)
            yield
        return
    cluster = _asked(cluster, settings.start_seconds)
    members = Membership(
        cluster.address, cluster.process, cluster.processes, dead_seconds=config.dead_seconds
    )
    with watching(config, members) as watch:
        try:
            watch.heed()
            members.wait_for_all(settings.start_seconds)
            _initialize(cluster, watch, settings.start_seconds)
            _check_count(settings.hosts)
            yield
            hosts.barrier("end")
            watch.finish()
            jax.distributed.shutdown()
        except BaseException as error:
            _leave(watch, error, patience_seconds=config.dead_seconds + 5)


def _leave(watch: Watch, error: BaseException, *, patience_seconds: float) -> None:
    """End this process with one message, after telling the partners."""
    text, shown = " ".join(str(error).split()), ""
    if isinstance(error, UserError):
        code, shown = EXIT_USER_ERROR, f"error: {text}"
    elif isinstance(error, Preempted):
        code = EXIT_PREEMPTED
    elif any(word in text for word in LOST):
        time.sleep(patience_seconds)  # the watch will say who is gone, and end this process
        code, text = EXIT_PREEMPTED, f"lost the other processes: {text}"
    else:
        code, text = 1, f"{type(error).__name__}: {text}"
        shown = "".join(traceback.format_exception(error))
    watch.end(code, text, shown=shown)


def _asked(cluster: Cluster, start_seconds: float) -> Cluster:
    """All fields of the cluster, where the platform knows them in JAX's way of asking it."""
    if cluster.address:
        return cluster
    from jax._src.clusters import ClusterEnv  # has no public name

    address, processes, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(start_seconds)
    )
    if address is None or processes is None or process is None:
        raise UserError(
            f"{cluster.found_by} does not say which processes there are; give --coordinator, "
            "--processes and --process"
        )
    return Cluster(cluster.found_by, address, processes, process, devices)


def _initialize(cluster: Cluster, watch: Watch, start_seconds: float) -> None:
    """Connect JAX with the processes that are all there, and start the devices."""
    if _is_cpu(os.environ):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX would take SIGTERM for itself, and tell of it only between steps.
    jax.config.update("jax_enable_preemption_service", False)
    _translate_abort(cluster.address, watch)
    jax.distributed.initialize(
        coordinator_address=cluster.address,
        num_processes=cluster.processes,
        process_id=cluster.process,
        local_device_ids=cluster.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(start_seconds) + 60,
        heartbeat_timeout_seconds=JAX_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=60,
    )
    watch.agreement = Agreement(hosts.client(), index=cluster.process, count=cluster.processes)
    jax.device_count()  # the processes tell each other their devices


def _translate_abort(address: str, watch: Watch) -> None:
    """Make JAX's abort, where it is about a coordinator that is gone, one line and a retry.

    JAX ends a process at once, with a C++ stack, when the first process closes its sockets; no
    Python code is asked. Other aborts stay what they are.
    """
    host, _, port = address.rpartition(":")

    def on_abort(_: int) -> None:
        try:
            socket.create_connection((host.strip("[]"), int(port)), 2).close()
        except OSError:
            watch.end(EXIT_PREEMPTED, f"process 0, the coordinator at {address}, is gone")

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
    _kept.append(handler)  # C has no reference that keeps it
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)


def _check_count(wanted: int) -> None:
    """The number of processes, and that all have as many devices of one kind."""
    if wanted and jax.process_count() != wanted:
        raise UserError(
            f"config.distributed.hosts={wanted}, but JAX sees {jax.process_count()} process(es): "
            "start the same command on every host"
        )
    mine = [jax.local_device_count(), jax.local_devices()[0].device_kind]
    for place, other in enumerate(hosts.all_gather(mine)):
        if other != mine:
            raise UserError(
                f"process {place} has {other[0]} devices ({other[1]}), process "
                f"{jax.process_index()} has {mine[0]} ({mine[1]}): use hosts of one kind"
            )


def check_alike(parts: Mapping[str, str]) -> None:
    """That all processes run the same: named values, as texts or digests.

    Raises:
        UserError: naming what differs from the first process.
    """
    first = hosts.broadcast_from_first(lambda: dict(parts))
    different = sorted(k for k in first.keys() | parts.keys() if first.get(k) != parts.get(k))
    mine = [different[0], parts.get(different[0])] if different else None
    for place, found in enumerate(hosts.all_gather(mine)):
        if found:
            name, value = found
            raise UserError(
                f"{name} is {value!r} in process {place} and {first.get(name)!r} in process 0: "
                "start the same code with the same flags and data on every host"
            )
