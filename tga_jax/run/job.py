"""The job that is being done: its configuration, the folder of its outputs, and its name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from tga_jax.cluster import hosts


@dataclasses.dataclass(frozen=True)
class Job:
    """What every job is given; all else is made from it where it is needed.

    Attributes:
        config: the resolved configuration, locked.
        workdir: the folder that holds every output of the run.
        name: as `--job` has it; it begins every line of the log.
        following: the names of the jobs that are run after it.
    """

    config: ConfigDict
    workdir: Path
    name: str = ""
    following: tuple[str, ...] = ()

    def say(self, text: str) -> None:
        """Print a line for the person who watches, from the first process alone."""
        hosts.log(f"[{self.name}] {text}" if self.name else text)
