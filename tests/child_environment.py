"""The environment of a test's child process."""

from __future__ import annotations

import os


def on_devices(count: int) -> dict[str, str]:
    """This process's environment with `count` host devices; its other flags of XLA stay."""
    flags = os.environ.get("XLA_FLAGS", "")
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}",
    }
