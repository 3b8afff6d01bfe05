"""Job `prepare` from the command line, and what it wrote."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.jobs.inputs import arguments
from tga_jax.main import main

HERE = "--config.prepare.workers=0"


def prepare(inputs: Path, workdir: Path, *more: str, job: str = "prepare") -> int:
    return main(arguments(inputs, workdir, HERE, *more, job=job))


def report(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "data" / "report.json").read_text())


def contents(folder: Path) -> dict[str, str]:
    """File -> SHA-256."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def samples_file(folder: Path, samples: list[Any]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "samples.json").write_text(json.dumps(samples))
    return f"--config.data.path={folder / 'samples.json'}"
