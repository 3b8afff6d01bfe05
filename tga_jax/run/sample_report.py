"""What a stage's samples have and lack: said when training starts, and <stage>/samples.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tga_jax.cluster import shared_files
from tga_jax.data.prepared import read_report
from tga_jax.data.records import Record, has_flags, texts_by_id
from tga_jax.data.rows import json_rows
from tga_jax.run.job import Job
from tga_jax.run.samples import SIDE_FILES, prepared_folder, sample_sets
from tga_jax.run.usable_rows import SHOWN, named


def report_samples(job: Job, records: Sequence[Record]) -> None:
    """Write <stage>/samples.json about the records that the job trains on, and say it."""
    about = what_they_lack(records) | side_texts(job.config, job.workdir, job.name)
    shared_files.write_json(job.workdir / job.name / "samples.json", about)
    lack = [about[f"pictures_without_{text}"]["count"] for text in ("caption", "retrieved")]
    parts = [
        f"{about['samples']} samples, {about['pictures']} with a picture: {lack[0]} of these "
        f"without a caption (no guide), {lack[1]} without a retrieved text (no hinge)"
    ]
    for name in SIDE_FILES:
        unknown = about.get(name, {}).get("unknown_ids", {}).get("count", 0)
        parts += [f"{name}: {unknown} unknown ids"] if unknown else []
    job.say("; ".join(parts))


def what_they_lack(records: Sequence[Record]) -> dict[str, Any]:
    """Counts of samples; rows marked "tox" have no guide terms whatever they lack."""
    picture, caption, retrieved, tox = has_flags(records).T
    shown = picture & ~tox
    return {
        "samples": len(records),
        "pictures": int(shown.sum()),
        "text_only": int(np.sum(~picture)),
        "tox": int(tox.sum()),
        "pictures_without_caption": _named(records, shown & ~caption),
        "pictures_without_retrieved": _named(records, shown & ~retrieved),
    }


def side_texts(config: ConfigDict, workdir: Path, stage: str) -> dict[str, Any]:
    """Of each file of texts beside the samples: how many, and those whose id no sample has.

    Prepared data has its texts inside; what job `prepare` found about them is repeated, unless
    other sets are mixed with it.
    """
    paths = [path for path, _ in sample_sets(config, stage)]
    folders = [prepared_folder(config, workdir, path) for path in paths]
    if all(folders):
        found = read_report(folders[0]) if len(folders) == 1 and folders[0] else {}
        return {name: found[name] for name in SIDE_FILES if name in found}
    given = {name: config.data[name] for name in SIDE_FILES if config.data[name]}
    if not given:
        return {}
    files = [Path(p) for p, folder in zip(paths, folders, strict=True) if folder is None]
    ids = {str(row["id"]) for file in files for _, row in json_rows(file)}
    out = {}
    for name, path in given.items():
        texts = texts_by_id(Path(path), key=SIDE_FILES[name])
        out[name] = {"texts": len(texts), "unknown_ids": named(texts.keys() - ids)}
    return out


def _named(records: Sequence[Record], chosen: np.ndarray) -> dict[str, Any]:
    """How many, and the ids of the first; prepared data reads no more than these."""
    (rows,) = np.nonzero(chosen)
    return {"count": len(rows), "first": [records[int(i)].id for i in rows[:SHOWN]]}
