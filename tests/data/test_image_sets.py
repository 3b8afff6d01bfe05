"""Which images are missing, by the public set that they belong to."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import pytest

from tga_jax.data.image_sets import count_by_set, missing_lines, set_of
from tga_jax.data.records import Record, Turn

SETS = {  # folder -> (images that samples name, how many of them are missing)
    "coco/train2017": (5, 0),
    "gqa/images": (3, 3),
    "ocr_vqa/images": (4, 1),
    "textvqa/train_images": (2, 0),
    "vg/VG_100K": (2, 1),
    "vg/VG_100K_2": (1, 0),
}


def record(name: str, *, tox: bool = False) -> Record:
    """A sample with this image."""
    return Record(name, (name,), (Turn("<image>\nWhat?", "That."),), None, None, tox)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The images of SETS that are there, those of COCO as they are published: in an archive."""
    for name, (count, missing) in SETS.items():
        (tmp_path / name).mkdir(parents=True)
        for number in range(missing, count):
            (tmp_path / name / f"{number}.jpg").write_bytes(b"x")
    coco = tmp_path / "coco" / "train2017"
    with zipfile.ZipFile(tmp_path / "coco" / "train2017.zip", "w") as archive:
        for path in coco.iterdir():
            archive.write(path, f"train2017/{path.name}")
            path.unlink()
    coco.rmdir()
    return tmp_path


def samples() -> list[Record]:
    """Two samples for each image of SETS."""
    names = [f"{name}/{i}.jpg" for name, (count, _) in SETS.items() for i in range(count)]
    return [record(name) for name in names * 2]


def test_counts_are_those_of_the_folder(folder: Path) -> None:
    names = [name for one in samples() for name in one.images]
    found = {count.name: (count.there, count.missing) for count in count_by_set(names, folder)}
    assert found == {name: (count - lost, lost) for name, (count, lost) in SETS.items()}


def test_a_line_says_what_is_missing_of_a_set_and_its_address(folder: Path) -> None:
    lines = missing_lines(samples(), folder)
    assert lines[0].startswith(
        "images missing: 3 of 3 in gqa/images, the first is gqa/images/0.jpg"
    )
    assert lines[0].endswith("https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip")
    assert lines[1].startswith("images missing: 1 of 4 in ocr_vqa/images, ")
    assert lines[2].startswith("images missing: 1 of 2 in vg/VG_100K, ")
    assert lines[3] == (
        "images complete: 5 in coco/train2017, 2 in textvqa/train_images, 1 in vg/VG_100K_2"
    )
    assert len(lines) == 4


def test_images_under_another_suffix_are_counted(folder: Path) -> None:
    (folder / "ocr_vqa" / "images" / "0.gif").write_bytes(b"x")
    line = missing_lines(samples(), folder)[1]
    assert "1 of 4 in ocr_vqa/images, " in line and "; 1 are there with another suffix" in line


def test_nothing_is_said_where_all_are_there_or_none_is_needed(folder: Path) -> None:
    there = [one for one in samples() if one.images[0].startswith("coco")]
    blank = [record("gqa/images/0.jpg", tox=True)]
    text = [dataclasses.replace(record("x"), images=())]
    assert missing_lines(there + blank + text, folder) == []


def test_sets_are_known_by_their_folders() -> None:
    assert set_of("00453/004539375.jpg") == "00000 to 00659"
    assert set_of("vg/VG_100K_2/1.jpg") == "vg/VG_100K_2"
    assert set_of("mine/a/b.png") == "mine"
    assert set_of("b.png") == "the image folder itself"


def test_many_folders_take_few_lines(tmp_path: Path) -> None:
    lines = missing_lines(
        [record(f"folder{i}/{j}.png") for i in range(40) for j in range(2)], tmp_path
    )
    assert len(lines) == 7 and lines[-1] == "and 68 in 34 other folders"


@pytest.mark.parametrize("name", ["../x.png", "/etc/passwd", "", "a\0b", "x" * 5000])
def test_names_that_no_folder_has_are_missing(tmp_path: Path, name: str) -> None:
    (count,) = count_by_set([name], tmp_path)
    assert (count.there, count.missing) == (0, 1)
