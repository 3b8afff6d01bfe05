"""What is said of errors that a user can mend and that libraries raise."""

import pytest

from tga_jax.config import base_config
from tga_jax.errors import BATCH_OF, memory_problem

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


def test_of_another_error_nothing_is_said() -> None:
    assert memory_problem(ValueError("no")) is None
    assert "the host has no memory left" in (memory_problem(MemoryError(), job="score") or "")
