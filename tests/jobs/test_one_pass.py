"""Job `analyze` after `evaluate`: prompts of both are run once, and every figure is as without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jobs.analysis import command, make_analysis_inputs
from tests.jobs.inputs import CAPTIONS, read_jsonl, write_jsonl
from tga_jax.analysis.analyst import Analyst
from tga_jax.evaluation.profiles import PAPER_REQUEST
from tga_jax.main import main

pytestmark = pytest.mark.parity
SHORT = ("--config.generate.max_new_tokens=3", "--config.evaluate.profile=paper")
ALONE = "--config.analyze.profile="  # that of evaluate
NUMBERS = (
    "apology_log_prob",
    "refusal_direction",
    "image_caption_cos",
    "image_caption_cos_centred",
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts, captioned images asked what job `analyze` asks and otherwise, images without one."""
    folder = make_analysis_inputs(tmp_path_factory.mktemp("inputs"))
    rows: list[dict[str, Any]] = []
    for i, caption in enumerate(CAPTIONS):
        about = {"question_id": i, "image": f"{i}.png", "harmful": i in (0, 3)}
        asked = "Describe this image." if i < 2 else "What is it?"
        rows.append({**about, "text": asked, "image_caption": caption})
    plain = [{**row, "text": "Say it.", "image_caption": None} for row in rows]
    write_jsonl(folder / "captioned.jsonl", rows)
    write_jsonl(folder / "plain.jsonl", plain)
    return folder


def line(inputs: Path, workdir: Path, job: str, *more: str) -> list[str]:
    kinds = ("shown=questions:captioned", "plain=questions:plain", "texts=texts:texts")
    spec = ",".join(f"{kind.replace(':', f':{inputs}/')}.jsonl" for kind in kinds)
    benchmarks = f"--config.evaluate.benchmarks={spec}"
    return command(inputs, workdir, ALONE, *SHORT, benchmarks, *more, job=job)


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("alone")
    assert main(line(inputs, workdir, "analyze")) == 0
    return workdir / "analyze"


class Counted:
    """Which prompts job `analyze` runs itself."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.run, of = list[str](), Analyst._of

        def counting(analyst: Analyst, params: Any, batch: Any) -> Any:
            if not analyst._is_kept(batch.rows[0]):
                self.run += [analyst._prompts[row].set for row in batch.rows]
            return of(analyst, params, batch)

        patch.setattr(Analyst, "_of", counting)


def check_alike(one: Path, other: Path) -> None:
    for a, b in zip(*(read_jsonl(f / "samples.jsonl") for f in (one, other)), strict=True):
        assert [a[k] for k in ("id", "set", "benchmark")] == [
            b[k] for k in ("id", "set", "benchmark")
        ]
        assert (a["first_layer"], a["refused"]) == (b["first_layer"], b["refused"])
        for name in NUMBERS:
            assert (a[name] is None) == (b[name] is None)
            if a[name] is not None:
                pair = (np.array(line[name], float) for line in (a, b))
                np.testing.assert_allclose(*pair, atol=2e-4)
    found = [json.loads((f / "summary.json").read_text()) for f in (one, other)]
    assert found[0] == found[1]


def test_prompts_of_both_jobs_are_run_once(
    inputs: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    assert main(line(inputs, tmp_path, "evaluate,analyze")) == 0
    check_alike(tmp_path / "analyze", alone)
    # Twice the scenes, which nobody else asks; once the captioned images that are asked otherwise.
    images = [name for name in counted.run if name.endswith("images")]
    scenes = [name for name in counted.run if name.endswith("scenes")]
    assert len(images) == len(CAPTIONS) - 2 and len(scenes) == 2 * len(CAPTIONS)
    assert len(counted.run) == len(images) + len(scenes)
    assert not (tmp_path / "analyze" / "states").exists()


def test_states_are_kept_for_this_model_and_system_text_alone(
    inputs: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    custom = ("--config.analyze.profile=custom", f"--config.analyze.system={PAPER_REQUEST}")
    assert main(line(inputs, tmp_path, "evaluate,analyze", *custom)) == 0
    alone_lines = read_jsonl(alone / "samples.jsonl")
    assert sum(name.endswith("images") for name in counted.run) == sum(
        row["set"].endswith("images") for row in alone_lines
    )


def test_without_job_analyze_nothing_is_kept(inputs: Path, tmp_path: Path) -> None:
    assert main(line(inputs, tmp_path, "evaluate")) == 0
    assert not (tmp_path / "analyze").exists()


def test_retrieved_texts_change_a_prompt_and_are_not_taken_for_it(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_jsonl(inputs / "plain.jsonl")
    path = inputs / "told.jsonl"
    write_jsonl(
        path, [{**row, "retrieved": "a red ball" if i else None} for i, row in enumerate(rows)]
    )
    counted = Counted(monkeypatch)
    flags = f"--config.evaluate.benchmarks=questions:{path}", "--config.prompt.retrieved=True"
    assert main(line(inputs, tmp_path, "evaluate,analyze", *flags)) == 0
    assert len(counted.run) == len(rows) - 1
