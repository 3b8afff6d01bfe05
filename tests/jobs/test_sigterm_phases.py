"""SIGTERM in any phase of a job: an end within seconds that asks to be run again; then the same
files as without it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.jobs.inputs import arguments, make_inputs, without_seconds, write_jsonl

pytestmark = pytest.mark.slow

SECONDS_TO_STOP = 20.0
QUESTIONS = 60
# No compiled programs from before: compiling is one of the phases.
FLAGS = (
    "--config.compile_cache=",
    "--config.finetune.save_every=1",
    "--config.generate.batch_size=1",
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and samples, and questions enough for answering to take a while."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    questions = [
        {"question_id": i, "image": f"{i % 4}.png", "text": f"What is it? Number {i}.",
         "harmful": i % 2 == 0}
        for i in range(QUESTIONS)
    ]  # fmt: skip
    write_jsonl(folder / "questions.jsonl", questions)
    return folder


class Run:
    """A command as a process, and what it says."""

    def __init__(self, inputs: Path, workdir: Path, job: str) -> None:
        self.workdir = workdir
        benchmarks = f"--config.evaluate.benchmarks=questions:{inputs}/questions.jsonl"
        flags = arguments(inputs, workdir, benchmarks, *FLAGS, job=job)[1:]
        workdir.mkdir(parents=True, exist_ok=True)
        self._log = workdir / "stderr.txt"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tga_jax.main", *flags],
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
                stderr=log,
            )

    @property
    def said(self) -> str:
        """All of stderr so far."""
        return self._log.read_text()

    def until(self, moment: Callable[[Run], bool], seconds: float = 300) -> None:
        """Wait for a moment of the run."""
        end = time.monotonic() + seconds
        while not moment(self):
            assert self._process.poll() is None and time.monotonic() < end, self.said
            time.sleep(0.002)

    def stop(self) -> tuple[int, float]:
        """SIGTERM; the exit code, and the seconds until it came."""
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        return self.wait(), time.monotonic() - began

    def wait(self) -> int:
        """The exit code."""
        return self._process.wait(300)

    def kill(self) -> None:
        """If it is still there."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running(inputs: Path, workdir: Path, job: str) -> Iterator[Run]:
    """A run that does not outlive its test."""
    run = Run(inputs, workdir, job)
    try:
        yield run
    finally:
        run.kill()


RESULTS = {
    "finetune": ("finetune/done.json", "export/*"),
    "export": ("export/*",),
    "generate": ("generate/answers.jsonl",),
    "evaluate": ("evaluate/*/answers.jsonl", "evaluate/metrics.json"),
}
# What has to run, so that the results can be looked at.
THEN = {"finetune": "finetune,export"}


def results(workdir: Path, job: str) -> dict[str, bytes]:
    """Files by name, without how long questions took."""
    paths = sorted(path for pattern in RESULTS[job] for path in workdir.glob(pattern))
    assert len(paths) >= len(RESULTS[job])
    files = {str(path.relative_to(workdir)): path.read_bytes() for path in paths}
    if metrics := files.get("evaluate/metrics.json"):
        files["evaluate/metrics.json"] = without_seconds(metrics)
    return files


@pytest.fixture(scope="module")
def undisturbed(
    inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, bytes]]:
    """job -> its files from a run without a signal."""
    kept: dict[str, dict[str, bytes]] = {}

    def find(job: str) -> dict[str, bytes]:
        if job not in kept:
            with running(inputs, tmp_path_factory.mktemp(job), THEN.get(job, job)) as run:
                assert run.wait() == 0, run.said
                kept[job] = results(run.workdir, job)
        return kept[job]

    return find


def says(text: str) -> Callable[[Run], bool]:
    """The moment of these words."""
    return lambda run: text in run.said


def has(pattern: str) -> Callable[[Run], bool]:
    """The moment when such a file is there."""
    return lambda run: any(run.workdir.glob(pattern))


MOMENTS = {
    "loading": ("finetune", says("[finetune] loading")),
    "data start": ("finetune", says("[finetune] 6 steps from")),
    "compiling": ("finetune", says("compiling the step")),
    "saving": ("finetune", has("finetune/checkpoints/3*tmp*")),
    "generate": ("generate", says("generate 2/")),
    "evaluate": ("evaluate", says("evaluate 2/")),
    "export": ("export", has(".export.partial")),
    "export weights": ("export", has(".export.partial/*.safetensors*")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_stopped_run_goes_on_to_the_same_files(
    moment: str,
    inputs: Path,
    undisturbed: Callable[[str], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    job, when = MOMENTS[moment]
    with running(inputs, tmp_path, job) as run:
        run.until(when)
        code, seconds = run.stop()
        assert code in (0, 75) and seconds < SECONDS_TO_STOP, (code, seconds, run.said)
        if code == 75:
            assert "run the same command again to go on" in run.said.splitlines()[-1]
            assert "Traceback" not in run.said
            if moment == "compiling":
                assert "before its first step" in run.said  # a short one may have just ended
    with running(inputs, tmp_path, THEN.get(job, job)) as again:
        assert again.wait() == 0, again.said
    assert results(tmp_path, job) == undisturbed(job)
