"""A full disk: one line, exit code 2, nothing half-written under its name, and on with the same
command once there is room."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hf.test_clip_folder import _save_clip
from tests.jobs.inputs import CAPTIONS, arguments, make_inputs
from tga_jax.files import temporary_name
from tga_jax.hf import export
from tga_jax.main import main

FULL = Path("/dev/full")  # every write to it fails as on a full disk
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
# Job -> the file that it is writing when the disk is full, and that must not be there then.
CASES = {
    "index": "index/texts.jsonl",
    "index, at its end": "index/index.json",
    "retrieve": "retrieved.jsonl",
    "caption": "captions.jsonl",
    "pretrain": "pretrain/samples.json",
    "inspect": "inspect/samples.jsonl",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA, a CLIP, images and a corpus."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    _save_clip(folder / "clip")
    (folder / "corpus.txt").write_text("\n".join(["a photo of a dog", "red bus", *CAPTIONS]))
    return folder


@pytest.fixture(scope="module")
def indexed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with an index."""
    workdir = tmp_path_factory.mktemp("indexed")
    assert run(inputs, workdir, "index") == 0
    return workdir


def run(inputs: Path, workdir: Path, job: str) -> int:
    flags = (
        f"--config.retrieval.clip={inputs / 'clip'}", "--config.data.buckets=(256,)",
        f"--config.retrieval.corpus={inputs / 'corpus.txt'}", "--config.pretrain.steps=1",
        "--config.caption.max_new_tokens=2",
    )  # fmt: skip
    return main(arguments(inputs, workdir, *flags, job=job))


@pytest.mark.parametrize("case", CASES)
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    inputs: Path, indexed: Path, tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    job, workdir = case.split(",")[0], tmp_path / "run"
    target = workdir / CASES[case]
    full = temporary_name(target)
    if job == "retrieve":
        shutil.copytree(indexed, workdir)
    full.parent.mkdir(parents=True, exist_ok=True)
    full.symlink_to(FULL)
    assert run(inputs, workdir, job) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and "the disk is full; make room" in line
    assert not target.exists()
    full.unlink(missing_ok=True)
    assert run(inputs, workdir, job) == 0 and target.exists()


def test_a_library_that_raises_an_error_of_its_own(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Rust's tokenizers raise a plain Exception."""

    def save(folder: Path, tokenizer: Any, **_: Any) -> None:
        tokenizer.backend_tokenizer.save(str(FULL))

    monkeypatch.setattr(export, "save_tokenizer", save)
    assert run(inputs, tmp_path / "run", "export") == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and "the disk is full; make room" in line
    assert not (tmp_path / "run/export").exists()
