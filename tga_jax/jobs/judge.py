"""Job `judge`: which of the answers that were made elsewhere refuse; no model under test is loaded.

judge/verdicts.jsonl     {"question_id", "judge", "refused"}, a line for each answer and judge;
                         "refused" is null, with "why", where there is no verdict
judge/metrics.json       rows as job `evaluate` writes them
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.answer_files import AnswerFile, read_answers, repeated
from tga_jax.evaluation.judge_answers import judged, metric_lines, verdict_lines
from tga_jax.evaluation.make_judges import make_judges
from tga_jax.evaluation.result import nothing_measured
from tga_jax.evaluation.terminal_table import table
from tga_jax.files import file_digest, write_json, write_jsonl
from tga_jax.run.job import Job


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse answers that are not there, and judges that there are not."""
    if not job.config.judge.answers:
        raise UserError("no answers: set config.judge.answers to a file of them")
    if not Path(job.config.judge.answers).is_file():
        raise UserError(f"config.judge.answers: {job.config.judge.answers}: no such file")
    make_judges(job)
    read(job)


def read(job: Job) -> AnswerFile:
    """The answers that config.judge names, by its columns."""
    cfg = job.config.judge
    return read_answers(
        Path(cfg.answers),
        text=cfg.column,
        identity=cfg.id_column,
        harmful=cfg.harmful_column,
        scene=cfg.scene_column,
    )


def run(job: Job) -> None:
    """Write judge/verdicts.jsonl and judge/metrics.json; a table on stderr."""
    path, folder = Path(job.config.judge.answers), job.workdir / "judge"
    found = read(job)
    answered, model = found.answered, found.model
    if not found.has_ids:
        job.say(
            f"{path}: no known column has ids, so verdicts have the numbers of the rows, from 1 "
            "(config.judge.id_column names one)"
        )
    judges = make_judges(job)
    results = judged(answered, judges, folder)
    write_jsonl(folder / "verdicts.jsonl", verdict_lines(results))
    again = repeated(answered)
    settings: dict[str, Any] = {
        "answers": str(path),
        "answers_digest": file_digest(path),
        "answers_count": len(results),
        "repeated_ids": len(again),
    }
    rows = metric_lines(results, judges, path=path, model=model or path.stem, settings=settings)
    write_json(folder / "metrics.json", rows)
    if again:
        job.say(
            f"{len(again)} of {len(results)} answers have the question_id of an earlier one, like "
            f"{again[0]!r}: each counts as an answer of its own, and those of one id without an "
            "image are one cluster in the intervals"
        )
    job.say(f"{len(results)} answers of {path} were judged\n{table(rows)}")
    if said := nothing_measured(str(path), results):
        job.say(said)
    job.say(f"-> {folder / 'verdicts.jsonl'}, {folder / 'metrics.json'}")
