"""Images in archives: the same pixels as from the folder, and nothing from outside it."""

from __future__ import annotations

import os
import stat
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.test_images import make_transform
from tga_jax.data.image_files import Member, place_of, size_of
from tga_jax.data.images import check_image, load_pixels, resolve_image
from tga_jax.data.in_parallel import map_in_order
from tga_jax.errors import UserError
from tga_jax.run.fingerprint import data_digest, stat_digest

NAMES = [f"coco/train2017/{number}.png" for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder with coco/train2017/0.png to 5.png."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    (root / "coco" / "train2017").mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(root / name)
    return root


def pack(archive: Path, folder: Path, start: str, *, stored: bool = False) -> None:
    """Packs all of NAMES; a member is called by what follows `start` in its name."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    members = [(folder / name, name.removeprefix(start)) for name in NAMES]
    if archive.suffix == ".tar":
        with tarfile.open(archive, "w") as tar:
            for path, name in members:
                tar.add(path, name)
    else:
        method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(archive, "w", method) as packed:
            for path, name in members:
                packed.write(path, name)


def pixels(root: Path, name: str) -> np.ndarray:
    """The prepared pixels of an image."""
    return load_pixels(root, name, transform=make_transform(), record_id="r")


@pytest.mark.parametrize(
    ("archive", "start", "root"),
    [
        ("coco/train2017.zip", "coco/", "."),  # as it is published: with its folder inside
        ("coco/train2017.zip", "coco/train2017/", "."),  # or without
        ("coco/anything.zip", "coco/", "."),  # as if it were unpacked where it lies
        ("all.tar", "", "."),
        ("coco/train2017.tar", "coco/", "."),
        ("coco.tar", "coco/", "."),
        ("images.zip", "", "images.zip"),  # the image folder is an archive itself
        ("coco.tar", "coco/", "coco.tar"),
    ],
)
def test_pixels_are_those_of_the_folder(
    tmp_path: Path, folder: Path, archive: str, start: str, root: str
) -> None:
    pack(tmp_path / archive, folder, start)
    for name in NAMES:
        np.testing.assert_array_equal(pixels(tmp_path / root, name), pixels(folder, name))
        place = place_of(tmp_path / root, name)
        assert size_of(place) == (folder / name).stat().st_size
        assert check_image(place, where="")[0] is False
    with pytest.raises(UserError, match="record r: image 'coco/train2017/9.png': no such file in"):
        pixels(tmp_path / root, "coco/train2017/9.png")


def test_members_with_a_dot_before_them_or_stored_are_found(tmp_path: Path, folder: Path) -> None:
    pack(tmp_path / "stored.zip", folder, "coco/train2017/", stored=True)
    with tarfile.open(tmp_path / "dots.tar", "w") as tar:
        tar.add(folder, ".")
    wanted = pixels(folder, NAMES[0])
    np.testing.assert_array_equal(pixels(tmp_path / "stored.zip", "0.png"), wanted)
    np.testing.assert_array_equal(pixels(tmp_path / "dots.tar", NAMES[0]), wanted)


def test_a_file_comes_before_a_member(tmp_path: Path, folder: Path) -> None:
    pack(tmp_path / "coco/train2017.zip", folder, "coco/")
    (tmp_path / "coco/train2017").mkdir()
    (tmp_path / NAMES[0]).write_bytes((folder / NAMES[1]).read_bytes())
    np.testing.assert_array_equal(pixels(tmp_path, NAMES[0]), pixels(folder, NAMES[1]))


@pytest.fixture
def hostile(tmp_path: Path, folder: Path) -> Path:
    """An image folder with archives whose members lead outside."""
    root = tmp_path / "images"
    root.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    with zipfile.ZipFile(root / "a.zip", "w") as packed:
        for name in ("../secret.png", "/secret.png", "x/../y.png"):
            packed.writestr(zipfile.ZipInfo(name), (folder / NAMES[0]).read_bytes())
        link = zipfile.ZipInfo("z/link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "../../secret.png")
    with tarfile.open(root / "b.tar", "w") as tar:
        for name in ("../secret.png", "t/../../secret.png"):
            tar.add(folder / NAMES[0], name)
        for kind, name in ((tarfile.SYMTYPE, "t/link.png"), (tarfile.LNKTYPE, "t/hard.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "../../secret.png"
            tar.addfile(info)
    return root


def test_absolute_paths_of_members_are_found(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "images").mkdir()
    pack(tmp_path / "images" / "coco.zip", folder, "coco/")
    name = str(tmp_path / "images" / NAMES[0])
    assert place_of(tmp_path / "images", name) == place_of(tmp_path / "images", NAMES[0])
    archive = tmp_path / "images" / "coco.zip"
    inner = NAMES[0].removeprefix("coco/")
    assert isinstance(place_of(archive, f"{archive}/{inner}"), Member)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.png", "must be a name inside"),
        ("a/../secret.png", "must be a name inside"),
        ("/secret.png", "must be a name inside"),
        ("a/secret.png", "no such file"),
        ("a/y.png", "no such file"),
        ("t/link.png", "no such file"),
        ("t/hard.png", "no such file"),
        ("z/link.png", "no such file"),
    ],
)
def test_nothing_outside_is_reached(hostile: Path, name: str, message: str) -> None:
    for root in (hostile, hostile / "a.zip", hostile / "b.tar"):
        with pytest.raises(UserError, match=f"record r7: image .*{message}"):
            resolve_image(root, name, record_id="r7")


def test_an_archive_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path, folder: Path) -> None:
    pack(tmp_path / "elsewhere.zip", folder, "coco/")
    (tmp_path / "images" / "coco").mkdir(parents=True)
    (tmp_path / "images" / "coco" / "train2017.zip").symlink_to(tmp_path / "elsewhere.zip")
    with pytest.raises(UserError, match="leaves the image folder"):
        resolve_image(tmp_path / "images", NAMES[0], record_id="r")


def test_a_damaged_archive_is_said(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "coco" / "train2017.zip"
    pack(path, folder, "coco/", stored=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(
        UserError, match=r"train2017.zip: is no readable archive .*download it again"
    ):
        pixels(tmp_path, NAMES[0])
    at = (folder / NAMES[0]).read_bytes()[100:200]
    path.write_bytes(whole.replace(at, bytes(len(at))))
    with pytest.raises(UserError, match="not a readable image .*the checksum is wrong"):
        pixels(tmp_path, NAMES[0])
    pixels(tmp_path, NAMES[1])
    (tmp_path / "cut.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match=r"cut.tar: is no readable archive"):
        place_of(tmp_path / "cut.tar", "a.png")


def test_a_member_of_an_absurd_size_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        with packed.open("bomb.png", "w", force_zip64=True) as file:
            for _ in range(1025):
                file.write(bytes(1 << 20))
    with pytest.raises(UserError, match="not a readable image .*too many for an image"):
        pixels(tmp_path / "a.zip", "bomb.png")


def total(name: str) -> int:
    """The sum of an image's bytes; it says which image was read."""
    root, _, name = name.partition("|")
    return int(pixels(Path(root), name).sum())


def test_threads_and_processes_read_the_same(tmp_path: Path, folder: Path) -> None:
    for archive in ("a.zip", "b.tar"):
        pack(tmp_path / archive, folder, "")
        asked = [f"{tmp_path / archive}|{name}" for name in NAMES * 20]
        wanted = [total(f"{folder}|{name}") for name in NAMES] * 20
        assert list(map_in_order(total, asked, workers=2)) == wanted
        found: dict[int, list[int]] = {}

        def read(number: int, asked: list[str] = asked, found: dict = found) -> None:
            found[number] = [total(one) for one in asked]

        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[number] for number in range(4)] == [wanted] * 4


def test_an_archive_that_changed_is_read_anew(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "coco" / "train2017.zip"
    pack(path, folder, "coco/")
    before = stat_digest(place_of(tmp_path, name) for name in NAMES)
    assert stat_digest(place_of(tmp_path, name) for name in NAMES) == before
    other, whole = pixels(tmp_path, NAMES[0]), data_digest(path)
    with zipfile.ZipFile(path, "w") as packed:
        packed.write(folder / NAMES[5], "train2017/0.png")
    os.utime(path, ns=(1, 1))
    assert stat_digest(place_of(tmp_path, name) for name in NAMES) != before
    assert data_digest(path) != whole
    assert np.any(pixels(tmp_path, NAMES[0]) != other)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        pixels(tmp_path, NAMES[0])
