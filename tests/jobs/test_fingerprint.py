"""What two processes must have in common is found where it differs."""

from __future__ import annotations

from pathlib import Path

from tga_jax.config import base_config
from tga_jax.jobs.fingerprint import fingerprint


def changed(a: dict[str, str], b: dict[str, str]) -> set[str]:
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def test_config_jobs_and_data_are_told_apart(tmp_path: Path) -> None:
    config, samples = base_config(), tmp_path / "samples.json"
    samples.write_text("[1]")
    config.data.path, config.data.image_dir = str(samples), str(tmp_path)
    first = fingerprint(config, ["pretrain"])
    assert fingerprint(config, ["pretrain"]) == first
    assert changed(first, fingerprint(config, ["finetune"])) == {"--job"}
    samples.write_text("[2]")
    assert changed(first, fingerprint(config, ["pretrain"])) == {"data of config.data.path"}
    samples.write_text("[1]")
    (tmp_path / "new.jpg").touch()
    assert changed(first, fingerprint(config, ["pretrain"])) == {"data of config.data.image_dir"}
    (tmp_path / "new.jpg").unlink()
    config.finetune.steps = 7
    assert changed(first, fingerprint(config, ["pretrain"])) == {"config.finetune.steps"}
    assert len(first["code of tga_jax"]) == 16 and first["version of jax"]
