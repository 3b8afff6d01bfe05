"""Later jobs have the model that a stage was trained with, and export what it was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tga_jax.config import base_config
from tga_jax.errors import UserError
from tga_jax.files import write_json
from tga_jax.run.job import Job
from tga_jax.run.weights import check_as_trained


def job_of(workdir: Path, trained: dict[str, Any]) -> Job:
    (workdir / "finetune").mkdir()
    write_json(workdir / "finetune" / "settings.json", trained)
    return Job(base_config(), workdir, "generate")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "quantize", "nf4"),
        ("model", "feature_layer", -1),
        ("lora", "rank", 4),
        ("lora", "alpha", 4.0),
        ("lora", "layers", "1-2"),
        ("lora", "targets", "q,v"),
    ],
)
def test_another_value_is_refused_by_name(
    tmp_path: Path, section: str, key: str, value: Any
) -> None:
    job = job_of(tmp_path, {section: {key: value}})
    with job.config.unlocked():
        job.config.lora.rank = 4 if key != "rank" else 2
    with pytest.raises(UserError, match=f"trained with config.{section}.{key}={value!r}, now"):
        check_as_trained(job, "finetune")
    with job.config.unlocked():
        job.config[section][key] = value
    check_as_trained(job, "finetune")


def test_keys_that_an_older_run_did_not_write_are_no_reason(tmp_path: Path) -> None:
    check_as_trained(job_of(tmp_path, {"model": {}}), "finetune")
