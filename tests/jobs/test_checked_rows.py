"""Every row is checked before the first step: the same from a JSON file and from prepared data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.jobs.inputs import arguments, make_inputs, make_samples, read_jsonl, row
from tga_jax.jobs import train
from tga_jax.main import main
from tga_jax.run import usable_rows

ASK = [("human", "<image>\nWhat is it?"), ("gpt", "It.")]
LONG = row("long", [("human", "Why? " * 400), ("gpt", "So.")])
BAD = [
    (row("gone", ASK, image="gone.png"), "no such file"),
    (row("truncated", ASK, image="truncated.jpg"), "not a readable image"),
    (row("empty", [("human", "Hello?"), ("gpt", "")]), "no answer"),
    (row("mark", [("human", "Write <image>."), ("gpt", "x")]), "1 <image> marks for 0"),
    (row("film", ASK, video="a.mp4"), "is a video row"),
    ({"id": "none"}, '"conversations" is missing'),
]
ODD = [
    row("greeting", [("gpt", "Welcome."), *ASK], image="0.png"),
    row("deep", ASK, image="deep.png"),
    row("Toxostoma_rufum", ASK, image="0.png"),
    row("long answer", [("human", "Why?"), ("gpt", "so " * 400)]),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "images/whole.jpg")
    whole = (folder / "images/whole.jpg").read_bytes()
    (folder / "images/truncated.jpg").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "images/deep.png")
    good = make_samples()
    rows = [*good[:2], LONG, *(bad for bad, _ in BAD), *ODD, *good[2:]]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "long.json").write_text(json.dumps([LONG, *good]))
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of each stage that was to be trained; training itself is not of interest here."""
    ids: list[list[str]] = []

    def train_stage(job: Any, model: Any, stage: Any, source: Any, *more: Any) -> int:
        ids.append([record.id for record in source.records])
        return 1

    monkeypatch.setattr(train, "train_stage", train_stage)
    return ids


def run(inputs: Path, workdir: Path, job: str, *more: str, rows: str = "rows.json") -> int:
    flags = (
        f"--config.data.path={inputs / rows}", "--config.prepare.workers=0",
        "--config.data.buckets=(256,)", "--config.inspect.show=0", *more,
    )  # fmt: skip
    return main(arguments(inputs, workdir, *flags, job=job))


KEPT = ["p0", "p1", *(one["id"] for one in ODD), "p2", "p3", "text", "tox-1"]


@pytest.mark.parametrize("before", ["", "prepare,"])
def test_bad_rows_are_skipped_and_listed(
    inputs: Path, tmp_path: Path, trained: list, before: str, capfd: pytest.CaptureFixture[str]
) -> None:
    share = f"--config.data.max_bad_fraction={len(BAD) / 17}"
    assert run(inputs, tmp_path, f"{before}finetune,inspect", share) == 0
    about = json.loads((tmp_path / "finetune/samples.json").read_text())
    assert trained == [KEPT]
    listed = {one["id"]: one for one in about["skipped"]}
    assert list(listed) == ["long", *(bad["id"] for bad, _ in BAD)]
    assert [one["record"] for one in about["skipped"]] == [3, 4, 5, 6, 7, 8, 9]
    for bad, reason in BAD:
        assert reason in listed[bad["id"]]["reason"]
    counts = {key: about[key] for key in (
        "samples", "used", "bad", "too_long", "truncated", "left_out_turns", "scaled_pictures",
        "tox", "pictures",
    )}  # fmt: skip
    assert counts == {
        "samples": 17, "used": 10, "bad": 6, "too_long": 1, "truncated": 1, "left_out_turns": 1,
        "scaled_pictures": 1, "tox": 1, "pictures": 7,
    }  # fmt: skip
    assert [line["id"] for line in read_jsonl(tmp_path / "inspect/samples.jsonl")] == KEPT
    said = capfd.readouterr().err
    assert "10 of 17 samples are usable, 6 skipped as bad, 1 skipped with a first answer" in said
    if before:
        report = json.loads((tmp_path / "data/report.json").read_text())
        assert [one["record"] for one in report["skipped_records"]] == [4, 5, 6, 7, 8, 9]
        assert (report["kept"], report["tox"], report["scaled_pictures"]) == (11, 1, 1)
        assert "1 samples marked" in said and "1 images scaled to 8 bits" in said


@pytest.mark.parametrize("job", ["prepare", "finetune", "score", "inspect"])
def test_one_bad_row_too_many_stops_every_job_at_once(
    inputs: Path, tmp_path: Path, trained: list, job: str, capfd: pytest.CaptureFixture[str]
) -> None:
    share = f"--config.data.max_bad_fraction={(len(BAD) - 1) / 17}"
    assert run(inputs, tmp_path, job, share) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and "allows 5 of 17" in line
    assert not trained and not list(tmp_path.glob("finetune/checkpoints/*"))


@pytest.mark.parametrize("before", ["", "prepare,"])
def test_a_first_question_beyond_max_length_stops_nothing(
    inputs: Path, tmp_path: Path, trained: list, before: str
) -> None:
    none = "--config.data.max_bad_fraction=0.0"
    assert run(inputs, tmp_path, f"{before}finetune", none, rows="long.json") == 0
    about = json.loads((tmp_path / "finetune/samples.json").read_text())
    assert (about["samples"], about["used"], about["bad"], about["too_long"]) == (7, 6, 0, 1)
    (long,) = about["skipped"]
    assert (long["id"], long["record"]) == ("long", 1) and "(max_length, and" in long["reason"]
    assert "long" not in trained[0]


def test_captions_of_ids_that_restart(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [row(str(n % 2), ASK, image=f"{n}.png") for n in range(3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    captions = [{"id": "0", "caption": "whose?"}, {"id": "1", "caption": "cups"}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(one) + "\n" for one in captions))
    flags = (
        f"--config.data.path={tmp_path / 'rows.json'}",
        f"--config.data.captions={tmp_path / 'c.jsonl'}",
    )
    assert run(inputs, tmp_path / "ids", "inspect", *flags) == 0
    lines = read_jsonl(tmp_path / "ids/inspect/samples.jsonl")
    assert [line["caption_span"] is not None for line in lines] == [False, True, False]
    said = capfd.readouterr().err
    assert "warning: captions: 2 samples are left without a text: 1 ids (0, ...)" in said
    captions[0] |= {"image": "2.png"}
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(one) + "\n" for one in captions))
    for job in ("inspect", "prepare,inspect"):
        assert run(inputs, tmp_path / job, job, *flags) == 0
        lines = read_jsonl(tmp_path / job / "inspect/samples.jsonl")
        assert [line["caption_span"] is not None for line in lines] == [False, True, True]
    (tmp_path / "c.jsonl").write_text('{"id": "other", "caption": "x"}\n')
    for job in ("inspect", "prepare"):
        assert run(inputs, tmp_path / f"no {job}", job, *flags) == 0
        assert "warning: captions: none of its 1 texts belongs" in capfd.readouterr().err


def test_inputs_that_are_something_else(
    inputs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    (tmp_path / "o.json").write_text('{"data": [{"id": 1}]}')
    for job in ("inspect", "prepare"):
        assert run(inputs, tmp_path, job, f"--config.data.path={tmp_path / 'o.json'}") == 2
        assert "o.json: line 1: holds one JSON object" in capfd.readouterr().err
        forgotten = "--config.data.image_dir="
        assert run(inputs.resolve(), tmp_path, job, forgotten, rows="samples.json") == 2
        line = capfd.readouterr().err.strip().splitlines()[-1]
        assert "no such file in the current folder; set config.data.image_dir" in line


def test_what_was_found_of_a_set_belongs_to_how_images_are_prepared(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long screenshot is bad where it is put into a square, and only there."""
    monkeypatch.setattr(usable_rows, "ONE_PROCESS_BELOW", 1)
    monkeypatch.setattr(usable_rows, "cores", lambda: 0)
    images = tmp_path / "images"
    images.mkdir()
    Image.new("1", (400, 10_001)).save(images / "shot.png")
    Image.new("1", (40, 40)).save(images / "0.png")
    rows = [row("shot", ASK, image="shot.png"), row("good", ASK, image="0.png")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    flags = (
        f"--config.data.path={tmp_path / 'rows.json'}", f"--config.data.image_dir={images}",
        "--config.data.max_bad_fraction=0.5",
    )  # fmt: skip
    for squares, kept in (("no", ["shot", "good"]), ("yes", ["good"])):
        pad = f"--config.data.pad_to_square={squares}"
        assert run(inputs, tmp_path / "run", "inspect", *flags, pad) == 0
        assert [one["id"] for one in read_jsonl(tmp_path / "run/inspect/samples.jsonl")] == kept
    assert len(list((tmp_path / "run" / "checked").iterdir())) == 2
