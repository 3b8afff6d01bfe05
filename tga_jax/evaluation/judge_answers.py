"""Judges answers that were made elsewhere, and counts what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.benchmarks.registry import Entry
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.judges import Judge, harmful_only
from tga_jax.evaluation.summary import Result, summarise
from tga_jax.evaluation.verdicts import verdicts_of

Answered = Sequence[tuple[EvalItem, str]]


def judged(answered: Answered, judges: Sequence[Judge], folder: Path) -> list[Result]:
    """Every answer with its verdicts; empty answers are shown to no judge.

    Args:
        answered: questions and answers.
        judges: the one that counts first.
        folder: where the verdicts of costly judges are kept.
    """
    places = [place for place, (_, text) in enumerate(answered) if text.strip()]
    items = [answered[place][0] for place in places]
    texts = [answered[place][1] for place in places]
    verdicts: list[dict[str, bool | None]] = [{} for _ in answered]
    for judge in judges:
        given = dict(zip(places, verdicts_of(judge, items, texts, folder), strict=True))
        for place, found in enumerate(verdicts):
            found[judge.name] = given.get(place)
    return [
        Result(item, text, None, found)
        for (item, text), found in zip(answered, verdicts, strict=True)
    ]


def verdict_lines(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """{"question_id", "judge", "refused"} of every answer and judge; of a null, "why"."""
    for result in results:
        for judge, refused in result.verdicts.items():
            line = {"question_id": result.item.id, "judge": judge, "refused": refused}
            yield line if refused is not None else line | {"why": _why_none(result, judge)}


def _why_none(result: Result, judge: str) -> str:
    if result.empty:
        return "empty answer"
    return "not English" if judge == "strict" else "the judge gave none"


def metric_lines(
    results: Sequence[Result],
    judges: Sequence[Judge],
    *,
    path: Path,
    model: str,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """Lines of metrics.json, in the form that job `evaluate` gives them.

    Args:
        results: what `judged` returned, of at least one answer.
        judges: the one that counts first.
        path: the file of answers; its name is that of the benchmark.
        model: who answered.
        settings: what is known of how the answers came about.
    """
    entry = Entry(path.stem, "questions", path, {})
    lines = []
    benchmark = Benchmark(entry, [r.item for r in results], [])
    for row in summarise(benchmark, results, harmful_only=harmful_only(judges)):
        judge = next((judge for judge in judges if judge.name == row.judge), judges[0])
        known = settings | {"judge": {"name": judge.name, "hash": judge.version}}
        lines.append(row.line(benchmark=entry.name, model=model, settings=known))
    return lines
