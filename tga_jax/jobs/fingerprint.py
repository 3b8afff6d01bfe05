"""What the processes of a run must have in common: versions, code, configuration, data."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.jobs.files import digest, file_digest

PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "grain", "numpy", "transformers")


def fingerprint(config: ConfigDict, jobs: Sequence[str]) -> dict[str, str]:
    """Name -> text or digest of all that decides what a process does.

    A configuration value that names a file stands for its bytes, one that names a folder for the
    names in it.
    """
    parts = {f"version of {name}": importlib.metadata.version(name) for name in PACKAGES}
    parts |= {"version of Python": sys.version.split()[0], "--job": ",".join(jobs)}
    parts["code of tga_jax"] = code_digest()
    for key, value in flat(config.to_dict(), "config").items():
        parts[key] = str(value)
        if isinstance(value, str) and value and os.path.exists(value):
            parts[f"data of {key}"] = data_digest(Path(value))
    return parts


def code_digest() -> str:
    """Of all of this package's sources."""
    root = Path(__file__).parents[1]
    sources = [path.relative_to(root) for path in sorted(root.rglob("*.py"))]
    whole = hashlib.sha256()
    for path in sources:
        whole.update(str(path).encode() + b"\0" + (root / path).read_bytes())
    return whole.hexdigest()[:16]


def data_digest(path: Path) -> str:
    """Of a file's bytes, or of the names directly in a folder."""
    return digest(sorted(os.listdir(path))) if path.is_dir() else file_digest(path)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        out |= flat(inner, f"{prefix}.{key}" if prefix else key)
    return out
