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
from tga_jax.evaluation.answer_files import read_answers
from tga_jax.evaluation.judge_answers import judged, metric_lines, verdict_lines
from tga_jax.evaluation.make_judges import make_judges
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


def run(job: Job) -> None:
    """Write judge/verdicts.jsonl and judge/metrics.json; a table on stderr."""
    cfg, folder = job.config.judge, job.workdir / "judge"
    if not cfg.answers:
        raise UserError("no answers: set config.judge.answers to a file of them")
    path = Path(cfg.answers)
    answered, model = read_answers(
        path, text=cfg.column, harmful=cfg.harmful_column, scene=cfg.scene_column
    )
    judges = make_judges(job)
    results = judged(answered, judges, folder)
    write_jsonl(folder / "verdicts.jsonl", verdict_lines(results))
    settings: dict[str, Any] = {"answers": str(path), "answers_digest": file_digest(path)}
    rows = metric_lines(results, judges, path=path, model=model or path.stem, settings=settings)
    write_json(folder / "metrics.json", rows)
    job.say(f"{len(results)} answers of {path} were judged\n{table(rows)}")
    job.say(f"-> {folder / 'verdicts.jsonl'}, {folder / 'metrics.json'}")
