"""Job `evaluate`: how often a model refuses what it should and should not, and what it can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tga_jax.analysis.defences import check_defence, chooses, make_defence
from tga_jax.analysis.kept_states import keeper
from tga_jax.cluster import hosts
from tga_jax.data.records import Question
from tga_jax.errors import UserError
from tga_jax.evaluation.asked import check_benchmarks, check_missing, read_benchmarks
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.development import read_development
from tga_jax.evaluation.examinee import Examinee, examine, question
from tga_jax.evaluation.interchange import lmms_eval_samples, vlmevalkit_table
from tga_jax.evaluation.judges import Judge, harmful_only
from tga_jax.evaluation.make_judges import make_judges
from tga_jax.evaluation.pace import seconds_row
from tga_jax.evaluation.profiles import check_asked, evaluated_system
from tga_jax.evaluation.result import nothing_measured
from tga_jax.evaluation.summary import Result, Row, compare, disagreements, summarise
from tga_jax.evaluation.terminal_table import table
from tga_jax.evaluation.verdicts import verdicts_of
from tga_jax.files import read_jsonl, write_json, write_jsonl, write_text
from tga_jax.parallel.mesh import mesh_of
from tga_jax.retrieval.retriever import check_index
from tga_jax.run.answerer import check_decoding
from tga_jax.run.checks import check_model, check_questions
from tga_jax.run.job import Job
from tga_jax.run.model import open_model
from tga_jax.run.prompts import PromptStyle


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse benchmarks that are not there or not whole, judges, a model or an index."""
    config = job.config
    asked = check_benchmarks(job, before)
    make_judges(job)
    check_decoding(config.generate)
    check_defence(job, before, asked)
    check_compared(config.evaluate.compare)
    evaluated_system(config, base="")  # refuses profiles, also where the model is not there yet

    def see(style: PromptStyle) -> None:
        check_asked(config, style)
        system = evaluated_system(config, base=style.base_system(config.prompt))
        check_questions(config, style, questions_of(asked), before=before, system=system)

    check_model(config, before=before, see=see)
    check_index(job, before)


def questions_of(benchmarks: Sequence[Benchmark]) -> Iterator[tuple[Question, Path]]:
    """The questions of benchmarks, each with its image folder; those of drawn images are later."""
    for item in (item for benchmark in benchmarks for item in benchmark.items):
        folder = item.image_dir or Path()
        if item.image is None or (folder / item.image).is_file():
            yield question(item), folder


def check_compared(workdir: str) -> None:
    """Refuse a config.evaluate.compare that holds no answers."""
    if workdir and not (Path(workdir) / "evaluate").is_dir():
        raise UserError(f"config.evaluate.compare={workdir!r}: has no folder evaluate/")


def run(job: Job) -> None:
    """Write evaluate/<benchmark>/ and evaluate/metrics.json; a table on stderr."""
    config = job.config
    benchmarks, judges = read_benchmarks(job), make_judges(job)
    check_compared(config.evaluate.compare)
    development = read_development(job, benchmarks) if chooses(job) else []
    model = open_model(job, mesh_of(config.mesh))
    examinee = Examinee(job, model)
    examinee.defence = make_defence(job, model, examinee, development, judges[0])
    examinee.see = keeper(job, model, examinee, benchmarks)
    answered = {
        benchmark.name: examine(job, examinee, benchmark, judges)
        for benchmark in benchmarks
        if benchmark.items
    }
    if hosts.is_first():
        with hosts.alone():  # judges of another workdir's answers keep their verdicts, too
            write_figures(job, examinee, benchmarks, answered, judges)


def write_figures(
    job: Job,
    examinee: Examinee,
    benchmarks: Sequence[Benchmark],
    answered: Mapping[str, Sequence[Result]],
    judges: Sequence[Judge],
) -> None:
    """Write metrics.json and show it, in the first process.

    Raises:
        UserError: a benchmark lacks something and config.evaluate.partial is not set.
    """
    folder = job.workdir / "evaluate"
    rows: list[dict[str, Any]] = []
    alone = harmful_only(judges)
    for benchmark in benchmarks:
        results = answered.get(benchmark.name, [])
        found = summarise(benchmark, results, answered=answered, harmful_only=alone)
        found += seconds_row(folder / benchmark.name) if results else []
        found += compared(job, benchmark, results, judges) if results else []
        rows += [metrics_line(row, benchmark, examinee, judges) for row in found]
        if results:
            write_extras(folder / benchmark.name, results)
            if said := nothing_measured(benchmark.name, results):
                job.say(said)
    write_json(folder / "metrics.json", rows)
    job.say(f"{sum(map(len, answered.values()))} answers were judged\n{table(rows)}")
    job.say(f"-> {folder / 'metrics.json'}")
    where = f", see the rows 'missing' of {folder / 'metrics.json'}"
    check_missing(benchmarks, where, partial=job.config.evaluate.partial)


def compared(
    job: Job, benchmark: Benchmark, results: Sequence[Result], judges: Sequence[Judge]
) -> list[Row]:
    """Rows against the answers of config.evaluate.compare, on the questions that both have."""
    workdir = job.config.evaluate.compare
    if not workdir:
        return []
    path = Path(workdir) / "evaluate" / benchmark.name / "answers.jsonl"
    if not path.is_file():
        job.say(
            f"{benchmark.name}: there is nothing to compare with, because {path} does not exist"
        )
        return []
    lines = list(read_jsonl(path))
    others = {(line["question_id"], line["prompt"]): line for line in lines}
    both = [r for r in results if (r.item.id, r.item.text) in others]
    if len(both) < len(results):
        job.say(f"{benchmark.name}: {len(both)} of {len(results)} questions are in {path}")
    if not both:
        return []
    items = [r.item for r in both]
    texts = [others[item.id, item.text]["text"] for item in items]
    folder = job.workdir / "evaluate" / benchmark.name
    verdicts = verdicts_of(judges[0], items, texts, folder, name="-compared")
    other_results = [
        Result(item, text, None, {judges[0].name: verdict}, benchmark.kind.correct(item, text))
        for item, text, verdict in zip(items, texts, verdicts, strict=True)
    ]
    rows = compare(both, other_results)
    for row in rows:
        row.more.update(compared_with=lines[0]["model_id"], compared_workdir=workdir)
    return rows


def metrics_line(
    row: Row, benchmark: Benchmark, examinee: Examinee, judges: Sequence[Judge]
) -> dict[str, Any]:
    """A row of metrics.json, with all that produced it."""
    judge = next((judge for judge in judges if judge.name == row.judge), judges[0])
    entry = benchmark.entry
    retrieved = examinee.settings["retrieved"] and any(
        item.extra.get("retrieved") for item in benchmark.items
    )
    asked = {"kind": entry.kind, "path": str(entry.path), "options": entry.options}
    settings = {
        **examinee.settings,
        **examinee.provenance,
        "retrieved": retrieved,
        "benchmark": asked,
        "judge": {"name": judge.name, "hash": judge.version},
    }
    return row.line(benchmark=benchmark.name, model=examinee.model_id, settings=settings)


def write_extras(folder: Path, results: Sequence[Result]) -> None:
    """What judges disagree on, and the files of other evaluation tools."""
    if len(results[0].verdicts) > 1:
        write_jsonl(folder / "disagreements.jsonl", disagreements(results))
    write_text(folder / "vlmevalkit.tsv", vlmevalkit_table(results))
    write_jsonl(folder / "lmms_eval_samples.jsonl", lmms_eval_samples(results))
