"""3,000 drawn images and the photographs of the first run, from raw JSON to training batches.

Everything goes through the command line, in processes of its own; minutes of two cores.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from benchmarks.chain import WITHOUT_CAPTION, command, make_inputs
from examples.first_run.prepare import copy_photographs, file_name, make_samples
from tests.data.test_loader import assert_same
from tests.jobs.inputs import read_jsonl
from tga_jax.data.loader import BatchSource, make_loader
from tga_jax.flags import parse_flags
from tga_jax.main import device_scope
from tga_jax.parallel.mesh import mesh_of
from tga_jax.run.job import Job
from tga_jax.run.model import open_model, open_source
from tga_jax.run.sample_files import find_samples
from tga_jax.run.stage_data import stage_samples

pytestmark = pytest.mark.slow
DRAWN, JOBS = 3000, "prepare,pretrain,caption,index,retrieve,prepare,inspect"
PHOTOGRAPHS = Path("examples/first_run/photographs.json")
# What must not depend on kills.
KEPT = ("captions.jsonl", "retrieved.jsonl", "index/texts.jsonl", "index/embeddings.npy",
        "inspect/samples.jsonl", "data")  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images, photographs, an id that occurs twice."""
    folder = tmp_path_factory.mktemp("chain") / "inputs"
    make_inputs(folder, DRAWN, texts=2000)
    entries = json.loads(PHOTOGRAPHS.read_text())
    copy_photographs(entries, folder / "images")
    rows = json.loads((folder / "samples.json").read_text())
    rows += [sample for entry in entries for sample in make_samples(entry)]
    rows.append(rows[1])
    assert file_name(entries[0]) in {row.get("image") for row in rows}
    (folder / "samples.json").write_text(json.dumps(rows))
    return folder


def start(inputs: Path, workdir: Path) -> subprocess.Popen:
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    run = [sys.executable, "-m", *command(inputs, workdir, job=JOBS)]
    return subprocess.Popen(run, env=env, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def run(inputs: Path) -> tuple[Path, float]:
    """An undisturbed run, and how long it took."""
    began, workdir = time.monotonic(), inputs.parent / "run"
    before = {p: p.stat().st_mtime_ns for p in (inputs, *inputs.rglob("*"))}
    process = start(inputs, workdir)
    _, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    assert {p: p.stat().st_mtime_ns for p in (inputs, *inputs.rglob("*"))} == before
    return workdir, time.monotonic() - began


def test_every_sample_gets_what_the_objective_needs(inputs: Path, run: tuple[Path, float]) -> None:
    workdir, rows = run[0], json.loads((inputs / "samples.json").read_text())
    about = json.loads((workdir / "data" / "report.json").read_text())
    assert (about["kept"], about["skipped"]) == (len(rows), 0) and len(rows) > DRAWN
    assert about["duplicate_ids"] == {"count": 1, "first": ["p1"]}
    assert about["pictures_without_caption"]["count"] == 0
    assert about["pictures_without_retrieved"]["count"] == 0
    captions = {row["id"]: row["caption"] for row in read_jsonl(workdir / "captions.jsonl")}
    assert {f"p{n}" for n in range(0, DRAWN, WITHOUT_CAPTION)} <= captions.keys()
    texts = {row["id"]: row["text"] for row in read_jsonl(workdir / "retrieved.jsonl")}
    own = {row["id"]: row.get("image_caption") or captions[row["id"]] for row in rows}
    assert not [name for name, text in texts.items() if text == own[name]]


def test_inspect_shows_texts_and_captions_in_place(inputs: Path, run: tuple[Path, float]) -> None:
    workdir, rows = run[0], json.loads((inputs / "samples.json").read_text())
    tokenizer = open_source(config_of(inputs, workdir).model).tokenizer.tokenizer
    texts = {row["id"]: row["text"] for row in read_jsonl(workdir / "retrieved.jsonl")}
    lines = read_jsonl(workdir / "inspect" / "samples.jsonl")
    assert [line["id"] for line in lines] == [str(row["id"]) for row in rows]
    for line, row in list(zip(lines, rows, strict=True))[1:DRAWN:97]:
        start, end = line["retrieved_span"]
        assert tokenizer.decode(line["input_ids"][start:end]).strip() == texts[row["id"]]
        start, end = line["caption_span"]
        shown = tokenizer.decode(line["caption_input_ids"][start:end]).strip()
        assert shown == row["image_caption"].strip()


def config_of(inputs: Path, workdir: Path) -> ConfigDict:
    """The configuration of job `finetune`, whose prompts hold the retrieved texts."""
    flags = parse_flags(command(inputs, workdir, "--config.finetune.steps=12", job="finetune"))
    return flags.config


def training_batches(inputs: Path, workdir: Path) -> BatchSource:
    config = config_of(inputs, workdir)
    with device_scope(config, mesh=True):
        job = Job(config, workdir, "finetune")
        files = find_samples(config, workdir, "finetune")
        return stage_samples(job, open_model(job, mesh_of(config.mesh)), files)[1]


def test_batches_do_not_depend_on_restarts_workers_or_processes(
    inputs: Path, run: tuple[Path, float]
) -> None:
    source = training_batches(inputs, run[0])
    expected = [source[step] for step in range(len(source))]
    assert (expected[0].arrays["retrieved_span"][..., 1] > 0).mean() > 0.9
    for workers in (0, 2):
        loader = make_loader(training_batches(inputs, run[0]), workers=workers)
        assert_same([next(loader) for _ in range(5)], expected[:5])
        state = loader.get_state()
        loader.close()
        resumed = make_loader(training_batches(inputs, run[0]), workers=2 - workers)
        resumed.set_state(state)
        assert_same(list(resumed), expected[5:])
        resumed.close()
    halves = [training_batches(inputs, run[0]) for _ in range(2)]
    for rank, half in enumerate(halves):
        half._rows = tuple(range(4 * rank, 4 * rank + 4))
    for step in (0, 7):
        parts = [half[step].arrays["images"] for half in halves]
        np.testing.assert_array_equal(
            np.concatenate(parts, axis=1), expected[step].arrays["images"]
        )


def test_kills_at_random_moments_change_no_byte(inputs: Path, run: tuple[Path, float]) -> None:
    workdir, chance, kills = inputs.parent / "killed", random.Random(1), 0
    for _ in range(6):
        process = start(inputs, workdir)
        try:
            process.communicate(timeout=chance.uniform(0.15, 0.7) * run[1])
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    last = start(inputs, workdir)
    _, err = last.communicate()
    assert last.returncode == 0, err[-3000:]
    assert kills >= 2
    for name in KEPT:
        assert hashes(workdir / name) == hashes(run[0] / name), name


def hashes(path: Path) -> dict[str, str]:
    """File -> SHA-256, of a file or of all in a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
