"""Which files the samples of a run come from: LLaVA files, prepared data, or a mixture of them."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import operator
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.data.image_files import COMPRESSED, SUFFIXES, is_archive, open_archive
from tga_jax.data.mixture import parse_mixture
from tga_jax.data.prepared import is_prepared, read_report
from tga_jax.data.side_texts import SIDE_FILES
from tga_jax.data.stored import TRAIN, VALIDATION
from tga_jax.errors import UserError
from tga_jax.files import file_digest

# File of texts beside the samples -> the job that writes it.
WRITERS = {"captions": "caption", "retrieved": "retrieve"}

Content = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SetFiles:
    """A set of samples that was found and is not read yet.

    Attributes:
        path: a LLaVA file, or a folder of prepared data.
        weight: of the set in a mixture.
        report: what job `prepare` wrote about prepared data; None for a LLaVA file.
    """

    path: Path
    weight: float
    report: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class SampleFiles:
    """Where the samples of a stage, or of config.data, come from.

    Attributes:
        key: the key of the configuration that names the sets.
        sets: the sets; several of them are a mixture.
        is_mixture: whether they are drawn by their weights.
        texts: "captions" and "retrieved" -> the file that config.data names for LLaVA files.
    """

    key: str
    sets: tuple[SetFiles, ...]
    is_mixture: bool
    texts: Mapping[str, Path | None]

    @functools.cached_property
    def content(self) -> Content:
        """Hashes of what the files hold.

        The same samples give the same hashes whether they are read from a JSON file or from what
        job `prepare` made of it: "records", "captions" and "retrieved", each None where there is
        none; of a mixture, lists of them.
        """
        found = [self._content(one) for one in self.sets]
        return found[0] if len(found) == 1 else {k: [one[k] for one in found] for k in found[0]}

    def _content(self, one: SetFiles) -> Content:
        if one.report is not None:
            return {key: one.report["made_from"][key] for key in ("records", *SIDE_FILES)}
        if not one.path.is_file():
            raise UserError(f"{self.key}={str(one.path)!r}: there is no such file")
        texts = {name: file_digest(file) if file else None for name, file in self.texts.items()}
        return {"records": file_digest(one.path), **texts}


def find_samples(config: ConfigDict, workdir: Path, stage: str = "") -> SampleFiles:
    """Find the files of a stage's samples, or of config.data's.

    Args:
        config: the whole configuration.
        workdir: of the run, whose prepared data is taken for the file that it was made from.
        stage: "pretrain", "finetune" or none.

    Raises:
        UserError: none are named, a key has no such value, or prepared data is older than what it
            was made from.
    """
    data = config.data
    check_split(data)
    found = (
        _found(config, workdir, path, weight, stage) for path, weight in named_sets(config, stage)
    )
    return SampleFiles(
        key=samples_key(config, stage),
        sets=tuple(found),
        is_mixture=_is_mixture(config, stage),
        texts={name: Path(data[name]) if data[name] else None for name in SIDE_FILES},
    )


def check_split(data: ConfigDict) -> None:
    """Refuse values of config.data.split and config.data.validation that there are not."""
    if data.split not in (TRAIN, VALIDATION):
        raise UserError(f"config.data.split={data.split!r} must be {TRAIN!r} or {VALIDATION!r}")
    if not 0 <= data.validation < 1:
        raise UserError(f"config.data.validation={data.validation} must be at least 0 and below 1")


def check_prepared_images(config: ConfigDict, workdir: Path, path: str, stage: str) -> None:
    """Refuse another image folder where {workdir}/data will be read in the place of `path`."""
    own = workdir / "data"
    if is_prepared(own) and not (path and Path(path).is_dir()):
        report = read_report(own)
        if not path or _is_made_from(report, Path(path)):
            _check_images(config, own, report, stage)


def _found(config: ConfigDict, workdir: Path, path: str, weight: float, stage: str) -> SetFiles:
    """Prepared data where the path is such a folder, or the file that {workdir}/data is made of."""
    if path and Path(path).is_dir():
        if not is_prepared(Path(path)):
            raise UserError(f"{path}: is a folder without prepared data (a finished report.json)")
        report = read_report(Path(path))
        texts = [name for name in SIDE_FILES if config.data[name]]
        _check_texts(config, workdir, Path(path), report, texts)
        return SetFiles(Path(path), weight, report)
    own = workdir / "data"
    if is_prepared(own):
        report = read_report(own)
        if not path or _is_made_from(report, Path(path)):
            _check_texts(config, workdir, own, report, SIDE_FILES)
            _check_validation(config, own, report)
            _check_images(config, own, report, stage)
            return SetFiles(own, weight, report)
    if not path:
        raise UserError("no samples: set config.data.path to a LLaVA JSON file or to prepared data")
    return SetFiles(Path(path), weight, None)


def _is_made_from(report: Mapping[str, Any], path: Path) -> bool:
    return path.is_file() and bool(report["made_from"]["records"] == file_digest(path))


def _check_texts(
    config: ConfigDict,
    workdir: Path,
    folder: Path,
    report: Mapping[str, Any],
    names: Iterable[str],
) -> None:
    """Refuse prepared data whose files of texts have changed since."""
    for name in names:
        path = side_file(config, workdir, name)
        if report["made_from"][name] != (file_digest(path) if path else None):
            raise UserError(
                f"{folder} was prepared before {path or f'{name}.jsonl'} was as it is now: "
                "run job prepare again"
            )


def _check_validation(config: ConfigDict, folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse prepared data that was split in another way."""
    share = report["made_from"]["validation"]
    if share != config.data.validation:
        raise UserError(
            f"{folder} was made with config.data.validation={share}: "
            "set that, or run job prepare again"
        )


def _check_images(config: ConfigDict, folder: Path, report: Mapping[str, Any], stage: str) -> None:
    """Refuse prepared data whose images are of another folder than the one that is named."""
    key = f"{stage}.image_dir" if stage and config[stage].image_dir else "data.image_dir"
    named, was = operator.attrgetter(key)(config), report.get("image_dir", "")
    if named and was and Path(named).resolve() != Path(was):
        raise UserError(
            f"config.{key}={named!r}: {folder} was prepared from the images in {was}: run job "
            "prepare again, or leave the key out to go on with what is prepared"
        )


def side_file(config: ConfigDict, workdir: Path, name: str) -> Path | None:
    """captions.jsonl or retrieved.jsonl: config.data's, else the workdir's if there is one."""
    given = config.data[name]
    path = Path(given) if given else workdir / f"{name}.jsonl"
    if given and not path.is_file():
        raise UserError(f"config.data.{name}={given!r}: there is no such file")
    return path if path.is_file() else None


def named_sets(config: ConfigDict, stage: str = "") -> list[tuple[str, float]]:
    """(path, weight) of each set that the configuration names."""
    if _is_mixture(config, stage):
        return parse_mixture(config.data.mixture)
    return [((config[stage].path if stage else "") or config.data.path, 1.0)]


def samples_key(config: ConfigDict, stage: str = "") -> str:
    """The key of the configuration that names the sets."""
    if _is_mixture(config, stage):
        return "config.data.mixture"
    return f"config.{stage if stage and config[stage].path else 'data'}.path"


def image_folder(config: ConfigDict, stage: str = "") -> Path:
    """The image folder of a stage, or of config.data; it may be an archive.

    Raises:
        UserError: there is no such folder, or the archive cannot be read.
    """
    own = config[stage].image_dir if stage else ""
    folder = Path(own or config.data.image_dir or ".")
    if is_archive(folder):
        open_archive(folder)
    elif not folder.is_dir():
        key = f"config.{stage if own else 'data'}.image_dir"
        raise UserError(f"{key}={str(folder)!r}: {_no_images(folder)}")
    return folder


def _no_images(place: Path) -> str:
    """Why a path is no image folder and no archive of images, and what there is of a like name."""
    if place.is_file():
        packed = place.name.lower().endswith(COMPRESSED)
        return "is no folder or .zip or .tar archive" + "; unpack it, or make it a .tar" * packed
    archive = place.suffix.lower() in SUFFIXES
    problem = "there is no such " + ("archive" if archive else "folder or .zip or .tar archive")
    try:
        names = [entry.name for entry in os.scandir(place.parent)]
    except OSError:
        return f"{problem}; there is no folder {place.parent} either"
    near = difflib.get_close_matches(place.name, names, n=1)
    return problem + "".join(f"; did you mean {name!r}?" for name in near)


def _is_mixture(config: ConfigDict, stage: str) -> bool:
    return bool(config.data.mixture) and not (stage and config[stage].path)
