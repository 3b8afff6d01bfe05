"""Kill -9 at any moment and run again: the same losses and the same exported bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs.inputs import arguments, make_inputs, read_jsonl

JOBS = "score,pretrain,finetune,generate,export"


def start(inputs: Path, workdir: Path, *more: str, job: str = JOBS) -> subprocess.Popen:
    """A run in a process group of its own."""
    flags = arguments(inputs, workdir, *more, job=job)[1:]
    command = [sys.executable, "-m", "tga_jax.main", *flags]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def result(workdir: Path) -> dict[str, object]:
    """What must not depend on kills."""
    out: dict[str, object] = {}
    for stage in ("pretrain", "finetune"):
        out[stage] = [
            (line["step"], line["loss"], line["grad_norm"])
            for line in read_jsonl(workdir / stage / "metrics.jsonl")
        ]
    for path in sorted((workdir / "export").iterdir()):
        out[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    out["scores"] = (workdir / "score" / "start.jsonl").read_text()
    out["answers"] = (workdir / "generate" / "answers.jsonl").read_text()
    return out


@pytest.mark.slow
def test_killed_runs_end_as_an_undisturbed_one(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    began = time.monotonic()
    undisturbed = start(inputs, tmp_path / "whole")
    _, err = undisturbed.communicate()
    assert undisturbed.returncode == 0, err
    whole = time.monotonic() - began
    rng, kills, process = random.Random(0), 0, None
    while kills < 8:
        process = start(inputs, tmp_path / "killed")
        try:
            process.communicate(timeout=rng.uniform(0.2, 0.7) * whole)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    if process is None or process.returncode != 0:
        process = start(inputs, tmp_path / "killed")
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert kills > 0
    assert result(tmp_path / "killed") == result(tmp_path / "whole")


@pytest.mark.slow
def test_sigterm_saves_and_asks_to_be_run_again(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    process = start(inputs, tmp_path / "run", job="finetune")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("finetune 1/"):
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate()
    assert process.returncode in (0, 75), err
    again = start(inputs, tmp_path / "run", job="finetune")
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert [line["step"] for line in read_jsonl(tmp_path / "run/finetune/metrics.jsonl")] == list(
        range(1, 7)
    )


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something that happens soon."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


WORKERS = ("--config.data.workers=2", "--config.finetune.steps=400")


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, pgrp = path.read_text().rsplit(")", 1)[1].split()[:3]
            if int(pgrp) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


def in_training(process: subprocess.Popen, step: int) -> None:
    """Read until a step is done."""
    said = []
    for line in process.stderr or ():
        said.append(line)
        if line.startswith(f"finetune {step}/"):
            return
    raise AssertionError("".join(said))


@pytest.mark.slow
def test_sigterm_to_all_processes_of_a_run_with_workers_saves(tmp_path: Path) -> None:
    inputs, run = make_inputs(tmp_path / "inputs"), tmp_path / "run"
    process = start(inputs, run, *WORKERS, "--config.finetune.save_every=100", job="finetune")
    in_training(process, 3)
    assert len(group(process.pid)) >= 3  # the workers
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 75 and "saved at step" in err, err
    until(lambda: not group(process.pid))
    done = len(read_jsonl(run / "finetune/metrics.jsonl"))
    again = start(inputs, run, *WORKERS, job="finetune")
    in_training(again, done + 1)
    # The workers end with a parent that could not tell them.
    again.kill()
    again.communicate()
    until(lambda: not group(again.pid))
