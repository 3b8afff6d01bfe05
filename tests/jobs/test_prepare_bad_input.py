"""Job `prepare` and what can be wrong: records, files, the disk, a kill."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.jobs.inputs import arguments, make_inputs, make_samples, row
from tests.jobs.preparing import contents, prepare, report, samples_file
from tga_jax.data.prepared import PreparedRecords


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs without a mistake; nothing is written there."""
    return make_inputs(tmp_path_factory.mktemp("good"))


def bad_rows() -> list[tuple[Any, str]]:
    """Broken rows, and what the report must say about each."""
    ask = [("human", "<image>\nWhat?"), ("gpt", "It.")]
    return [
        ({"id": "no-talk"}, '"conversations" is missing'),
        ({"conversations": []}, 'has no "id"'),
        ("text", "it must be a JSON object"),
        (row("gone", ask, image="gone.png"), "no such file"),
        (row("out", ask, image="../samples.json"), "inside the image folder"),
        (row("no-picture", ask, image="notes.txt"), "not a readable image"),
        (row("cut", ask, image="cut.png"), "not a readable image"),
        (row("silent", [("human", "Hello?"), ("gpt", " ")]), "no answer"),
        (row("open", [("human", "Hello?")]), "no answer"),
        (row("marks", [("human", "<image><image>"), ("gpt", "x")], image="0.png"), "2 <image>"),
    ]


@pytest.fixture
def spoilt(good: Path, tmp_path: Path) -> tuple[str, str]:
    """Flags for samples of which ten of sixteen are bad."""
    images = tmp_path / "images"
    images.mkdir()
    for path in (good / "images").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "notes.txt").write_text("no image")
    (images / "cut.png").write_bytes((images / "1.png").read_bytes()[:300])
    samples = make_samples()[:3] + [bad for bad, _ in bad_rows()] + make_samples()[3:]
    return samples_file(tmp_path / "in", samples), f"--config.data.image_dir={images}"


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_records_within_the_budget_are_skipped_and_listed(
    good: Path, spoilt: tuple[str, str], tmp_path: Path, workers: int
) -> None:
    more = (*spoilt, "--config.data.max_bad_fraction=0.625", f"--config.prepare.workers={workers}")
    assert prepare(good, tmp_path, *more) == 0
    about = report(tmp_path)
    assert (about["records"], about["kept"], about["skipped"]) == (16, 6, 10)
    assert len(about["skipped_records"]) == 10
    for number, (listed, (bad, reason)) in enumerate(
        zip(about["skipped_records"], bad_rows(), strict=True)
    ):
        assert listed["record"] == 4 + number and reason in listed["reason"], listed
        assert listed["id"] == (bad.get("id") if isinstance(bad, dict) else None)
    ids = [record.id for record in PreparedRecords(tmp_path / "data", "train")]
    assert ids == [sample["id"] for sample in make_samples()]
    assert prepare(good, tmp_path / "clean") == 0
    assert about["content"] == report(tmp_path / "clean")["content"]


def test_one_bad_record_too_many_stops_and_leaves_nothing(
    good: Path, spoilt: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    assert prepare(good, work, *spoilt, "--config.data.max_bad_fraction=0.6") == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "record marks" in line and "allows 9 of 16" in line
    assert prepare(good, work, *spoilt) == 2
    assert "allows 0 of 16" in capfd.readouterr().err
    assert [path.name for path in work.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'[{"id": "\xe9"}]', "not UTF-8"),
        (b'[{"id": 1},', "malformed JSON at line 1"),
        (b"[]", "holds no records"),
    ],
)
def test_a_file_that_is_broken_as_a_whole(
    good: Path, tmp_path: Path, text: bytes, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_bytes(text)
    more = (f"--config.data.path={tmp_path / 'bad.json'}", "--config.data.max_bad_fraction=1.0")
    assert prepare(good, tmp_path / "work", *more) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert message in line and "bad.json" in line


def test_a_broken_line_is_a_bad_record(good: Path, tmp_path: Path) -> None:
    lines = [json.dumps(sample) for sample in make_samples()]
    (tmp_path / "s.jsonl").write_text("\n".join([*lines[:2], '{"id": 1,', *lines[2:]]))
    more = (f"--config.data.path={tmp_path / 's.jsonl'}", "--config.data.max_bad_fraction=0.2")
    assert prepare(good, tmp_path, *more) == 0
    (bad,) = report(tmp_path)["skipped_records"]
    assert bad["record"] == 3 and "line 3" in bad["reason"]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from tensorflow_datasets.core import file_adapters

    def write(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_adapters.ArrayRecordFileAdapter, "write_examples", write)
    assert prepare(good, tmp_path) == 2
    assert (
        capfd.readouterr()
        .err.strip()
        .splitlines()[-1]
        .endswith("the disk is full; make room or use another --workdir")
    )
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_nothing_is_written_beside_the_images(good: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (good, good / "images", *good.rglob("*"))}
    assert prepare(good, tmp_path) == 0
    assert {p: p.stat().st_mtime_ns for p in (good, good / "images", *good.rglob("*"))} == before


def test_a_folder_of_something_else_is_not_overwritten(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("precious")
    assert prepare(good, tmp_path) == 2
    assert "move it away" in capfd.readouterr().err
    assert (tmp_path / "data" / "mine.txt").read_text() == "precious"


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(good: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(300):
        pixels = rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    ask = [("human", "<image>\nWhich?"), ("gpt", "This.")]
    flags = (
        samples_file(tmp_path / "in", [row(str(i), ask, image=f"{i}.png") for i in range(300)]),
        f"--config.data.image_dir={images}", "--config.prepare.workers=2",
    )  # fmt: skip

    def start(workdir: Path) -> subprocess.Popen:
        command = arguments(good, workdir, *flags, job="prepare")
        env = os.environ | {"JAX_PLATFORMS": "cpu"}
        run = [sys.executable, "-m", "tga_jax.main", *command[1:]]
        return subprocess.Popen(run, env=env, stderr=subprocess.PIPE, text=True)

    def working(workdir: Path, process: subprocess.Popen) -> float:
        """When the run began to write."""
        while not (workdir / "prepare.tmp").exists() and process.poll() is None:
            time.sleep(0.01)
        return time.monotonic()

    whole = start(tmp_path / "whole")
    began = working(tmp_path / "whole", whole)
    _, err = whole.communicate()
    assert whole.returncode == 0, err
    seconds = time.monotonic() - began
    expected, data = contents(tmp_path / "whole" / "data"), tmp_path / "killed" / "data"
    chance, kills = random.Random(0), 0
    for _ in range(6):
        process = start(tmp_path / "killed")
        working(tmp_path / "killed", process)
        time.sleep(chance.uniform(0, seconds))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        if data.exists():  # visible means whole
            assert contents(data) == expected
            shutil.rmtree(data)
    assert kills > 2
    last = start(tmp_path / "killed")
    last.communicate()
    assert last.returncode == 0
    assert contents(data) == expected
    assert not (tmp_path / "killed" / "prepare.tmp").exists()
