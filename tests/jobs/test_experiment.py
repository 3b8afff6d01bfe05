"""Job `experiment`: arms are the configuration with a few changes, each in its own workdir."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from configs.audit import get_config
from tests.jobs.inputs import Killed, arguments, make_inputs, read_jsonl
from tga_jax.config import base_config
from tga_jax.errors import UserError
from tga_jax.jobs import experiment
from tga_jax.jobs.experiment import arm_names, check_names
from tga_jax.main import main
from tga_jax.run.job import Job


def write_config(folder: Path, arms: str) -> Path:
    """A config file with these arms, whose samples lie under the workdir."""
    path = folder / "config.py"
    path.write_text(
        textwrap.dedent(f"""
        from ml_collections import ConfigDict
        from configs.from_hf import get_config as from_hf

        def get_config():
            config = from_hf()
            with config.unlocked():
                config.experiment.jobs = ("inspect",)
                config.experiment.arms = ConfigDict({arms})
            return config
        """)
    )
    return path


def run(inputs: Path, folder: Path, arms: str, *more: str) -> int:
    """The exit code of job `experiment`."""
    flags = arguments(inputs, folder / "run", *more, job="experiment")
    flags[1] = f"--config={write_config(folder, arms)}"
    return main(flags)


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_each_arm_runs_with_its_changes_in_its_own_workdir(tmp_path: Path, processes: int) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "samples.json").write_bytes((inputs / "samples.json").read_bytes())
    arms = '{"one": {}, "two": {"prompt": {"retrieved": False}}}'
    more = f"--config.experiment.processes={processes}"
    assert run(inputs, tmp_path, arms, "--config.data.path={workdir}/samples.json", more) == 0
    one, two = (
        read_jsonl(workdir / "arms" / name / "inspect" / "samples.jsonl") for name in ("one", "two")
    )
    assert one[1]["retrieved_span"] is not None and two[1]["retrieved_span"] is None


def test_an_arm_with_an_unknown_key_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    assert run(inputs, tmp_path, '{"one": {"guide": {"wieght": 1.0}}}') == 2
    assert "config.experiment.arms.one.guide.wieght: there is no" in capfd.readouterr().err


def test_an_arm_is_left_out_where_the_key_that_it_needs_is_empty() -> None:
    config = get_config("defences").copy_and_resolve_references()
    assert "zero-shot" not in arm_names(config) and "steering" in arm_names(config)
    assert "aligned" not in arm_names(config)
    config.retrieval.clip, config.retrieval.corpus = "a/folder", "texts.txt"
    config.experiment.arms.aligned.model.checkpoint = "runs/mine/export"
    assert arm_names(config) == list(config.experiment.arms)
    config.retrieval.clip, config.experiment.only = "", "zero-shot"
    assert arm_names(config) == ["zero-shot"]  # asked for by name, its check says what is lacking
    config.experiment.only = "undefended, ecso"
    assert arm_names(config) == ["undefended", "ecso"]


@pytest.mark.parametrize(
    ("jobs", "said"),
    [("finetune", "write a sequence"), (("pretrain", "fintune"), "no job 'fintune'")],
)
def test_jobs_of_the_arms_are_names_of_jobs(jobs: str | tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=f"config.experiment.jobs=.*{said}"):
        check_names(jobs)


def test_the_time_before_a_kill_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is found finished takes no time, and does not take back what it took."""
    clock, took = [0.0], {"score": 100.0, "finetune": 5.0}
    monkeypatch.setattr(experiment.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(experiment, "arm_config", lambda config, name: config)

    def work(job: Job) -> None:
        clock[0] += took[job.name]
        if took[job.name] == 5.0:
            raise Killed

    monkeypatch.setattr(experiment, "run_among_hosts", work)
    config = base_config()
    config.experiment.jobs = ("score", "finetune")
    seconds = tmp_path / "arms" / "one" / "seconds.json"
    with pytest.raises(Killed):
        experiment.run_arm(Job(config, tmp_path, "experiment"), "one")
    assert not seconds.exists()
    for again in ({"score": 0.0, "finetune": 30.0}, {"score": 0.0, "finetune": 0.0}):
        took.update(again)
        experiment.run_arm(Job(config, tmp_path, "experiment"), "one")
        assert json.loads(seconds.read_text()) == {"score": 100.0, "finetune": 35.0}
    assert [path.name for path in seconds.parent.glob("seconds*")] == ["seconds.json"]
