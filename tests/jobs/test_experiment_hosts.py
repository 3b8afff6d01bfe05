"""Job `experiment` on two processes, against one process's files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from launch.rehearse import Pod
from tests.jobs.analysis import command, make_analysis_inputs
from tests.jobs.inputs import read_jsonl
from tests.jobs.test_audit_hosts import assert_alike, files_of, finish, values
from tests.jobs.test_experiment import write_config
from tga_jax.main import main

pytestmark = pytest.mark.slow
ARMS = '{"paper": {}, "plain": {"guide": {"form": "none"}, "prompt": {"retrieved": False}}}'
NAMES = ("paper", "plain")
JOBS = "('inspect','finetune','evaluate')"  # of which the first one alone does `inspect`
FIGURES = ("loss", "lm_loss", "image_caption_cos")


def flags(inputs: Path, workdir: Path, *more: str) -> list[str]:
    """The command line, of a configuration that lies beside the workdir."""
    argv = command(
        inputs, workdir, f"--config.experiment.jobs={JOBS}", "--config.generate.max_new_tokens=4",
        "--config.generate.batch_size=4", "--config.finetune.steps=3", *more,
        job="experiment,report",
    )  # fmt: skip
    workdir.mkdir(parents=True, exist_ok=True)
    argv[1] = f"--config={write_config(inputs, ARMS)}"
    return argv


def losses(workdir: Path) -> list[list[float]]:
    lines = read_jsonl(workdir / "finetune" / "metrics.jsonl")
    return [[line[name] for name in FIGURES] for line in lines]


def kept(folder: Path) -> dict[str, Any]:
    """Contents of an arm's files that are the same on any number of processes."""
    found = files_of(folder, ("inspect", "evaluate"))
    named = {name: data for name, data in found.items() if name.endswith((".json", ".jsonl"))}
    return {name: values(name, data) for name, data in named.items()}


def test_two_processes_find_in_every_arm_what_one_finds(tmp_path: Path) -> None:
    inputs = make_analysis_inputs(tmp_path / "inputs")
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(flags(inputs, one)) == 0
    said = finish(Pod(2, 2, flags(inputs, two)[1:]).start(stderr=subprocess.PIPE))
    ours = [line for line in said[1].splitlines() if "Gloo" not in line]
    assert not ours  # the first alone talks
    for name in NAMES:
        folders = [folder / "arms" / name for folder in (one, two)]
        wanted, found = map(kept, folders)
        assert found.keys() == wanted.keys() and "inspect/samples.jsonl" in wanted
        for file in wanted:
            assert_alike(without_digests(found[file]), without_digests(wanted[file]), file)
        assert_alike(losses(folders[1]), losses(folders[0]), name)
        seconds = json.loads((folders[1] / "seconds.json").read_text())
        assert list(seconds) == ["inspect", "finetune", "evaluate"]
    page = (two / "report" / "index.html").read_text()
    assert all(f"{name}: " in page for name in NAMES)


def without_digests(value: Any) -> Any:
    """Without hashes of trained weights, whose last digits may differ."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in ("checkpoint", "date")}
        return {key: without_digests(inner) for key, inner in kept.items()}
    return [without_digests(inner) for inner in value] if isinstance(value, list) else value


def test_jobs_for_one_process_are_refused_before_any_arm_runs(tmp_path: Path) -> None:
    inputs = make_analysis_inputs(tmp_path / "inputs")
    argv = flags(inputs, tmp_path / "run", "--config.experiment.jobs=('finetune','bench')")
    started = Pod(2, 2, argv[1:]).start(stderr=subprocess.PIPE)
    said = [process.communicate(timeout=300)[1] for process in started.processes]
    assert started.wait() == [2, 2]
    assert "config.experiment.jobs: job bench is for one process" in said[0]
    assert not (tmp_path / "run" / "arms").exists()
