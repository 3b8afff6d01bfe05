"""What two processes must have in common is found where it differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tga_jax.config import base_config
from tga_jax.run.fingerprint import data_digest, fingerprint


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


def test_folders_are_told_apart_by_names_and_sizes_at_any_depth(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "x.safetensors").write_bytes(b"12")
    (inner / "circle").symlink_to(tmp_path)
    (inner / "broken").symlink_to(tmp_path / "nothing")
    first = data_digest(tmp_path)
    assert data_digest(tmp_path) == first
    (inner / "x.safetensors").write_bytes(b"123")
    second = data_digest(tmp_path)
    assert second != first
    (inner / "x.safetensors").rename(inner / "y.safetensors")
    assert data_digest(tmp_path) not in (first, second)
    (inner / "y.safetensors").rename(inner / "x.safetensors")
    assert data_digest(tmp_path) == second


def test_the_workdir_is_no_part_of_the_folder_around_it(tmp_path: Path) -> None:
    workdir = tmp_path / "runs" / "mine"
    (workdir / "data").mkdir(parents=True)
    around, own = data_digest(tmp_path, apart=workdir), data_digest(workdir, apart=workdir)
    (workdir / "data" / "log.txt").write_text("more")
    assert data_digest(tmp_path, apart=workdir) == around
    assert data_digest(workdir, apart=workdir) != own


def test_of_very_many_files_some_sizes_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcd":
        (tmp_path / name).touch()
    monkeypatch.setattr("tga_jax.run.fingerprint.SIZED", 2)
    first = data_digest(tmp_path)
    (tmp_path / "b").write_text("not one of them")
    assert data_digest(tmp_path) == first
    (tmp_path / "c").write_text("one of them")
    assert data_digest(tmp_path) != first


@pytest.mark.parametrize(
    ("section", "key", "text"),
    [
        ("data", "mixture", "{0}:2, {1}:1"),
        ("retrieval", "corpus", "{0}, {1}"),
        ("retrieval", "data", "{0},{1}"),
    ],
)
def test_each_file_of_a_list_counts(tmp_path: Path, section: str, key: str, text: str) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        path.write_text("[1]")
    config = base_config()
    config[section][key] = text.format(*paths)
    first = fingerprint(config, ["pretrain"])
    paths[1].write_text("[2]")
    name = f"data of config.{section}.{key}: {paths[1]}"
    assert changed(first, fingerprint(config, ["pretrain"])) == {name}
