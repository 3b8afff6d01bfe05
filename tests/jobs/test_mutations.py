"""Random single mutations of a small valid input set: refused in one line, or done, never half."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.inputs import arguments, make_inputs, read_jsonl
from tests.jobs.mutation import Mutation
from tests.jobs.mutations import draw
from tga_jax.main import main

ALL = range(int(os.environ.get("MUTATIONS", "200")))
FAST = [seed for seed in ALL if draw(seed).job != "finetune"][:25]  # a step compiles for seconds
QUICK = ("--config.inspect.show=0", "--config.prepare.workers=0", "--config.finetune.steps=1")
LEFT_OVERS = ("**/*.tmp", "**/.*.partial", "**/.*.old", "**/prepare.tmp")
DONE = {  # job -> what is there when it was done
    "inspect": "inspect/samples.jsonl",
    "prepare": "data/report.json",
    "score": "score/scores.jsonl",
    "finetune": "finetune/done.json",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs without a mistake."""
    return make_inputs(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def shown(good: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the model is fed of each row of these, by its id."""
    workdir = tmp_path_factory.mktemp("shown")
    assert main(arguments(good, workdir, *QUICK, job="inspect")) == 0
    return {line["id"]: line for line in read_jsonl(workdir / "inspect/samples.jsonl")}


def _seeds() -> list[Any]:
    return [s if s in FAST else pytest.param(s, marks=pytest.mark.slow) for s in ALL]


@pytest.mark.parametrize("seed", _seeds())
def test_a_mutation_is_refused_by_name_or_does_no_harm(
    seed: int,
    good: Path,
    shown: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mutation, workdir = draw(seed), tmp_path / "run"
    inputs = Path(shutil.copytree(good, tmp_path / "inputs"))
    done = mutation.spoil(inputs) or ""
    code = main(arguments(inputs, workdir, *QUICK, *mutation.flags, job=mutation.job))
    said = capfd.readouterr().err
    about = f"{seed}: {mutation.name} {done} ({mutation.job} {mutation.flags})\n{said}"
    assert code in (0, 2) and mutation.expect in (None, code), about
    assert "Traceback" not in said and "Warning:" not in said, about
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert not [path for left in LEFT_OVERS for path in workdir.glob(left)], about
    if code == 2:
        assert len(errors) == 1 and said.splitlines()[-1] == errors[0], about
        assert any(culprit in errors[0] for culprit in mutation.culprits), about
        assert not (workdir / DONE[mutation.job]).exists(), about
        assert not list(workdir.glob("**/*done.json")), about
    else:
        assert not errors, about
        _check_outputs(workdir, mutation, said, shown, about)


def _check_outputs(
    workdir: Path, mutation: Mutation, said: str, shown: dict[str, Any], about: str
) -> None:
    """Every row is used or listed, and those that were not touched are used as before."""
    done = workdir / DONE[mutation.job]
    assert done.exists(), about
    if mutation.job in ("inspect", "score"):
        lines = read_jsonl(done)
        used, listed = len(lines), said.count(f"[{mutation.job}] skipped: ")
    else:
        name = done if mutation.job == "prepare" else workdir / "finetune/samples.json"
        report, lines = json.loads(name.read_text()), []
        used = report["kept" if mutation.job == "prepare" else "used"]
        listed = len(report["skipped_records" if mutation.job == "prepare" else "skipped"])
    assert mutation.rows in (None, used + listed), about
    if mutation.job == "inspect" and mutation.touched is not None:
        untouched = [line for line in lines if line["id"] not in mutation.touched]
        assert all(line == shown[line["id"]] for line in untouched), about
