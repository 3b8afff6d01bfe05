"""Where the samples of a run come from: a LLaVA file, prepared data, or a mixture of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from tga_jax.data.mixture import Mixture, parse_mixture
from tga_jax.data.prepared import PreparedRecords, is_prepared, read_report
from tga_jax.data.records import Record, read_records
from tga_jax.data.stored import TRAIN, VALIDATION, split_of
from tga_jax.errors import UserError
from tga_jax.files import digest, file_digest

# Files of texts beside the samples, as config.data names them: the key of a line's text.
SIDE_FILES = {"captions": "caption", "retrieved": "text"}


def read_samples(config: ConfigDict, workdir: Path, stage: str = "") -> Sequence[Record]:
    """The records of a stage, or of config.data.

    Raises:
        UserError: there are none, or prepared data is older than what it was made from.
    """
    data = config.data
    if data.split not in (TRAIN, VALIDATION):
        raise UserError(f"config.data.split={data.split!r}: {TRAIN!r} or {VALIDATION!r}")
    if not 0 <= data.validation < 1:
        raise UserError(f"config.data.validation={data.validation}: must lie in 0..1, below 1")
    sets = [_read_set(config, workdir, path) for path, _ in sample_sets(config, stage)]
    if not _is_mixture(config, stage):
        return sets[0]
    return Mixture(sets, [weight for _, weight in sample_sets(config, stage)])


def samples_digest(config: ConfigDict, workdir: Path, stage: str = "") -> str:
    """A short hash of what `read_samples` reads from, side files apart."""
    found = []
    for path, _ in sample_sets(config, stage):
        folder = prepared_folder(config, workdir, path)
        found.append(read_report(folder)["content"] if folder else file_digest(Path(path)))
    return found[0] if len(found) == 1 else digest(found)


def side_file(config: ConfigDict, workdir: Path, name: str) -> Path | None:
    """captions.jsonl or retrieved.jsonl: config.data's, else the workdir's if there is one."""
    given = config.data[name]
    path = Path(given) if given else workdir / f"{name}.jsonl"
    if given and not path.is_file():
        raise UserError(f"config.data.{name}={given!r}: there is no such file")
    return path if path.is_file() else None


def prepared_folder(config: ConfigDict, workdir: Path, path: str) -> Path | None:
    """The prepared data to read for a path: that folder, or {workdir}/data if made from that file.

    Raises:
        UserError: prepared data is wanted, but is not there, or its inputs have changed since.
    """
    own = workdir / "data"
    if path and Path(path).is_dir():
        if not is_prepared(Path(path)):
            raise UserError(f"{path}: is a folder without prepared data (a finished report.json)")
        _check_inputs(config, workdir, Path(path), [k for k in SIDE_FILES if config.data[k]])
        return Path(path)
    if not is_prepared(own):
        return None
    made_from = read_report(own)["made_from"]
    if path and (not Path(path).is_file() or made_from["records"] != file_digest(Path(path))):
        return None
    _check_inputs(config, workdir, own, SIDE_FILES)
    if made_from["validation"] != config.data.validation:
        raise UserError(
            f"{own} was made with config.data.validation={made_from['validation']}: "
            "set that, or run job prepare again"
        )
    return own


def _check_inputs(config: ConfigDict, workdir: Path, folder: Path, names: Iterable[str]) -> None:
    made_from = read_report(folder)["made_from"]
    for name in names:
        path = side_file(config, workdir, name)
        if made_from[name] != (file_digest(path) if path else None):
            raise UserError(
                f"{folder} was prepared before {path or f'{name}.jsonl'} was as it is now: "
                "run job prepare again"
            )


def image_folder(config: ConfigDict, stage: str = "") -> Path:
    """The image folder of a stage, or of config.data.

    Raises:
        UserError: there is no such folder.
    """
    folder = Path((config[stage].image_dir if stage else "") or config.data.image_dir or ".")
    if not folder.is_dir():
        raise UserError(f"config.data.image_dir={str(folder)!r}: there is no such folder")
    return folder


def _is_mixture(config: ConfigDict, stage: str) -> bool:
    return bool(config.data.mixture) and not (stage and config[stage].path)


def sample_sets(config: ConfigDict, stage: str = "") -> list[tuple[str, float]]:
    """(path, weight) of each set that `read_samples` reads."""
    if _is_mixture(config, stage):
        return parse_mixture(config.data.mixture)
    return [((config[stage].path if stage else "") or config.data.path, 1.0)]


def _read_set(config: ConfigDict, workdir: Path, path: str) -> Sequence[Record]:
    data = config.data
    folder = prepared_folder(config, workdir, path)
    if folder is not None:
        return PreparedRecords(folder, data.split)
    if not path:
        raise UserError("no samples: set config.data.path to a LLaVA JSON file or to prepared data")
    extra = {name: Path(data[name]) if data[name] else None for name in SIDE_FILES}
    records = read_records(Path(path), **extra)
    if not data.validation and data.split == TRAIN:
        return records
    chosen = [r for r in records if split_of(r, data.validation) == data.split]
    if not chosen:
        raise UserError(f"{path}: no record is in split {data.split!r}; see config.data.validation")
    return chosen
