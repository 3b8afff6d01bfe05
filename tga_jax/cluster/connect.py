"""Start JAX on several hosts: which process this is, the connection, and checks of likeness."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax

from tga_jax.cluster import hosts
from tga_jax.cluster.watch import Watch, WatchConfig, translate_abort, watching
from tga_jax.errors import EXIT_PREEMPTED, EXIT_USER_ERROR, RETRY, Preempted, UserError

JAX_HEARTBEAT_SECONDS = 100  # JAX's own; `watch` is quicker and says who is gone
# Of the texts of errors that a partner's death causes.
LOST = ("Gloo", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "NCCL", "barrier", "Socket closed")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the first process listens, how many there are, and which one this is.

    `found_by`: "flags", "environment", "slurm" or "tpu". With "slurm" and "tpu" JAX reads the
    other fields from the platform itself, and they are empty here.
    """

    found_by: str
    address: str = ""
    processes: int = 0
    process: int = -1


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
        raise UserError(f"--coordinator is HOST:PORT, the others are numbers: {given}") from None
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
    _initialize(cluster, settings.start_seconds)
    place = dict(index=jax.process_index(), count=jax.process_count())
    with watching(config, client=hosts.client(), **place) as watch:
        try:
            _check_count(settings.hosts)
            yield
            hosts.barrier("end")
        except BaseException as error:
            _leave(watch, error, patience_seconds=config.dead_seconds + 5)
    jax.distributed.shutdown()


def _leave(watch: Watch, error: BaseException, *, patience_seconds: float) -> NoReturn:
    """End this process with one message, after telling the partners."""
    who, text = f"process {jax.process_index()}", " ".join(str(error).split())
    if isinstance(error, UserError):
        code, shown = EXIT_USER_ERROR, f"error: {text}"
    elif isinstance(error, Preempted):
        code, shown = EXIT_PREEMPTED, f"{text}{RETRY}"
    elif any(word in text for word in LOST):
        time.sleep(patience_seconds)  # the watch will say who is gone, and end this process
        code, shown = EXIT_PREEMPTED, f"lost the other processes: {text}"
    else:
        code, text = 1, f"{type(error).__name__}: {text}"
        shown = "".join(traceback.format_exception(error))
    print(f"{who}: {shown}", file=sys.stderr, flush=True)
    watch.leave(code, text)
    sys.stdout.flush()
    os._exit(code)


def _initialize(cluster: Cluster, start_seconds: float) -> None:
    if _is_cpu(os.environ):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX would take SIGTERM for itself, and tell of it only between steps.
    jax.config.update("jax_enable_preemption_service", False)
    timer = threading.Timer(start_seconds, _give_up, [cluster, start_seconds])
    timer.daemon = True
    timer.start()
    plain = {}
    if cluster.address:
        plain = dict(
            coordinator_address=cluster.address,
            num_processes=cluster.processes,
            process_id=cluster.process,
        )
    jax.distributed.initialize(
        **plain,  # type: ignore[arg-type]
        cluster_detection_method="deactivate" if plain else None,
        initialization_timeout=int(start_seconds) + 60,  # JAX's end has a C++ stack and no hint
        heartbeat_timeout_seconds=JAX_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=60,
    )
    jax.device_count()  # the processes tell each other their devices
    timer.cancel()
    translate_abort(coordinator_address(), jax.process_index())


def coordinator_address() -> str:
    """host:port of the first process."""
    from jax._src.distributed import global_state

    return global_state.coordinator_address or ""


def _give_up(cluster: Cluster, seconds: float) -> None:
    """In a thread of its own: JAX's connecting cannot be interrupted."""
    where, who = cluster.address or "the platform's first host", f"process {cluster.process}"
    hint = "some of the other processes have not come: start the same command on every host"
    if cluster.address and not _answers(cluster.address):
        hint = (
            "nothing listens there: is process 0 running, is the address right and its port open "
            "between the hosts?"
        )
    text = f"{who}: not connected through {where} after {seconds:.0f} s; {hint}"
    print(text, file=sys.stderr, flush=True)
    os._exit(EXIT_PREEMPTED)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), 5):
        return True
    return False


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
