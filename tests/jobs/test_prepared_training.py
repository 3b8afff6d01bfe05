"""Prepared data gives what the files give: prompts, scores, training."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.inputs import arguments, make_inputs, read_jsonl, write_jsonl
from tests.jobs.preparing import prepare


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs without a mistake; nothing is written there."""
    return make_inputs(tmp_path_factory.mktemp("good"))


TWO_RUNS = """
import sys
from tga_jax.main import main
middle = sys.argv.index("--")
for command in (sys.argv[1:middle], sys.argv[middle + 1:]):
    assert main(["tga_jax", *command]) == 0
assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules
"""


def test_training_and_scoring_from_prepared_data_are_those_from_files(
    good: Path, tmp_path: Path
) -> None:
    files, kept = tmp_path / "files", tmp_path / "kept"
    assert prepare(good, kept) == 0
    flags = ("--config.data.path=", "--config.data.image_dir=")
    commands = [
        arguments(good, workdir, *more, "--config.compile_cache=", job="inspect,score,pretrain")[1:]
        for workdir, more in ((files, ()), (kept, flags))
    ]
    # A TensorFlow that can be found, and tells when somebody imports it.
    (tmp_path / "path" / "tensorflow").mkdir(parents=True)
    (tmp_path / "path" / "tensorflow" / "__init__.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\nraise ImportError('tensorflow')\n"
    )
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    env["PYTHONPATH"] = str(tmp_path / "path")
    run = [sys.executable, "-c", TWO_RUNS, *commands[0], "--", *commands[1]]
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "imported").exists()
    for name in ("inspect/samples.jsonl", "score/start.jsonl"):
        assert (kept / name).read_bytes() == (files / name).read_bytes()
    losses = [
        [(line["loss"], line["grad_norm"]) for line in read_jsonl(w / "pretrain" / "metrics.jsonl")]
        for w in (files, kept)
    ]
    assert losses[0] == losses[1] and len(losses[0]) > 0


def test_stale_prepared_data_is_refused(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare(good, tmp_path) == 0
    write_jsonl(tmp_path / "captions.jsonl", [{"id": "p2", "caption": "new"}])
    assert prepare(good, tmp_path, job="inspect") == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "captions.jsonl" in line and "run job prepare again" in line
    assert prepare(good, tmp_path, job="prepare,inspect") == 0
    lines = read_jsonl(tmp_path / "inspect" / "samples.jsonl")
    assert lines[2]["caption_span"] is not None


def test_another_image_folder_than_the_prepared_one_is_refused(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It would have no effect, as the images are in data/."""
    assert prepare(good, tmp_path) == 0
    moved = Path(shutil.copytree(good / "images", tmp_path / "moved"))
    assert prepare(good, tmp_path, job="inspect") == 0
    assert f"are those that job prepare put into {tmp_path / 'data'}" in capfd.readouterr().err
    for job in ("inspect", "score", "pretrain"):
        assert prepare(good, tmp_path, f"--config.data.image_dir={moved}", job=job) == 2
        line = capfd.readouterr().err.strip().splitlines()[-1]
        assert f"config.data.image_dir='{moved}': {tmp_path / 'data'} was prepared from" in line
        assert str(good / "images") in line and "run job prepare again" in line
        assert not (tmp_path / job / "samples.json").exists() or job == "inspect"
    own = f"--config.finetune.image_dir={moved}"
    assert prepare(good, tmp_path, own, job="pretrain,finetune") == 2
    assert "config.finetune.image_dir=" in capfd.readouterr().err
    assert not (tmp_path / "pretrain").exists()
    before = (tmp_path / "data" / "report.json").stat().st_mtime_ns
    assert prepare(good, tmp_path, f"--config.data.image_dir={moved}", job="prepare") == 0
    assert "was finished before" in capfd.readouterr().err  # the same images, at another place
    assert (tmp_path / "data" / "report.json").stat().st_mtime_ns > before
    assert prepare(good, tmp_path, f"--config.data.image_dir={moved}", job="inspect") == 0


def test_a_mixture_of_a_file_and_prepared_data_trains(good: Path, tmp_path: Path) -> None:
    assert prepare(good, tmp_path / "a") == 0
    sets = f"{good / 'samples.json'}:2,{tmp_path / 'a' / 'data'}:1"
    flag = f"--config.data.mixture={sets}"
    assert prepare(good, tmp_path / "b", flag, job="inspect") == 0
    lines = read_jsonl(tmp_path / "b" / "inspect" / "samples.jsonl")
    assert lines[:6] == lines[6:] and len(lines) == 12
