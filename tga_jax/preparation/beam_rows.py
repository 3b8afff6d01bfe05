"""Checking records under Apache Beam, for sets that outgrow one machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tga_jax.data.records import BadRow, Record
from tga_jax.data.stored import Figures
from tga_jax.files import read_jsonl
from tga_jax.preparation.check import Outcome, check_row


def beam_examples(records: Sequence[Record], image_dir: Path, notes: Path) -> Any:
    """A PTransform that yields (number, example) of every usable row.

    Args:
        records: of a split.
        image_dir: where their images are; all workers must see it.
        notes: prefix of files that get a line a row, for `read_outcomes`.
    """
    import apache_beam as beam

    @beam.ptransform_fn
    def transform(pipeline: Any) -> Any:
        outcomes = (
            pipeline
            | "Rows" >> beam.Create(records)
            | "Spread" >> beam.Reshuffle()
            | "Check" >> beam.Map(check_row, image_dir)
        )
        lines = outcomes | "Note" >> beam.Map(_line)
        _ = lines | "Write" >> beam.io.WriteToText(str(notes), file_name_suffix=".jsonl")
        return outcomes | "Keep" >> beam.FlatMap(_keyed)

    return transform()


def read_outcomes(notes: Path) -> Iterator[Outcome]:
    """Yields what `beam_examples` noted, without the examples, in the order of the rows."""
    outcomes = [
        _outcome(line)
        for path in notes.parent.glob(f"{notes.name}-*.jsonl")
        for line in read_jsonl(path)
    ]
    return iter(sorted(outcomes, key=lambda outcome: outcome.number))


def _line(outcome: Outcome) -> str:
    return json.dumps(dataclasses.asdict(dataclasses.replace(outcome, example=None)))


def _outcome(line: dict[str, Any]) -> Outcome:
    bad, figures = line["bad"], line["figures"]
    return Outcome(
        bad=None if bad is None else BadRow(**bad),
        digest=line["digest"],
        figures=None if figures is None else Figures(*figures),
        encoded=tuple(line["encoded"]),
    )


def _keyed(outcome: Outcome) -> list[tuple[int, dict[str, Any]]]:
    return [] if outcome.example is None else [(outcome.number, outcome.example)]
