"""The judges' verdicts on a benchmark's answers; those of costly judges are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.items import EvalItem, items_digest
from tga_jax.evaluation.judges import Judge
from tga_jax.evaluation.summary import Result
from tga_jax.files import digest, read_jsonl, write_jsonl
from tga_jax.run.answerer import Reply
from tga_jax.run.work import Work

JUDGED_AT_A_TIME = 64


def judged(
    benchmark: Benchmark, replies: Sequence[Reply], judges: Sequence[Judge], folder: Path
) -> list[Result]:
    """The replies with all judges' verdicts, and whether they are right."""
    texts = [reply.text for reply in replies]
    verdicts = {judge.name: verdicts_of(judge, benchmark.items, texts, folder) for judge in judges}
    return [
        Result(
            item,
            reply.text,
            reply.margin,
            {name: given[i] for name, given in verdicts.items()},
            benchmark.kind.correct(item, reply.text),
            reply.truncated,
        )
        for i, (item, reply) in enumerate(zip(benchmark.items, replies, strict=True))
    ]


def verdicts_of(
    judge: Judge, items: Sequence[EvalItem], texts: Sequence[str], folder: Path, name: str = ""
) -> list[bool | None]:
    """A judge's verdicts; costly ones are kept in verdicts-<judge>.jsonl and not asked for again.

    `name` tells verdicts on another model's answers from those on this one's.
    """
    answered = list(zip(items, texts, strict=True))
    if not judge.costly:
        return judge.judge(answered)
    stem = f"verdicts-{judge.name}{name}"
    signature = {"judge": judge.version, "answers": digest([items_digest(items), list(texts)])}
    work, path = Work(folder, stem, signature), folder / f"{stem}.jsonl"
    if work.is_done(path):
        return [line["refused"] for line in read_jsonl(path)]
    verdicts = [row["refused"] for row in work.rows()]
    while len(verdicts) < len(answered):
        start = len(verdicts)
        new = judge.judge(answered[start : start + JUDGED_AT_A_TIME])
        work.append([{"refused": verdict} for verdict in new])
        verdicts += new
    pairs = zip(items, verdicts, strict=True)
    write_jsonl(path, [{"question_id": item.id, "refused": v} for item, v in pairs])
    work.finish()
    return verdicts
