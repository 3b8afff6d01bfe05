"""What a stage's samples have and lack: said when training starts, and <stage>/samples.json."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tga_jax.cluster import shared_files
from tga_jax.data.lazy_records import has_flags, known_of
from tga_jax.data.records import SHOWN, Record
from tga_jax.data.row_check import Checked
from tga_jax.data.side_texts import text_warnings
from tga_jax.errors import UserError


def report_samples(
    path: Path,
    records: Sequence[Record],
    checked: Sequence[Checked],
    about: Mapping[str, Mapping[str, Any]],
    *,
    say: Callable[[str], None],
) -> None:
    """Writes <stage>/samples.json, and says what matters of it.

    Args:
        path: of that file.
        records: that the stage trains on.
        checked: what checking each of their sets found.
        about: as `run.samples.Samples` has it.
        say: shows a line.
    """
    lacking = what_they_lack(records)
    shared_files.write_json(path, merged(checked) | lacking | dict(about))
    say_samples(len(records), lacking, about, say=say)


def say_samples(
    count: int,
    lacking: Mapping[str, Any],
    about: Mapping[str, Mapping[str, Any]],
    *,
    say: Callable[[str], None],
) -> None:
    """Says what samples have and lack, as every job does that makes tokens of them.

    Args:
        count: of the samples.
        lacking: as `what_they_lack` counts it.
        about: as `run.samples.Samples` has it.
        say: shows a line.
    """
    lack = [lacking[f"pictures_without_{text}"]["count"] for text in ("caption", "retrieved")]
    say(
        f"{count} samples, {lacking['pictures']} with an image: {lack[0]} of these "
        f"without a caption (no guide), {lack[1]} without a retrieved text (no hinge); "
        f'{lacking["tox"]} marked "tox" (blank image, no guide)'
    )
    twice = about["duplicate_ids"]["count"]
    for line in [
        *(
            [f"{twice} {'id is' if twice == 1 else 'ids are'} shared by several samples"]
            if twice
            else []
        ),
        *text_warnings(about),
    ]:
        say(line)


def unlearnt_warning(records: Sequence[Record], terms: Mapping[str, int]) -> str:
    """What is to be said of samples without an answer where the guide has no effect; "" of none.

    Args:
        records: that the stage trains on.
        terms: how many of them have each term of the guide.

    Raises:
        UserError: no sample has an answer, so that the stage would train nothing.
    """
    lacking = int(np.sum(~known_of(records).answered))
    if not lacking or any(terms.values()):
        return ""
    if lacking == len(records):
        raise UserError(
            "this stage would train nothing: none of its samples has an answer to learn, and the "
            "guide has no effect here"
        )
    return (
        f"WARNING: {lacking} of {len(records)} samples have no answer to learn. They train "
        "nothing, as the guide has no effect here, but they take time: leave them out"
    )


def untrained_warning(records: Sequence[Record], trained: Collection[str]) -> str:
    """What is to be said of samples that pass through no trained parameter; "" where all do.

    Args:
        records: that the stage trains on.
        trained: the parts that it trains, as `run.stage.trained_counts` names them.
    """
    if {"decoder", "adapters"} & set(trained):
        return ""
    image = has_flags(records)[:, 0]
    texts = int(np.sum(~image))
    if not texts:
        return ""
    return (
        f"WARNING: {texts} of {len(records)} samples have no image. They train nothing, as the "
        "language model is frozen (config.<stage>.trainable), but they take time: leave them out"
    )


def merged(checked: Sequence[Checked]) -> dict[str, Any]:
    """Returns the `Checked.report` of several sets as one."""
    reports = [one.report() for one in checked]
    return {
        key: sum((report[key] for report in reports), [] if key == "skipped" else 0)
        for key in reports[0]
    }


def what_they_lack(records: Sequence[Record]) -> dict[str, Any]:
    """Counts samples; rows marked "tox" have no guide terms whatever they lack."""
    image, caption, retrieved, tox, _ = has_flags(records).T
    shown = image & ~tox
    return {
        "pictures": int(shown.sum()),
        "text_only": int(np.sum(~image)),
        "tox": int(tox.sum()),
        "pictures_without_caption": _named(records, shown & ~caption),
        "pictures_without_retrieved": _named(records, shown & ~retrieved),
    }


def _named(records: Sequence[Record], chosen: np.ndarray) -> dict[str, Any]:
    """How many, and the ids of the first; prepared data reads no more than these."""
    (places,) = np.nonzero(chosen)
    return {"count": len(places), "first": [records[int(i)].id for i in places[:SHOWN]]}
