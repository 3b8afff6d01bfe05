"""Where the samples of a run come from: a LLaVA file, prepared data, or a mixture of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tga_jax.data.lazy_records import has_contents
from tga_jax.data.mixture import Mixture, parse_mixture
from tga_jax.data.prepared import is_prepared, read_report
from tga_jax.data.prompts import Prompter
from tga_jax.data.records import Record
from tga_jax.data.row_check import Checked
from tga_jax.data.sample_sets import SampleSet, of_split, prepared_set, read_json_sets
from tga_jax.data.side_texts import SIDE_FILES, read_side_files
from tga_jax.data.stored import TRAIN, VALIDATION
from tga_jax.data.usable import usable
from tga_jax.errors import UserError
from tga_jax.files import digest, file_digest
from tga_jax.run.fingerprint import code_digest, stat_digest
from tga_jax.run.usable_rows import check_samples
from tga_jax.run.weights import source_digest


@dataclasses.dataclass(frozen=True)
class Samples:
    """The samples of a job.

    Attributes:
        records: the usable ones.
        checked: what checking each of their sets found.
        about: "duplicate_ids", and what the files of texts beside them are to them; see
            `data.sample_sets`.
    """

    records: Sequence[Record]
    checked: tuple[Checked, ...]
    about: Mapping[str, Mapping[str, Any]]

    @property
    def used(self) -> str:
        """A hash of which samples of which set are usable."""
        return digest([one.to_json()["keep"] for one in self.checked])


def read_samples(
    config: ConfigDict,
    workdir: Path,
    prompter: Prompter,
    *,
    say: Callable[[str], None],
    stage: str = "",
) -> Samples:
    """Reads the samples of a stage, or of config.data, and checks every row of them.

    Args:
        config: the whole configuration.
        workdir: the run's.
        prompter: makes tokens of the records, as the job will.
        say: is told what is left out and why.
        stage: "pretrain", "finetune" or none.

    Raises:
        UserError: there are none, more are bad than config.data.max_bad_fraction allows, or
            prepared data is older than what it was made from.
    """
    sets, about = read_sets(config, workdir, stage)
    decides = [samples_content(config, workdir, stage), *prompt_keys(config, stage)]
    prepared = all(has_contents(one.records) for one in sets)
    folder = Path() if prepared else image_folder(config, stage)
    checked = tuple(
        check_samples(
            samples,
            max_bad_fraction=config.data.max_bad_fraction,
            image_dir=folder,
            prompter=prompter,
            say=say,
            cache=workdir / "checked",
            decides=[*decides, place, images_digest(samples.records, lambda: folder)],
        )
        for place, samples in enumerate(sets)
    )
    records = [usable(s.records, found.keep) for s, found in zip(sets, checked, strict=True)]
    if not _is_mixture(config, stage):
        return Samples(records[0], checked, about)
    weights = [weight for _, weight in sample_sets(config, stage)]
    return Samples(Mixture(records, weights), checked, about)


def prompt_keys(config: ConfigDict, stage: str) -> list[Any]:
    """All but the samples that decides which of them are usable."""
    own = [config[stage][key] for key in ("template", "max_length")] if stage else []
    data = [config.data[key] for key in ("max_length", "max_bad_fraction", "split", "validation")]
    model = source_digest(config.model)
    return [model, config.prompt.to_dict(), *own, *data, code_digest("data", "hf")]


def read_sets(
    config: ConfigDict, workdir: Path, stage: str = ""
) -> tuple[list[SampleSet], dict[str, Any]]:
    """Returns the sets of a stage, or of config.data, before they are checked.

    What is known of their ids and of the files of texts comes second. Prepared data has its texts
    inside: what job `prepare` found is repeated, unless other sets are mixed with it.
    """
    data = config.data
    if data.split not in (TRAIN, VALIDATION):
        raise UserError(f"config.data.split={data.split!r}: {TRAIN!r} or {VALIDATION!r}")
    if not 0 <= data.validation < 1:
        raise UserError(f"config.data.validation={data.validation}: must lie in 0..1, below 1")
    paths = [path for path, _ in sample_sets(config, stage)]
    folders = [prepared_folder(config, workdir, path) for path in paths]
    files = [Path(path) for path, folder in zip(paths, folders, strict=True) if folder is None]
    if "" in paths and files:
        raise UserError("no samples: set config.data.path to a LLaVA JSON file or to prepared data")
    given = {name: Path(data[name]) if data[name] else None for name in SIDE_FILES}
    read, about = read_json_sets(files, read_side_files(given) if files else {})
    unprepared = iter([_of_split(one, path, data) for one, path in zip(read, files, strict=True)])
    sets = [prepared_set(f, data.split) if f else next(unprepared) for f in folders]
    if len(folders) == 1 and folders[0]:
        report = read_report(folders[0])
        about = {name: report[name] for name in (*SIDE_FILES, "duplicate_ids") if name in report}
    return sets, about


def _of_split(samples: SampleSet, path: Path, data: ConfigDict) -> SampleSet:
    if not data.validation and data.split == TRAIN:
        return samples
    chosen = of_split(samples, data.split, data.validation)
    if not chosen.records:
        raise UserError(f"{path}: no record is in split {data.split!r}; see config.data.validation")
    return chosen


def samples_content(config: ConfigDict, workdir: Path, stage: str = "") -> dict[str, Any]:
    """What `read_samples` reads, as hashes of the files' contents.

    The same samples give the same hashes whether they are read from a JSON file or from what job
    `prepare` made of it: "records", "captions" and "retrieved", each None where there is none; of
    a mixture, lists of them.
    """
    key = samples_key(config, stage)
    sets = [_content(config, workdir, path, key) for path, _ in sample_sets(config, stage)]
    return sets[0] if len(sets) == 1 else {key: [one[key] for one in sets] for key in sets[0]}


def _content(config: ConfigDict, workdir: Path, path: str, key: str) -> dict[str, str | None]:
    folder = prepared_folder(config, workdir, path)
    if folder is not None:
        made_from = read_report(folder)["made_from"]
        return {key: made_from[key] for key in ("records", *SIDE_FILES)}
    files = {name: Path(config.data[name]) if config.data[name] else None for name in SIDE_FILES}
    if not Path(path).is_file():
        raise UserError(f"{key}={path!r}: there is no such file")
    texts = {name: file_digest(file) if file else None for name, file in files.items()}
    return {"records": file_digest(Path(path)), **texts}


def images_digest(records: Sequence[Record], image_dir: Callable[[], Path]) -> str:
    """A hash of the names, sizes and times of the records' images, none of which is read.

    Prepared data holds its images, whose bytes are part of its content: for it this is constant.
    """
    if has_contents(records):
        return ""
    names = dict.fromkeys(name for record in records for name in record.images)
    folder = image_dir() if names else Path()
    return stat_digest(folder / name for name in names)


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
    own = config[stage].image_dir if stage else ""
    folder = Path(own or config.data.image_dir or ".")
    if not folder.is_dir():
        key = f"config.{stage if own else 'data'}.image_dir"
        raise UserError(f"{key}={str(folder)!r}: there is no such folder")
    return folder


def _is_mixture(config: ConfigDict, stage: str) -> bool:
    return bool(config.data.mixture) and not (stage and config[stage].path)


def sample_sets(config: ConfigDict, stage: str = "") -> list[tuple[str, float]]:
    """(path, weight) of each set that `read_samples` reads."""
    if _is_mixture(config, stage):
        return parse_mixture(config.data.mixture)
    return [((config[stage].path if stage else "") or config.data.path, 1.0)]


def samples_key(config: ConfigDict, stage: str = "") -> str:
    """Returns the key of the configuration that names the sets of `sample_sets`."""
    if _is_mixture(config, stage):
        return "config.data.mixture"
    return f"config.{stage if stage and config[stage].path else 'data'}.path"
