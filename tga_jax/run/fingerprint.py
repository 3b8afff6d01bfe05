"""What the processes of a run must have in common: versions, code, configuration, data."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax import __version__
from tga_jax.config import listed
from tga_jax.data.image_files import ImagePlace, Member, is_archive
from tga_jax.data.mixture import parse_mixture
from tga_jax.errors import UserError
from tga_jax.files import digest, file_digest, flat

PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "grain", "numpy", "transformers")
LISTS = ("config.retrieval.corpus", "config.retrieval.data")  # paths with commas between them
MIXTURE = "config.data.mixture"
END_BYTES = 1 << 20  # of an archive, that are read
SIZED = 10_000  # files of a folder, at most, whose sizes are asked for


def fingerprint(
    config: ConfigDict, jobs: Sequence[str], *, workdir: Path | None = None
) -> dict[str, str]:
    """Name -> text or digest of all that decides what a process does.

    A configuration value that names a file stands for its bytes, one that names a folder for the
    names and sizes of the files in it; likewise each of several in a list with commas.

    Args:
        config: the configuration.
        jobs: those to run.
        workdir: not looked into as a part of another folder, as it changes while a run goes on.
    """
    parts = {f"version of {name}": importlib.metadata.version(name) for name in PACKAGES}
    parts |= {"version of Python": sys.version.split()[0], "--job": ",".join(jobs)}
    parts["code of tga_jax"] = code_digest()
    for key, value in flat(config.to_dict(), "config").items():
        parts[key] = str(value)
        for name, path in named_data(key, value).items():
            parts[name] = data_digest(path, apart=workdir)
    return parts


def versions() -> dict[str, str]:
    """Package -> version, of what a reader of results should know; of this project its code too."""
    found = {name: importlib.metadata.version(name) for name in ("jax", "transformers")}
    return {"tga_jax": f"{__version__}, code {code_digest()}", **found}


@functools.cache
def code_digest(*rooms: str) -> str:
    """A hash of the sources of some rooms of this package; of all of them where none is named."""
    root = Path(__file__).parents[1]
    sources = [path.relative_to(root) for path in sorted(root.rglob("*.py"))]
    sources = [path for path in sources if not rooms or path.parts[0] in rooms]
    whole = hashlib.sha256()
    for path in sources:
        whole.update(str(path).encode() + b"\0" + (root / path).read_bytes())
    return whole.hexdigest()[:16]


def named_data(key: str, value: Any) -> dict[str, Path]:
    """Name in the fingerprint -> each file or folder that a configuration value names."""
    if not isinstance(value, str) or not value:
        return {}
    if os.path.exists(value):
        return {f"data of {key}": Path(value)}
    names: list[str] = []
    if key in LISTS:
        names = listed(value)
    elif key == MIXTURE:
        with contextlib.suppress(UserError):  # said by the job that needs it
            names = [path for path, _ in parse_mixture(value)]
    return {f"data of {key}: {name}": Path(name) for name in names if name and os.path.exists(name)}


def data_digest(path: Path, *, apart: Path | None = None) -> str:
    """Of a file's bytes, or of the names and sizes of the files in a folder and its folders.

    Of a folder of very many files only some sizes count, evenly spread: each costs a request to
    the file system, which may be a slow one.

    Args:
        path: the file or folder.
        apart: a folder that is left out, unless it is `path` itself.
    """
    if is_archive(path):
        return _end_digest(path)
    if not path.is_dir():
        return file_digest(path)
    seen = {os.path.realpath(folder) for folder in (path, apart) if folder}
    found: list[Any] = []
    for folder, inner, names in os.walk(path, followlinks=True):
        inner.sort()
        inner[:] = [name for name in inner if _is_new(os.path.join(folder, name), seen)]
        names.sort()
        step = max(1, math.ceil(len(names) / SIZED))
        sizes = [_size(os.path.join(folder, name)) for name in names[::step]]
        found.append([os.path.relpath(folder, path), names, sizes])
    return digest(found)


def _end_digest(path: Path) -> str:
    """Of an archive's size and its end, where a zip file has its list; it may be very large."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - END_BYTES))
        return digest([size, hashlib.sha256(file.read()).hexdigest()])


def _is_new(folder: str, seen: set[str]) -> bool:
    """Whether a folder was not seen before, under whatever name: links may form a circle."""
    real = os.path.realpath(folder)
    new = real not in seen
    seen.add(real)
    return new


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:  # a link to nothing
        return None


def stat_digest(places: Iterable[ImagePlace]) -> str:
    """A hash of the names, sizes and times of change of files; one that is not there counts too.

    Of a file in an archive its size counts, and the archive's size and time of change.
    """
    found = [[Path(place.name).name, *_size_and_time(place)] for place in places]
    return digest(found)


def _size_and_time(place: ImagePlace) -> tuple[int, ...]:
    try:
        if isinstance(place, Member):
            return place.identity
        about = place.stat()
    except (OSError, ValueError):  # a name may be too long, or hold a zero byte
        return -1, -1
    return about.st_size, about.st_mtime_ns
