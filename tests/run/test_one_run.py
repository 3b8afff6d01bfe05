"""A workdir is for one run at a time, and a run that was killed leaves it free."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.inputs import arguments, make_inputs
from tga_jax.config import base_config
from tga_jax.errors import UserError
from tga_jax.jobs import experiment
from tga_jax.main import main
from tga_jax.run import one_run
from tga_jax.run.job import Job
from tga_jax.run.one_run import claimed

HOLD = """
import sys, time
from pathlib import Path
from tga_jax.run.one_run import one_run
with one_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_run, "HERE_SECONDS", 0.0)


def test_a_second_run_is_refused_until_the_first_is_gone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, workdir = make_inputs(tmp_path / "inputs"), tmp_path / "run"
    workdir.mkdir()
    line = arguments(inputs, workdir, job="inspect")
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        assert main(line) == 2
        said = capfd.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"error: {workdir}: another run is writing to it; wait")
        assert not (workdir / "inspect").exists()
    finally:
        first.kill()
        first.wait()
    assert main(line) == 0
    assert main(line) == 0  # and it ends with the run


def test_a_run_that_is_just_ending_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(one_run, "HERE_SECONDS", 60.0)
    monkeypatch.setattr(one_run, "POLL_SECONDS", 0.01)
    with one_run.one_run(tmp_path):
        held = iter([BlockingIOError, BlockingIOError, None])

        def flock(file: Any, operation: int) -> None:
            error = next(held)
            if error is not None:
                raise error

        monkeypatch.setattr(one_run.fcntl, "flock", flock)
        with one_run.one_run(tmp_path):
            assert next(held, "none") == "none"
    said = capfd.readouterr().err
    assert said == f"another run is writing to {tmp_path}; waiting 60 s for its end\n"


def test_a_file_system_without_locks_is_written_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(one_run.fcntl, "flock", flock)
    with one_run.one_run(tmp_path), one_run.one_run(tmp_path):
        pass
    with one_run.one_run(tmp_path / "no such folder"):
        pass


@pytest.mark.parametrize(
    ("jobs", "key", "value"),
    [
        (["report"], "seed", 0),
        (["experiment"], "experiment.only", "one"),
        (["caption"], "caption.shard", "1/2"),
    ],
)
def test_some_may_run_beside_others(tmp_path: Path, jobs: list[str], key: str, value: Any) -> None:
    config = base_config()
    with claimed(tmp_path, config, ["finetune", "caption", "experiment"]):
        with pytest.raises(UserError, match="another run"), claimed(tmp_path, config, ["score"]):
            pass
        config.update_from_flattened_dict({key: value})
        with claimed(tmp_path, config, jobs):
            pass


def test_hosts_that_caption_the_same_part_are_refused(tmp_path: Path) -> None:
    one, other = base_config(), base_config()
    one.caption.shard, other.caption.shard = "0/2", "1/2"
    with claimed(tmp_path, one, ["caption"]), claimed(tmp_path, other, ["caption"]):
        with pytest.raises(UserError, match="another run"), claimed(tmp_path, one, ["caption"]):
            pass


def test_an_arm_is_for_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "arm_config", lambda config, name: config)
    job = Job(base_config(), tmp_path, "experiment")
    with one_run.one_run(tmp_path):  # the experiment that started its arms side by side
        experiment.run_arm(job, "one")
        (tmp_path / "arms" / "two").mkdir()
        with one_run.one_run(tmp_path / "arms" / "two"):
            experiment.run_arm(job, "one")
            with pytest.raises(UserError, match="two: another run is writing to it"):
                experiment.run_arm(job, "two")
