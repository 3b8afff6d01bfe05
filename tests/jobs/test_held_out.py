"""Figures on the way through a stage: those of other jobs, the same after a kill, and the best."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jobs.analysis import command, make_analysis_inputs
from tests.jobs.inputs import Killed, read_jsonl, write_jsonl
from tga_jax.analysis.held_out import HeldOutFigures
from tga_jax.main import main

Capture = pytest.CaptureFixture[str]
FLAGS = ("--config.data.validation=0.4", "--config.finetune.batch_size=2",
         "--config.finetune.accumulate=1", "--config.finetune.steps=4",
         "--config.finetune.evaluate_every=2", "--config.finetune.keep=1")  # fmt: skip


def held_out(inputs: Path, workdir: Path, *more: str, job: str = "finetune") -> list[str]:
    probe = f"--config.held_out.benchmarks=questions:{inputs}/q.jsonl"
    return command(inputs, workdir, *FLAGS, probe, *more, job=job)


def figures(workdir: Path) -> dict[int, dict[str, Any]]:
    """The held-out figures by step."""
    lines = read_jsonl(workdir / "finetune" / "metrics.jsonl")
    found = {
        line["step"]: {k: v for k, v in line.items() if k.startswith(("held_out", "probe"))}
        for line in lines
    }
    for one in found.values():
        one.pop("held_out_seconds", None)
    return {step: one for step, one in found.items() if one}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, samples, and questions of both kinds."""
    return make_analysis_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, its scores of split "validation" and its evaluation."""
    workdir = tmp_path_factory.mktemp("whole")
    asked = f"--config.evaluate.benchmarks=questions:{inputs}/q.jsonl"
    assert main(held_out(inputs, workdir)) == 0
    assert main(held_out(inputs, workdir, "--config.data.split=validation", job="score")) == 0
    assert main(held_out(inputs, workdir, asked, job="evaluate")) == 0
    return workdir


def test_they_are_those_of_jobs_score_and_evaluate(whole: Path) -> None:
    taken = figures(whole)
    assert sorted(taken) == [0, 2, 4]
    scores = read_jsonl(whole / "score" / "scores.jsonl")
    loss = sum(s["nll"] for s in scores) / sum(s["tokens"] for s in scores)
    cosines = [s["image_caption_cos"] for s in scores if s["image_caption_cos"]]
    assert taken[4]["held_out_loss"] == pytest.approx(loss, rel=1e-5)
    assert taken[4]["held_out_cos"] == pytest.approx(float(np.mean(cosines)), rel=1e-4)
    (answers,) = (whole / "evaluate").glob("questions/*answers*.jsonl")
    margins = {a["question_id"]: a["metadata"]["margin"] for a in read_jsonl(answers)}
    harmful = [m for name, m in margins.items() if str(name)[0] in "03"]
    harmless = [m for name, m in margins.items() if str(name)[0] not in "03"]
    assert taken[4]["probe_margin_harmful"] == pytest.approx(np.mean(harmful), rel=1e-4)
    assert taken[4]["probe_margin_harmless"] == pytest.approx(np.mean(harmless), rel=1e-4)
    pairs = [(a > b) + (a == b) / 2 for a in harmful for b in harmless]
    assert taken[4]["probe_auc"] == pytest.approx(float(np.mean(pairs)))
    assert taken[0] != taken[4]


def test_a_killed_run_has_the_same_lines(
    inputs: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill_at(count: int) -> Callable[..., Any]:
        taken = []

        def take(self: HeldOutFigures, state: Any) -> Any:
            taken.append(state)
            if len(taken) == count:
                raise Killed
            return call(self, state)

        return take

    call = HeldOutFigures.__call__
    for count in (1, 3):  # before the first step; after the last, whose figures are not written yet
        monkeypatch.setattr(HeldOutFigures, "__call__", kill_at(count))
        with pytest.raises(Killed):
            main(held_out(inputs, tmp_path))
    monkeypatch.setattr(HeldOutFigures, "__call__", call)
    assert main(held_out(inputs, tmp_path)) == 0
    assert figures(tmp_path) == figures(whole)


def test_training_is_the_same_without_them(inputs: Path, whole: Path, tmp_path: Path) -> None:
    assert main(held_out(inputs, tmp_path, "--config.finetune.evaluate_every=0")) == 0
    plain = read_jsonl(tmp_path / "finetune" / "metrics.jsonl")
    lines = [line for line in read_jsonl(whole / "finetune" / "metrics.jsonl") if line["step"]]
    assert [one["loss"] for one in plain] == [one["loss"] for one in lines]


@pytest.mark.parametrize(
    "name", ["held_out_loss", "probe_auc", pytest.param("held_out_cos", marks=pytest.mark.slow)]
)
def test_the_best_checkpoint_is_kept_and_taken(
    inputs: Path, tmp_path: Path, name: str, capfd: Capture
) -> None:
    flags = ("--config.finetune.evaluate_every=1", f"--config.finetune.best={name}")
    assert main(held_out(inputs, tmp_path, *flags, job="finetune,export")) == 0
    values = {step: found[name] for step, found in figures(tmp_path).items() if step}
    choose = min if name == "held_out_loss" else max
    best = choose(values, key=lambda step: values[step])
    assert json.loads((tmp_path / "finetune" / "done.json").read_text())["step"] == best
    kept = {p.name for p in (tmp_path / "finetune" / "checkpoints").iterdir()}
    assert {str(best), "4"} <= kept
    said = capfd.readouterr().err
    assert f"that of step {best}" in said
    assert main(held_out(inputs, tmp_path, *flags)) == 0
    assert "finished before" in capfd.readouterr().err
    assert main(held_out(inputs, tmp_path, *flags, "--config.held_out.limit=1")) == 2
    assert "begun with config.held_out.limit=64, now it is 1" in capfd.readouterr().err


def test_a_best_figure_that_was_never_measured_is_said(
    inputs: Path, tmp_path: Path, capfd: Capture
) -> None:
    rows = json.loads((inputs / "samples.json").read_text())
    bare = [{k: v for k, v in row.items() if k != "image_caption"} for row in rows]
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    flags = (f"--config.data.path={tmp_path}/bare.json", "--config.finetune.best=held_out_cos")
    assert main(held_out(inputs, tmp_path / "run", *flags)) == 0
    said = "held_out_cos was never measured, so the last step is taken"
    assert said in capfd.readouterr().err
    assert json.loads((tmp_path / "run" / "finetune" / "done.json").read_text())["step"] == 4


def test_a_probe_of_one_kind_is_refused_before_any_stage_is_trained(
    inputs: Path, tmp_path: Path, capfd: Capture
) -> None:
    harmful = [row for row in read_jsonl(inputs / "q.jsonl") if row["harmful"]]
    write_jsonl(tmp_path / "q.jsonl", harmful)
    probe = f"--config.held_out.benchmarks=questions:{tmp_path}/q.jsonl?images={inputs}/images"
    assert main(held_out(inputs, tmp_path / "run", probe, job="pretrain,finetune")) == 2
    assert "has no harmless request" in capfd.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "pretrain").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--config.data.validation=20",), "config.data.validation=20"),
        (("--config.finetune.best=loss",), "config.finetune.best='loss'"),
        (("--config.finetune.best=probe_auc", "--config.held_out.benchmarks="), "held_out.bench"),
        (("--config.held_out.benchmarks=", "--config.data.validation=0"), "nothing is held out"),
        (("--config.held_out.benchmarks=questions:/no/such.jsonl",), "missing from questions"),
        (("--config.held_out.samples=-1",), "config.held_out.samples=-1"),
    ],
)
def test_mistakes_are_one_line_before_the_model_is_loaded(
    inputs: Path, tmp_path: Path, flags: tuple[str, ...], said: str, capfd: Capture
) -> None:
    assert main(held_out(inputs, tmp_path, *flags)) == 2
    err = capfd.readouterr().err
    assert said in err.splitlines()[-1] and "loading" not in err
