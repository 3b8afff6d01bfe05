"""The lines that every run begins with: versions, devices, jobs, configuration."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from tga_jax import __version__
from tga_jax.parallel.devices import GIB
from tga_jax.run.config_text import differences

SHOWN = ("jax", "flax", "orbax-checkpoint", "transformers")


def start_text(config: ConfigDict, workdir: Path, jobs: Sequence[str]) -> str:
    """The lines that a run begins with."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in SHOWN)
    return "\n".join(
        (
            f"tga_jax {__version__} on Python {platform.python_version()}, {versions}",
            f"devices: {devices_text(jax.devices())}; {host_text()}",
            f"configuration: {len(differences(config))} keys differ from the defaults "
            "(--print_config shows them)",
            f"jobs: {', '.join(jobs)}; everything is written to {workdir}",
        )
    )


def devices_text(devices: Sequence[Any]) -> str:
    """The devices by kind and number, with the memory that JAX may use of each.

    Args:
        devices: as `jax.devices()` has them, of all processes.
    """
    kinds: dict[str, list[Any]] = {}
    for device in devices:
        kinds.setdefault(device.device_kind, []).append(device)
    hosts = len({device.process_index for device in devices})
    text = ", ".join(_kind_text(kind, found) for kind, found in kinds.items())
    return f"{text}, in {hosts} processes" if hosts > 1 else text


def _kind_text(kind: str, devices: Sequence[Any]) -> str:
    first, last = devices[0].id, devices[-1].id
    numbers = f"number {first}" if len(devices) == 1 else f"numbers {first} to {last}"
    memory = device_memory(devices)
    room = "" if memory is None else f", JAX may use {memory / GIB:.1f} GiB of each"
    return f"{len(devices)} x {kind} ({numbers}{room})"


def device_memory(devices: Sequence[Any]) -> int | None:
    """Bytes that JAX may use on the smallest of this process's devices; None where it does not say.

    On GPUs that is a share of the device's memory, which XLA_PYTHON_CLIENT_MEM_FRACTION sets.
    """
    mine = [device for device in devices if device.process_index == jax.process_index()]
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in mine]
    return min((limit for limit in limits if limit), default=None)


def host_text() -> str:
    """The cores and the memory of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"host: {os.cpu_count()} cores, {memory / GIB:.1f} GiB of memory"
