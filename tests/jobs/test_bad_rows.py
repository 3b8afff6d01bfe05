"""A broken row that job `prepare` skips stops none of the jobs that follow it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hf.test_clip_folder import _save_clip
from tests.jobs.inputs import arguments, make_inputs, make_samples, read_jsonl, row
from tga_jax.config import base_config
from tga_jax.errors import UserError
from tga_jax.jobs import caption, index, retrieve
from tga_jax.main import main
from tga_jax.run.job import Job

TWICE = row("bad", [("human", "<image>\nWhat?"), ("human", "Well?")], image="0.png")


def samples_file(folder: Path) -> Path:
    """Seven rows, the third of which has two human turns in a row."""
    samples = make_samples()
    path = folder / "samples.json"
    path.write_text(json.dumps([*samples[:2], TWICE, *samples[2:]]))
    return path


def read_ids(job: Job) -> list[list[str]]:
    """What each of the jobs reads of config.data.path."""
    corpus = index.read_corpus(job, list(index.corpus_files(job)))
    return [
        [r.id for r in caption.read_samples(job, job.workdir / "captions.jsonl")],
        [r.id for r in retrieve.read_all(job)],
        [text.id for text in corpus],
    ]


def test_every_reader_leaves_it_out_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = base_config()
    config.data.path, config.data.max_bad_fraction = str(samples_file(tmp_path)), 0.2
    ids = [sample["id"] for sample in make_samples()]
    captioned = [sample["id"] for sample in make_samples() if sample.get("image_caption")]
    assert read_ids(Job(config, tmp_path)) == [ids, ids, captioned]
    said = capfd.readouterr().err
    assert said.count("skipped 1 of 7 records") == 3 and "two human turns in a row" in said


def test_above_the_budget_every_reader_says_what_prepare_says(tmp_path: Path) -> None:
    config = base_config()
    config.data.path = str(samples_file(tmp_path))
    job, said = Job(config, tmp_path), "two human turns.* allows 0 of 7"
    with pytest.raises(UserError, match=said):
        caption.read_samples(job, tmp_path / "captions.jsonl")
    with pytest.raises(UserError, match=said):
        retrieve.read_all(job)
    with pytest.raises(UserError, match=said):
        list(index.read_corpus(job, [Path(config.data.path)]))


def test_the_chain_of_jobs_runs_to_its_end(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    _save_clip(inputs / "clip")
    samples_file(inputs)
    flags = (
        "--config.data.max_bad_fraction=0.2", "--config.caption.max_new_tokens=2",
        "--config.prepare.workers=0", "--config.data.buckets=(256,)",
        f"--config.retrieval.clip={inputs / 'clip'}",
    )  # fmt: skip
    job = "prepare,caption,index,retrieve,prepare"
    assert main(arguments(inputs, tmp_path / "run", *flags, job=job)) == 0
    report = json.loads((tmp_path / "run" / "data" / "report.json").read_text())
    assert (report["kept"], report["skipped"]) == (6, 1)
    found = {line["id"] for line in read_jsonl(tmp_path / "run" / "retrieved.jsonl")}
    assert found == {"p0", "p1", "p2", "p3"}
