"""Samples, images and models on a disk that is mounted read-only: nothing is written there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.inputs import arguments, make_inputs
from tga_jax.main import main


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Inputs seen through a read-only mount; only root may make one."""
    source = make_inputs(tmp_path_factory.mktemp("inputs"))
    target = tmp_path_factory.mktemp("mounted")
    for options in (["--bind", str(source)], ["-o", "remount,ro,bind"]):
        done = subprocess.run(["mount", *options, str(target)], capture_output=True, text=True)
        if done.returncode:
            subprocess.run(["umount", str(target)], capture_output=True)
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    yield target
    subprocess.run(["umount", str(target)], check=True)


def test_jobs_only_read_their_inputs(mounted: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (mounted / "images" / "new").touch()
    run = arguments(mounted, tmp_path, job="prepare,inspect,score,generate")
    assert main(run) == 0
    for name in ("data/report.json", "inspect/samples.jsonl", "score/scores.jsonl"):
        assert (tmp_path / name).exists()
    assert len((tmp_path / "generate/answers.jsonl").read_text().splitlines()) == 4
