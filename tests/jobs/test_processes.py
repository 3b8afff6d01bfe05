"""The same run on one, two and four processes, and from one number of them to another."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from launch.disturb import results
from launch.rehearse import Pod
from tests.jobs.inputs import arguments, make_inputs, read_jsonl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def run(
    inputs: Path, workdir: Path, processes: int, *more: str, job: str = "finetune,export"
) -> tuple[list[int], list[str]]:
    """Exit codes and messages of a pod of four devices."""
    flags = arguments(inputs, workdir, *more, "--config.finetune.accumulate=1", job=job)[1:]
    started = Pod(processes, 4, flags).start(stderr=subprocess.PIPE)
    said = [process.communicate()[1] for process in started.processes]
    return started.wait(), said


@pytest.fixture(scope="module")
def one(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run in one process."""
    workdir = tmp_path_factory.mktemp("one")
    codes, said = run(inputs, workdir, 1)
    assert codes == [0], said
    return workdir


@pytest.mark.parametrize("processes", [2, 4])
def test_the_number_of_processes_changes_no_bit(
    inputs: Path, one: Path, tmp_path: Path, processes: int
) -> None:
    codes, said = run(inputs, tmp_path, processes)
    assert codes == [0] * processes, said
    found = results(tmp_path)
    assert found == results(one) and len(found["losses"]["finetune"]) == 6
    assert all("finetune 6/6" not in text for text in said[1:])  # the first alone talks


def test_from_four_processes_to_two_to_one(inputs: Path, one: Path, tmp_path: Path) -> None:
    """Stopped by SIGTERM to one after some steps, twice."""
    stop = "--config.finetune.save_every=1"
    for processes, until in ((4, 2), (2, 4)):
        flags = arguments(inputs, tmp_path, stop, "--config.finetune.accumulate=1", job="finetune")
        started = Pod(processes, 4, flags[1:]).start(stderr=subprocess.PIPE)
        first = started.processes[0]
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith(f"finetune {until}/"):
                first.terminate()
                break
        for process in started.processes:
            process.communicate()
        assert set(started.wait()) <= {0, 75}
    codes, said = run(inputs, tmp_path, 1, stop)
    assert codes == [0], said
    assert results(tmp_path) == results(one)
    steps = [row["step"] for row in read_jsonl(tmp_path / "finetune/metrics.jsonl")]
    assert steps == list(range(1, 7))


def test_a_frozen_first_process_ends_the_others(inputs: Path, tmp_path: Path) -> None:
    """Its sockets stay open, so that calls of its service neither answer nor fail."""
    more = ("--config.finetune.accumulate=1", "--config.distributed.dead_seconds=8")
    flags = arguments(inputs, tmp_path, *more, "--config.finetune.steps=1000", job="finetune")[1:]
    first, second = Pod(2, 4, flags).start(stderr=subprocess.PIPE).processes
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("finetune 2/"):
            first.send_signal(signal.SIGSTOP)
            break
    said = second.communicate(timeout=100)[1]
    first.kill()
    first.communicate()
    assert second.returncode == 75 and "process 0 of 2 has been silent for" in said, said


def test_an_image_that_vanishes_ends_all_processes_in_a_checkpoint(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    image, away = inputs / "images/1.png", inputs / "away.png"
    more = ("--config.finetune.accumulate=1", "--config.finetune.steps=60")
    more += ("--config.finetune.save_every=1000",)
    flags = arguments(inputs, tmp_path / "stopped", *more, job="finetune")[1:]
    started = Pod(2, 2, flags).start(stderr=subprocess.PIPE)
    first, second = started.processes
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("finetune 3/"):
            image.rename(away)
            break
    said = [process.communicate(timeout=200)[1] for process in (first, second)]
    assert started.wait() == [2, 2], said
    (step,) = (int(p.name) for p in (tmp_path / "stopped/finetune/checkpoints").glob("[0-9]*"))
    assert 3 < step < 60
    for text in said:
        assert "record p1: image '1.png': no such file" in text and "Traceback" not in text
        assert f"(after step {step})" in text
    away.rename(image)
    for name in ("stopped", "whole"):
        pod = Pod(2, 2, arguments(inputs, tmp_path / name, *more, job="finetune")[1:])
        assert pod.start(stderr=None).wait() == [0, 0]
    assert results(tmp_path / "stopped")["losses"] == results(tmp_path / "whole")["losses"]


def test_processes_with_other_settings_are_told(inputs: Path, tmp_path: Path) -> None:
    flags = arguments(inputs, tmp_path, "--config.finetune.accumulate=1", job="finetune")[1:]
    pod = Pod(2, 4, flags)
    command = pod.command
    pod.command = lambda i, port: command(i, port) + [f"--config.seed={i}"]  # type: ignore[method-assign]
    started = pod.start(stderr=subprocess.PIPE)
    said = [process.communicate()[1] for process in started.processes]
    assert started.wait() == [2, 2], said
    assert all("config.seed is '1' in process 1 and '0' in process 0" in text for text in said)
