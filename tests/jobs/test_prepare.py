"""Job `prepare`: what it keeps, and when it works again."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.jobs.inputs import make_inputs, make_samples, row, write_jsonl
from tests.jobs.preparing import contents, prepare, report, samples_file
from tga_jax.data.images import load_image
from tga_jax.data.prepared import PreparedRecords
from tga_jax.data.records import read_records


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs without a mistake; nothing is written there."""
    return make_inputs(tmp_path_factory.mktemp("good"))


def test_it_keeps_every_record_and_its_images_bytes(good: Path, tmp_path: Path) -> None:
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


def spoil_images(folder: Path) -> list[dict[str, Any]]:
    """An image of every kind that is not kept as it is, and of kinds that are."""
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
    deep = rng.integers(0, 65536, (20, 30), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep.astype(np.float32)).save(folder / "float.tif")
    (folder / "without_suffix").write_bytes((folder / "plain.JPG").read_bytes())
    return [
        row(path.name, [("human", "<image>\nWhat?"), ("gpt", "It.")], image=path.name)
        for path in sorted(folder.iterdir())
    ]


def test_only_images_that_lie_or_have_odd_colours_are_encoded_anew(
    good: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    samples = samples_file(tmp_path / "in", spoil_images(images))
    assert prepare(good, tmp_path, samples, f"--config.data.image_dir={images}") == 0
    anew = {"cmyk.jpg": "cmyk", "palette.png": "palette", "moving.webp": "animated"}
    anew |= {"moving.gif": "palette", "gif.jpg": "format"}
    anew |= {"deep.png": "scaled", "float.tif": "scaled"}
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


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_the_images_gives_the_same_data(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    assert prepare(good, tmp_path / "folder") == 0
    archive = shutil.make_archive(str(tmp_path / "images"), kind, good / "images")
    flag = f"--config.data.image_dir={archive}"
    for workers in (0, 2):
        run = tmp_path / f"run{workers}"
        assert prepare(good, run, flag, f"--config.prepare.workers={workers}") == 0
        assert report(run)["content"] == report(tmp_path / "folder")["content"]
    capfd.readouterr()
    assert prepare(good, tmp_path / "run0", flag) == 0
    assert "finished before" in capfd.readouterr().err
    os.utime(archive, ns=(1, 1))
    assert prepare(good, tmp_path / "run0", flag) == 0
    assert "finished before" not in capfd.readouterr().err


def test_an_archive_that_is_damaged_is_said_of_the_sample(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in (good / "images").iterdir():
            packed.write(path, path.name)
    part = (good / "images" / "1.png").read_bytes()[200:300]
    archive.write_bytes(archive.read_bytes().replace(part, bytes(len(part))))
    assert prepare(good, tmp_path, f"--config.data.image_dir={archive}") == 2
    said = capfd.readouterr().err
    assert "record p1: image " in said and "images.zip/1.png: cannot be read: the archive" in said


def test_missing_images_are_said_by_set(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = make_samples()
    names = {"0.png": "coco/train2017/0.png", "3.png": "ocr_vqa/images/3.jpg"}
    for one in samples:
        if "image" in one:
            one["image"] = names.get(one["image"], one["image"])
    images = tmp_path / "images"
    shutil.copytree(good / "images", images)
    (images / "coco" / "train2017").mkdir(parents=True)
    (images / "0.png").rename(images / names["0.png"])
    flags = (f"--config.data.image_dir={images}", "--config.data.max_bad_fraction=0.2")
    assert prepare(good, tmp_path, samples_file(tmp_path / "in", samples), *flags) == 0
    said = capfd.readouterr().err
    assert "images missing: 1 of 1 in ocr_vqa/images, the first is ocr_vqa/images/3.jpg" in said
    assert "images complete: 1 in coco/train2017, 2 in the image folder itself" in said
    assert report(tmp_path)["skipped"] == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("none", "there is no such folder or .zip or .tar archive\n"),
        ("none.zip", "there is no such archive\n"),
        ("phtos.zip", "there is no such archive; did you mean 'photos.zip'?\n"),
        ("photo", "there is no such folder or .zip or .tar archive; did you mean 'photos'?\n"),
        ("gone/photos.tar", "there is no such archive; there is no folder"),
        ("packed.tar.gz", "is no folder or .zip or .tar archive; unpack it, or make it a .tar\n"),
    ],
)
def test_an_image_folder_or_archive_that_is_none_is_said(
    good: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, problem: str
) -> None:
    (tmp_path / "packed.tar.gz").write_bytes(b"x")
    (tmp_path / "photos.zip").write_bytes(b"x")
    (tmp_path / "photos").mkdir()
    assert prepare(good, tmp_path, f"--config.data.image_dir={tmp_path / name}") == 2
    assert f"config.data.image_dir={str(tmp_path / name)!r}: {problem}" in capfd.readouterr().err


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
    assert (about["captions"]["texts"], about["retrieved"]["texts"]) == (2, 2)
    assert about["captions"]["unknown_ids"] == {"count": 1, "first": ["x"]}
    assert about["retrieved"]["unknown_ids"]["count"] == about["captions"]["unclear_samples"] == 0
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

    def write_texts(job: Any) -> None:
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


def test_the_validation_split_is_by_image(good: Path, tmp_path: Path) -> None:
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
