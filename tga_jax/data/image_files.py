"""Where an image lies: as a file in the image folder, or inside an archive that is not unpacked.

An archive (.zip or .tar) counts as unpacked where it lies, and as the folder of its own name. So
`coco/train2017/1.jpg` is found in `coco/train2017.zip`, whether the archive calls it
`train2017/1.jpg` or `1.jpg`. The image folder itself may be an archive, too.

Each process reads the list of an archive's members once. Members are read at their offsets without
a shared position, so that threads and forked processes may read at the same time.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tga_jax.errors import UserError

SUFFIXES = (".zip", ".tar")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MAX_BYTES = 1 << 30  # of a member; a damaged or hostile archive may promise any size
OPEN_ARCHIVES = 64  # whose lists are kept
LOCAL_HEADER = 30  # bytes before a name in a zip file; the lengths of two fields end it
_opening = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a member's bytes lie in its archive.

    Attributes:
        offset: of the bytes; in a zip file, of the header before them.
        stored: how many they are.
        size: how many they are when they are inflated.
        method: zipfile's number of the compression; None in a tar file.
        checksum: CRC-32 of the inflated bytes; not used in a tar file.
    """

    offset: int
    stored: int
    size: int
    method: int | None = None
    checksum: int = 0


@dataclasses.dataclass(frozen=True)
class Member:
    """An image inside an archive; it has those methods of a `Path` that images need.

    Attributes:
        archive: the archive's path.
        name: of the member.
        entry: where its bytes lie.
    """

    archive: Path
    name: str
    entry: Entry = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"

    @property
    def suffix(self) -> str:
        """The end of its name, such as ".jpg"."""
        return PurePosixPath(self.name).suffix

    @property
    def identity(self) -> tuple[int, int, int]:
        """Its size, and the size and the time of change of the archive."""
        about = self.archive.stat()
        return self.entry.size, about.st_size, about.st_mtime_ns

    def read_bytes(self) -> bytes:
        """Returns the inflated bytes.

        Raises:
            OSError: the archive cannot be read any more, or is damaged here.
        """
        return open_archive(self.archive).read(self.entry)


ImagePlace = Path | Member


class Archive:
    """An archive that is open for reading, and the list of its members.

    Attributes:
        entries: member -> where its bytes lie, of ordinary files alone: no links, no folders.
    """

    def __init__(self, path: Path) -> None:
        """Reads the list.

        Raises:
            UserError: it is no archive, or is cut short.
        """
        try:
            self._file = path.open("rb")
            found = _zip_entries(path) if path.suffix.lower() == ".zip" else _tar_entries(path)
            self.entries = {inner: e for name, e in found if (inner := _inside(name)) is not None}
        except (OSError, ValueError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise UserError(
                f"{path}: is no readable archive ({error}); download it again"
            ) from error

    def read(self, entry: Entry) -> bytes:
        """Returns the inflated bytes of a member.

        Raises:
            OSError: the archive is damaged there, or the member is of a kind that is not read.
        """
        if entry.size > MAX_BYTES:
            raise OSError(f"{entry.size} bytes are too many for an image")
        if entry.method is None:
            return self._bytes(entry.offset, entry.stored)
        header = self._bytes(entry.offset, LOCAL_HEADER)
        begin = entry.offset + LOCAL_HEADER + sum(struct.unpack("<HH", header[-4:]))
        content = _inflated(self._bytes(begin, entry.stored), entry)
        if zlib.crc32(content) != entry.checksum:
            raise OSError("the archive is damaged here: the checksum is wrong")
        return content

    def _bytes(self, offset: int, count: int) -> bytes:
        content = os.pread(self._file.fileno(), count, offset)
        if len(content) < count:
            raise OSError("the archive is cut short")
        return content


def is_archive(path: Path) -> bool:
    """Returns whether a path names a file that is an archive by its name."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def open_archive(path: Path) -> Archive:
    """Returns an archive, whose list is read anew where the file has changed.

    Raises:
        UserError: it is no archive.
        OSError: it is not there.
    """
    about = path.stat()
    with _opening:  # the others wait for the list, which takes long of a large tar
        return _opened(path, about.st_size, about.st_mtime_ns)


@functools.lru_cache(OPEN_ARCHIVES)
def _opened(path: Path, size: int, changed_ns: int) -> Archive:
    return Archive(path)


def place_of(image_dir: Path | str, name: str) -> ImagePlace:
    """Returns where an image lies; a path where it is nowhere, which is no file then.

    A file in a folder comes before a member of an archive. A name that leaves the image folder is
    looked for in no archive.

    Args:
        image_dir: a folder or an archive.
        name: of the image in it.

    Raises:
        UserError: an archive on the way cannot be read.
    """
    root, own = Path(image_dir), name_inside(image_dir, name)
    if own is None:
        return root / name
    name, inner = own, PurePosixPath(own)
    if is_archive(root):
        return _member(root, inner) or root / name
    archives = [*_archives_above(root, inner)]
    if not archives or (root / name).is_file():
        return root / name
    members = (_member(path, inner.relative_to(folder)) for path, folder in archives)
    return next((member for member in members if member is not None), root / name)


def name_inside(image_dir: Path | str, name: str) -> str | None:
    """Returns an image's name relative to the image folder; None where it leaves the folder.

    An absolute path is inside where it begins with the folder's own path, as it is written or with
    its links followed.
    """
    if not name or "\0" in name:
        return None
    path = PurePosixPath(name)
    if path.is_absolute():
        roots = (Path(image_dir).absolute(), Path(image_dir).resolve())
        root = next((root for root in roots if path.is_relative_to(root)), None)
        name = "/" if root is None else str(path.relative_to(root))
    return _inside(name)


def is_there(place: ImagePlace) -> bool:
    """Returns whether something can be read there."""
    return isinstance(place, Member) or place.is_file()


def size_of(place: ImagePlace) -> int | None:
    """Returns an image's bytes in its file, None where it is not there."""
    if isinstance(place, Member):
        return place.entry.size
    return place.stat().st_size if place.is_file() else None


def _member(archive: Path, name: PurePosixPath) -> Member | None:
    """The member of this name; the archive may or may not have its own name as first folder."""
    entries = open_archive(archive).entries
    first, *rest = name.parts
    names = [str(name), f"{archive.stem}/{name}"]
    if rest and first == archive.stem:
        names.append(str(PurePosixPath(*rest)))
    return next((Member(archive, one, entries[one]) for one in names if one in entries), None)


def _archives_above(root: Path, name: PurePosixPath) -> Iterator[tuple[Path, PurePosixPath]]:
    """(archive, its folder in the image folder), from the image's own folder upwards.

    The innermost folder holds the images, which may be very many, so it is not listed.
    """
    for folder in list(name.parents)[1:]:
        for archive in _archives_in(root / folder):
            yield archive, folder


def _archives_in(folder: Path) -> tuple[Path, ...]:
    try:
        changed_ns = folder.stat().st_mtime_ns
    except (OSError, ValueError):  # it is not there, or its name is too long
        return ()
    return _listed(folder, changed_ns)


@functools.lru_cache(4096)
def _listed(folder: Path, changed_ns: int) -> tuple[Path, ...]:
    """The archives in a folder, in the order of their names."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return ()
    paths = (folder / name for name in names if name.lower().endswith(SUFFIXES))
    return tuple(path for path in paths if path.is_file())


def _inside(name: str) -> str | None:
    """A name without "./"; None where it is absolute or has ".."."""
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts or not path.parts else str(path)


def _zip_entries(path: Path) -> Iterable[tuple[str, Entry]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # A link's content is a path; the upper half of these bits is its kind on Unix.
            if not (info.is_dir() or stat.S_ISLNK(info.external_attr >> 16)):
                method = -1 if info.flag_bits & 1 else info.compress_type  # -1: encrypted
                sizes = info.compress_size, info.file_size
                yield info.filename, Entry(info.header_offset, *sizes, method, info.CRC)


def _tar_entries(path: Path) -> Iterable[tuple[str, Entry]]:
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            if info.isreg() and not info.issparse():
                yield info.name, Entry(info.offset_data, info.size, info.size)


def _inflated(content: bytes, entry: Entry) -> bytes:
    if entry.method == zipfile.ZIP_STORED:
        return content
    if entry.method != zipfile.ZIP_DEFLATED:
        raise OSError("it is encrypted, or compressed in an unusual way; unpack the archive")
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, entry.size + 1)
    except zlib.error as error:
        raise OSError(f"the archive is damaged here ({error})") from error
