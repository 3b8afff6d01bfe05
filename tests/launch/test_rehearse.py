"""A pod in small: commands of a dry run, restarts, an end that disturbances do not change."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from launch import disturb, rehearse
from launch.rehearse import Pod
from tests.jobs.inputs import arguments, make_inputs

FLAGS = ["--config=configs/from_hf.py", "--workdir=runs/x y"]


def test_dry_run_shows_a_command_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rehearse", "--processes=2", "--devices=4", "--dry-run", "--", *FLAGS]
    assert rehearse.main(words) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [command[-1] for command in commands] == ["--process=0", "--process=1"]
    for command in commands:
        assert "JAX_PLATFORMS=cpu" in command and set(FLAGS) <= set(command)
        assert any("device_count=2" in word for word in command)
    assert commands[0][:-1] == commands[1][:-1]


def test_devices_are_shared_evenly() -> None:
    with pytest.raises(SystemExit, match="--devices=3"):
        Pod(2, 3, FLAGS)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([[0, 0]], 0), ([[75, -9], [0, 0]], 0), ([[2, 2]], 2), ([[75, 75]] * 4, 1)],
)
def test_restarts_until_done_or_a_mistake(
    monkeypatch: pytest.MonkeyPatch, codes: list[list[int]], expected: int
) -> None:
    turns = iter(codes)

    class Ended:
        def __init__(self) -> None:
            self.codes = next(turns)

        def wait(self) -> list[int]:
            return self.codes

    monkeypatch.setattr(Pod, "start", lambda self, stderr: Ended())
    assert rehearse.main(["rehearse", "--processes=2", "--", *FLAGS]) == expected
    assert next(turns, None) is None


def test_results_are_losses_and_bytes(tmp_path: Path) -> None:
    row = dict.fromkeys(disturb.FIGURES, 0.5) | {"step": 1, "step_seconds": 9.0}
    for name in ("a", "b"):
        (tmp_path / name / "finetune").mkdir(parents=True)
        (tmp_path / name / "export").mkdir()
        (tmp_path / name / "export" / "config.json").write_text("{}")
        (tmp_path / name / "finetune" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        row["step_seconds"] = 1.0
    assert disturb.results(tmp_path / "a") == disturb.results(tmp_path / "b")
    (tmp_path / "b" / "export" / "config.json").write_text("{ }")
    assert disturb.results(tmp_path / "a") != disturb.results(tmp_path / "b")


@pytest.mark.slow
def test_a_disturbed_pod_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    flags = arguments(inputs, tmp_path, "--config.finetune.accumulate=1", job="finetune,export")
    own = ["--config.finetune.steps=60", "--config.finetune.save_every=20"]
    kept = [flag for flag in flags[1:] if not flag.startswith("--workdir")]
    cluster = ["--processes=4", "--times=3", f"--folder={tmp_path / 'pods'}"]
    assert disturb.main(["disturb", *cluster, "--", *kept, *own]) == 0
