"""What is said of errors that a user can mend and that libraries raise."""

import errno
import os
from pathlib import Path

import pytest

from tga_jax.config import base_config
from tga_jax.errors import BATCH_OF, memory_problem
from tga_jax.main import outside_problem

NO_MEMORY = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 345 bytes.")


@pytest.mark.parametrize("job", [*BATCH_OF, "pretrain", "finetune"])
def test_out_of_memory_names_keys_that_there_are(job: str) -> None:
    said = memory_problem(NO_MEMORY, job=job)
    assert said is not None and "allocating 345 bytes" in said
    config = base_config()
    keys = [word.rstrip(",;") for word in said.split() if word.startswith("config.")]
    assert len(keys) == (4 if job in ("pretrain", "finetune") else 3)
    for key in keys:
        part = config
        for name in key.split("=")[0].split(".")[1:]:
            part = part[name]


def test_the_workdir_is_blamed_for_its_own_files_alone(tmp_path: Path) -> None:
    def said(number: int, *name: str) -> str:
        error = OSError(number, os.strerror(number), *name)
        return outside_problem(error, tmp_path / "run") or ""

    blamed = f"--workdir={tmp_path / 'run'}: "
    assert said(errno.EACCES, f"{tmp_path}/run/a.json").startswith(blamed)
    for elsewhere in ("/data/secret.json", f"{tmp_path}/run2/a.json"):
        for number in (errno.EACCES, errno.EPERM, errno.EIO):
            line = said(number, elsewhere)
            assert "--workdir" not in line and elsewhere in line
    assert "--workdir" not in said(errno.EIO)
    assert said(errno.ENOSPC) == f"{blamed}the disk is full; make room or use another --workdir"


def test_of_another_error_nothing_is_said() -> None:
    assert memory_problem(ValueError("no")) is None
    assert "the host has no memory left" in (memory_problem(MemoryError(), job="score") or "")
