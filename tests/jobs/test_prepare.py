"""Job `prepare`: what it keeps and skips, when it works again, and that kills leave nothing."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.jobs.inputs import arguments, make_inputs, make_samples, read_jsonl, row, write_jsonl
from tga_jax.data.images import load_image
from tga_jax.data.prepared import PreparedRecords
from tga_jax.data.records import read_records
from tga_jax.main import main

HERE = "--config.prepare.workers=0"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs without a mistake; nothing is written there."""
    return make_inputs(tmp_path_factory.mktemp("good"))


def prepare(inputs: Path, workdir: Path, *more: str, job: str = "prepare") -> int:
    return main(arguments(inputs, workdir, HERE, *more, job=job))


def report(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "data" / "report.json").read_text())


def contents(folder: Path) -> dict[str, str]:
    """File -> SHA-256."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def samples_file(folder: Path, samples: list[Any]) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "samples.json").write_text(json.dumps(samples))
    return f"--config.data.path={folder / 'samples.json'}"


def test_it_keeps_every_record_and_its_pictures_bytes(good: Path, tmp_path: Path) -> None:
    assert prepare(good, tmp_path) == 0
    records = read_records(good / "samples.json")
    about = report(tmp_path)
    assert (about["records"], about["kept"], about["skipped"]) == (6, 6, 0)
    assert about["splits"] == {"train": 6} and about["encoded_anew"] == {}
    assert (about["pictures"], about["text_only"]) == (5, 1)
    kept = PreparedRecords(tmp_path / "data", "train")
    assert len(kept) == len(records)
    for ours, theirs in zip(kept, records, strict=True):
        files = [(good / "images" / name).read_bytes() for name in theirs.images]
        assert list(ours.contents) == ([b""] if theirs.tox else files)
        for name in ("id", "images", "turns", "caption", "retrieved", "tox"):
            assert getattr(ours, name) == getattr(theirs, name)
    assert not (tmp_path / "prepare.tmp").exists()
    assert json.loads((tmp_path / "prepare" / "speed.json").read_text())["pictures"] == 5


def test_tfds_reads_it_by_its_own_means(good: Path, tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    assert prepare(good, tmp_path) == 0
    source = tfds.builder_from_directory(tmp_path / "data").as_data_source("train")
    samples = make_samples()
    assert [example["id"].decode() for example in source] == [s["id"] for s in samples]
    assert json.loads(source[0]["conversations"]) == samples[0]["conversations"]
    assert source[0]["image_caption"].decode() == samples[0]["image_caption"]
    assert source[0]["image_formats"][0] == b"png" and source[5]["tox"]


def spoil_pictures(folder: Path) -> list[dict[str, Any]]:
    """A picture of every kind that is not kept as it is, and of kinds that are."""
    rng = np.random.default_rng(3)
    rgb = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    frames = [Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)) for _ in range(2)]
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.quantize(16).save(folder / "palette.png")
    frames[0].save(folder / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    rgb.quantize(16).save(folder / "gif.jpg", "GIF")
    rgb.save(folder / "plain.JPG", "JPEG")
    rgb.convert("RGBA").save(folder / "alpha.png")
    rgb.convert("L").save(folder / "grey.png")
    (folder / "without_suffix").write_bytes((folder / "plain.JPG").read_bytes())
    return [
        row(path.name, [("human", "<image>\nWhat?"), ("gpt", "It.")], image=path.name)
        for path in sorted(folder.iterdir())
    ]


def test_only_pictures_that_lie_or_have_odd_colours_are_encoded_anew(
    good: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    samples = samples_file(tmp_path / "in", spoil_pictures(images))
    assert prepare(good, tmp_path, samples, f"--config.data.image_dir={images}") == 0
    anew = {"cmyk.jpg": "cmyk", "palette.png": "palette", "moving.webp": "animated"}
    anew |= {"moving.gif": "palette", "gif.jpg": "format"}
    kinds = list(anew.values())
    assert report(tmp_path)["encoded_anew"] == {kind: kinds.count(kind) for kind in set(kinds)}
    for record in PreparedRecords(tmp_path / "data", "train"):
        path = images / record.id
        (kept,) = record.contents
        assert (kept == path.read_bytes()) == (record.id not in anew), record.id
        with Image.open(io.BytesIO(kept)) as image:
            if record.id in anew:
                assert (image.format, image.mode) == ("PNG", "RGB")
            pixels = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(pixels, np.asarray(load_image(path, record_id="x")))


def bad_rows() -> list[tuple[Any, str]]:
    """Broken rows, and what the report must say about each."""
    ask = [("human", "<image>\nWhat?"), ("gpt", "It.")]
    return [
        ({"id": "no-talk"}, '"conversations" is missing'),
        ({"conversations": []}, 'has no "id"'),
        ("text", "expected a JSON object"),
        (row("gone", ask, image="gone.png"), "no such file"),
        (row("out", ask, image="../samples.json"), "inside the image folder"),
        (row("no-picture", ask, image="notes.txt"), "not a readable picture"),
        (row("cut", ask, image="cut.png"), "not a readable picture"),
        (row("silent", [("human", "Hello?"), ("gpt", " ")]), "no answer"),
        (row("open", [("human", "Hello?")]), "no answer"),
        (row("marks", [("human", "<image><image>"), ("gpt", "x")], image="0.png"), "2 <image>"),
    ]


@pytest.fixture
def spoilt(good: Path, tmp_path: Path) -> tuple[str, str]:
    """Flags for samples of which ten of sixteen are bad."""
    images = tmp_path / "images"
    images.mkdir()
    for path in (good / "images").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "notes.txt").write_text("no picture")
    (images / "cut.png").write_bytes((images / "1.png").read_bytes()[:300])
    samples = make_samples()[:3] + [bad for bad, _ in bad_rows()] + make_samples()[3:]
    return samples_file(tmp_path / "in", samples), f"--config.data.image_dir={images}"


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_records_within_the_budget_are_skipped_and_listed(
    good: Path, spoilt: tuple[str, str], tmp_path: Path, workers: int
) -> None:
    more = (*spoilt, "--config.data.max_bad_fraction=0.625", f"--config.prepare.workers={workers}")
    assert prepare(good, tmp_path, *more) == 0
    about = report(tmp_path)
    assert (about["records"], about["kept"], about["skipped"]) == (16, 6, 10)
    assert len(about["skipped_records"]) == 10
    for number, (listed, (bad, reason)) in enumerate(
        zip(about["skipped_records"], bad_rows(), strict=True)
    ):
        assert listed["record"] == 4 + number and reason in listed["reason"], listed
        assert listed["id"] == (bad.get("id") if isinstance(bad, dict) else None)
    ids = [record.id for record in PreparedRecords(tmp_path / "data", "train")]
    assert ids == [sample["id"] for sample in make_samples()]
    assert prepare(good, tmp_path / "clean") == 0
    assert about["content"] == report(tmp_path / "clean")["content"]


def test_one_bad_record_too_many_stops_and_leaves_nothing(
    good: Path, spoilt: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    assert prepare(good, work, *spoilt, "--config.data.max_bad_fraction=0.6") == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "record marks" in line and "allows 9 of 16" in line
    assert prepare(good, work, *spoilt) == 2
    assert "allows 0 of 16" in capfd.readouterr().err
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'[{"id": "\xe9"}]', "not UTF-8"),
        (b'[{"id": 1},', "malformed JSON at line 1"),
        (b"[]", "holds no records"),
    ],
)
def test_a_file_that_is_broken_as_a_whole(
    good: Path, tmp_path: Path, text: bytes, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_bytes(text)
    more = (f"--config.data.path={tmp_path / 'bad.json'}", "--config.data.max_bad_fraction=1.0")
    assert prepare(good, tmp_path / "work", *more) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert message in line and "bad.json" in line


def test_a_broken_line_is_a_bad_record(good: Path, tmp_path: Path) -> None:
    lines = [json.dumps(sample) for sample in make_samples()]
    (tmp_path / "s.jsonl").write_text("\n".join([*lines[:2], '{"id": 1,', *lines[2:]]))
    more = (f"--config.data.path={tmp_path / 's.jsonl'}", "--config.data.max_bad_fraction=0.2")
    assert prepare(good, tmp_path, *more) == 0
    (bad,) = report(tmp_path)["skipped_records"]
    assert bad["record"] == 3 and "line 3" in bad["reason"]


def test_captions_and_texts_are_filled_in_and_ids_counted(good: Path, tmp_path: Path) -> None:
    twice = [*make_samples(), make_samples()[0]]
    samples = samples_file(tmp_path / "in", twice)
    captions = [{"id": "p2", "caption": "new"}, {"id": "x", "caption": "of nobody"}]
    write_jsonl(tmp_path / "captions.jsonl", captions)
    given = tmp_path / "texts.jsonl"
    write_jsonl(given, [{"id": "p0", "text": "a found text"}, {"id": "p1", "text": "not used"}])
    assert prepare(good, tmp_path, samples, f"--config.data.retrieved={given}") == 0
    about = report(tmp_path)
    assert about["duplicate_ids"] == {"count": 1, "first": ["p0"]}
    assert about["captions"] == {"texts": 2, "unknown_ids": {"count": 1, "first": ["x"]}}
    assert about["retrieved"] == {"texts": 2, "unknown_ids": {"count": 0, "first": []}}
    assert about["pictures_without_caption"]["count"] == 0
    assert about["pictures_without_retrieved"] == {"count": 1, "first": ["p3"]}
    records = {record.id: record for record in PreparedRecords(tmp_path / "data", "train")}
    assert records["p2"].caption == "new" and records["p0"].retrieved == "a found text"
    assert records["p1"].retrieved == make_samples()[1]["retrieved_caption"]


def test_a_second_run_does_nothing_until_an_input_changes(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def again(*more: str) -> bool:
        """Whether the run found its work done."""
        assert prepare(good, tmp_path, *more) == 0
        return "finished before" in capfd.readouterr().err

    assert not again()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").iterdir()}
    assert again()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").iterdir()} == before
    first = report(tmp_path)["content"]
    write_jsonl(tmp_path / "captions.jsonl", [{"id": "p2", "caption": "new"}])
    assert not again() and again()
    assert report(tmp_path)["content"] != first
    (tmp_path / "captions.jsonl").unlink()
    assert not again() and report(tmp_path)["content"] == first
    images = tmp_path / "images"
    images.mkdir()
    for path in (good / "images").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    flag = f"--config.data.image_dir={images}"
    assert not again(flag) and again(flag)
    assert report(tmp_path)["content"] == first
    Image.new("RGB", (8, 8)).save(images / "2.png")
    assert not again(flag) and report(tmp_path)["content"] != first
    (shard,) = (tmp_path / "data").glob("*array_record*")
    shard.unlink()
    assert not again(flag) and again(flag)


def test_a_second_prepare_takes_what_the_jobs_between_wrote(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in --job=prepare,caption,index,retrieve,prepare; and all of it again."""
    from tga_jax.jobs import inspect as between

    def write_texts(context: Any) -> None:
        write_jsonl(tmp_path / "captions.jsonl", [{"id": "p2", "caption": "new"}])

    monkeypatch.setattr(between, "run", write_texts)
    assert prepare(good, tmp_path, job="prepare,inspect,prepare") == 0
    assert report(tmp_path)["with_caption"] == 5
    before = contents(tmp_path / "data")
    assert prepare(good, tmp_path, job="prepare,inspect,prepare") == 0
    assert contents(tmp_path / "data") == before


def test_bytes_do_not_depend_on_the_workers(good: Path, tmp_path: Path) -> None:
    for workers in (0, 1, 2):
        flag = f"--config.prepare.workers={workers}"
        assert prepare(good, tmp_path / str(workers), flag) == 0
    first = contents(tmp_path / "0" / "data")
    assert first == contents(tmp_path / "1" / "data") == contents(tmp_path / "2" / "data")


def test_the_validation_split_is_by_picture(good: Path, tmp_path: Path) -> None:
    ask = [("human", "Which?"), ("gpt", "This.")]
    samples = [row(f"r{i}", ask, image=f"{i // 5 % 4}.png") for i in range(40)]
    samples += [row(f"t{i}", ask) for i in range(200)]
    flags = samples_file(tmp_path / "in", samples), "--config.data.validation=0.3"
    assert prepare(good, tmp_path, *flags) == 0
    train, held = (PreparedRecords(tmp_path / "data", s) for s in ("train", "validation"))
    assert report(tmp_path)["splits"] == {"train": len(train), "validation": len(held)}
    assert sorted(r.id for r in [*train, *held]) == sorted(s["id"] for s in samples)
    assert not {r.images for r in train if r.images} & {r.images for r in held if r.images}
    assert 40 < sum(not r.images for r in held) < 80  # 60 of 200, give or take 3 sigma


def test_a_full_disk_is_one_line_and_leaves_nothing(
    good: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from tensorflow_datasets.core import file_adapters

    def write(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_adapters.ArrayRecordFileAdapter, "write_examples", write)
    assert prepare(good, tmp_path) == 2
    assert (
        capfd.readouterr()
        .err.strip()
        .splitlines()[-1]
        .endswith("the disk is full; make room or use another --workdir")
    )
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_beside_the_pictures(good: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (good, good / "images", *good.rglob("*"))}
    assert prepare(good, tmp_path) == 0
    assert {p: p.stat().st_mtime_ns for p in (good, good / "images", *good.rglob("*"))} == before


def test_a_folder_of_something_else_is_not_overwritten(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("precious")
    assert prepare(good, tmp_path) == 2
    assert "move it away" in capfd.readouterr().err
    assert (tmp_path / "data" / "mine.txt").read_text() == "precious"


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(good: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(300):
        pixels = rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    ask = [("human", "<image>\nWhich?"), ("gpt", "This.")]
    flags = (
        samples_file(tmp_path / "in", [row(str(i), ask, image=f"{i}.png") for i in range(300)]),
        f"--config.data.image_dir={images}", "--config.prepare.workers=2",
    )  # fmt: skip

    def start(workdir: Path) -> subprocess.Popen:
        command = arguments(good, workdir, *flags, job="prepare")
        env = os.environ | {"JAX_PLATFORMS": "cpu"}
        run = [sys.executable, "-m", "tga_jax.main", *command[1:]]
        return subprocess.Popen(run, env=env, stderr=subprocess.PIPE, text=True)

    def working(workdir: Path, process: subprocess.Popen) -> float:
        """When the run began to write."""
        while not (workdir / "prepare.tmp").exists() and process.poll() is None:
            time.sleep(0.01)
        return time.monotonic()

    whole = start(tmp_path / "whole")
    began = working(tmp_path / "whole", whole)
    _, err = whole.communicate()
    assert whole.returncode == 0, err
    seconds = time.monotonic() - began
    expected, data = contents(tmp_path / "whole" / "data"), tmp_path / "killed" / "data"
    chance, kills = random.Random(0), 0
    for _ in range(6):
        process = start(tmp_path / "killed")
        working(tmp_path / "killed", process)
        time.sleep(chance.uniform(0, seconds))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        if data.exists():  # visible means whole
            assert contents(data) == expected
            shutil.rmtree(data)
    assert kills > 2
    last = start(tmp_path / "killed")
    last.communicate()
    assert last.returncode == 0
    assert contents(data) == expected
    assert not (tmp_path / "killed" / "prepare.tmp").exists()


TWO_RUNS = """
import sys
from tga_jax.main import main
middle = sys.argv.index("--")
for command in (sys.argv[1:middle], sys.argv[middle + 1:]):
    assert main(["tga_jax", *command]) == 0
assert "tensorflow_datasets" in sys.modules and "tensorflow" not in sys.modules
"""


def test_training_and_scoring_from_prepared_data_are_those_from_files(
    good: Path, tmp_path: Path
) -> None:
    files, kept = tmp_path / "files", tmp_path / "kept"
    assert prepare(good, kept) == 0
    flags = ("--config.data.path=", "--config.data.image_dir=/there/is/none")
    commands = [
        arguments(good, workdir, *more, "--config.compile_cache=", job="inspect,score,pretrain")[1:]
        for workdir, more in ((files, ()), (kept, flags))
    ]
    # A TensorFlow that can be found, and tells when somebody imports it.
    (tmp_path / "path" / "tensorflow").mkdir(parents=True)
    (tmp_path / "path" / "tensorflow" / "__init__.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\nraise ImportError('tensorflow')\n"
    )
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    env["PYTHONPATH"] = str(tmp_path / "path")
    run = [sys.executable, "-c", TWO_RUNS, *commands[0], "--", *commands[1]]
    done = subprocess.run(run, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "imported").exists()
    for name in ("inspect/samples.jsonl", "score/start.jsonl"):
        assert (kept / name).read_bytes() == (files / name).read_bytes()
    losses = [
        [(line["loss"], line["grad_norm"]) for line in read_jsonl(w / "pretrain" / "metrics.jsonl")]
        for w in (files, kept)
    ]
    assert losses[0] == losses[1] and len(losses[0]) > 0


def test_stale_prepared_data_is_refused(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prepare(good, tmp_path) == 0
    write_jsonl(tmp_path / "captions.jsonl", [{"id": "p2", "caption": "new"}])
    assert prepare(good, tmp_path, job="inspect") == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "captions.jsonl" in line and "run job prepare again" in line
    assert prepare(good, tmp_path, job="prepare,inspect") == 0
    lines = read_jsonl(tmp_path / "inspect" / "samples.jsonl")
    assert lines[2]["caption_span"] is not None


def test_a_mixture_of_a_file_and_prepared_data_trains(good: Path, tmp_path: Path) -> None:
    assert prepare(good, tmp_path / "a") == 0
    sets = f"{good / 'samples.json'}:2,{tmp_path / 'a' / 'data'}:1"
    flag = f"--config.data.mixture={sets}"
    assert prepare(good, tmp_path / "b", flag, job="inspect") == 0
    lines = read_jsonl(tmp_path / "b" / "inspect" / "samples.jsonl")
    assert lines[:6] == lines[6:] and len(lines) == 12
