"""The guard of the benchmarks' ratios, on made-up runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.guard import RECORDED, command_of, compare, processor_kind, write_ratios

ROOT = Path(__file__).parents[2]
RUN: dict[str, Any] = {
    "kind": "cpu, 1 core of AMD EPYC",
    "command": "python -m benchmarks.made_up",
    "higher_is_better": {"speed": 1.0},
    "lower_is_better": {"memory": 2.0},
}
OLD = {"tolerance": 0.1, "runs": [RUN]}


@pytest.mark.parametrize(
    ("speed", "memory", "code"),
    [(1.0, 2.0, 0), (0.95, 2.1, 0), (1.5, 1.0, 0), (0.89, 2.0, 1), (1.0, 2.3, 1)],
)
def test_only_what_is_worse_by_more_than_the_tolerance_fails(
    speed: float, memory: float, code: int
) -> None:
    new = RUN | {"higher_is_better": {"speed": speed}, "lower_is_better": {"memory": memory}}
    found, lines = compare(new, OLD)
    assert found == code, lines
    assert any("WORSE" in line for line in lines) == bool(code)


def test_a_missing_ratio_fails_and_a_new_one_does_not() -> None:
    code, lines = compare(RUN | {"higher_is_better": {"other": 1.0}}, OLD)
    assert code == 1
    assert any("speed" in line and "MISSING" in line for line in lines)
    assert any("other" in line and "not recorded" in line for line in lines)


def test_an_unknown_kind_or_command_is_told() -> None:
    code, lines = compare(RUN | {"kind": "NVIDIA H100"}, OLD)
    assert code == 2 and "only for: cpu, 1 core of AMD EPYC" in lines[-1]
    code, lines = compare(RUN | {"command": "python -m benchmarks.other"}, OLD)
    assert code == 2 and "no kind of machine" in lines[-1]


def test_a_run_is_compared_with_its_own_kind_of_processor_alone() -> None:
    other = RUN | {"kind": "cpu, 1 core of Intel Xeon", "higher_is_better": {"speed": 2.0}}
    both = OLD | {"runs": [RUN, other]}
    assert compare(RUN, both)[0] == 0
    assert compare(RUN | {"kind": other["kind"]}, both)[0] == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("AMD EPYC 9B14", "AMD EPYC"),
        ("AMD EPYC", "AMD EPYC"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "Intel Xeon"),
        ("aarch64", "aarch64"),
    ],
)
def test_a_processor_is_known_by_maker_and_family(name: str, kind: str) -> None:
    assert processor_kind(name) == kind


def test_the_command_is_without_the_file_to_write() -> None:
    assert command_of("a", ["--write", "f", "--small"]) == "python -m benchmarks.a --small"
    assert command_of("a", ["--small", "--write=f"]) == "python -m benchmarks.a --small"


def test_what_is_written_is_compared_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["made_up", "--write", "x"])
    new, recorded = tmp_path / "new.json", tmp_path / "recorded.json"
    write_ratios(new, "made_up", higher={"speed": 0.5}, lower={"memory": 2.0}, kind=RUN["kind"])
    recorded.write_text(json.dumps(OLD))
    command = [sys.executable, "-m", "benchmarks.guard", str(new), "--recorded", str(recorded)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "WORSE (-50.0%)" in done.stdout


def test_the_recorded_ratios_agree_with_themselves() -> None:
    recorded = json.loads(RECORDED.read_text())
    for run in recorded["runs"]:
        assert compare(run, recorded)[0] == 0
