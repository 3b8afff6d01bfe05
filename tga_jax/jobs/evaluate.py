"""Job `evaluate`: how often a model refuses what it should and should not, and what it can do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.load import Benchmark, load
from tga_jax.evaluation.benchmarks.registry import parse_entries
from tga_jax.evaluation.endpoint import Endpoint
from tga_jax.evaluation.interchange import lmms_eval_samples, vlmevalkit_table
from tga_jax.evaluation.judges import RULE_JUDGES, Judge
from tga_jax.evaluation.local_model import LocalModel
from tga_jax.evaluation.model_judges import ModelJudge
from tga_jax.evaluation.provenance import checkpoint_digest
from tga_jax.evaluation.summary import Result, Row, compare, disagreements, summarise
from tga_jax.evaluation.table import table
from tga_jax.evaluation.wrappers import draw_pictures
from tga_jax.jobs.context import Context
from tga_jax.jobs.evaluate_answers import Examinee, examine, verdicts_of
from tga_jax.jobs.files import write_json, write_jsonl, write_text


def run(context: Context) -> None:
    """Write evaluate/<benchmark>/ and evaluate/metrics.json; a table on stderr."""
    folder = context.workdir / "evaluate"
    benchmarks, judges = read_benchmarks(context), make_judges(context.config.evaluate)
    workdir = context.config.evaluate.compare
    if workdir and not (Path(workdir) / "evaluate").is_dir():
        raise UserError(f"config.evaluate.compare={workdir!r}: has no folder evaluate/")
    examinee = Examinee(context)
    answered = {
        benchmark.name: examine(context, examinee, benchmark, judges)
        for benchmark in benchmarks
        if benchmark.items
    }
    pool = [result for results in answered.values() for result in results]
    rows: list[dict[str, Any]] = []
    for benchmark in benchmarks:
        results = answered.get(benchmark.name, [])
        found = summarise(benchmark, results, pool=pool)
        found += compared(context, benchmark, results, judges) if results else []
        rows += [metrics_line(row, benchmark, examinee, judges) for row in found]
        if results:
            write_extras(folder / benchmark.name, results)
    write_json(folder / "metrics.json", rows)
    context.say(f"{len(pool)} answers judged\n{table(rows)}")
    context.say(f"-> {folder / 'metrics.json'}")
    check_missing(context, benchmarks, f", see the rows 'missing' of {folder / 'metrics.json'}")


def read_benchmarks(context: Context, text: str = "") -> list[Benchmark]:
    """Everything that will be asked, read and checked before any model is loaded.

    `text` stands in for config.evaluate.benchmarks.
    """
    config, folder = context.config, context.workdir / "evaluate"
    entries = parse_entries(text or config.evaluate.benchmarks)
    if not entries:
        raise UserError("no benchmarks: set config.evaluate.benchmarks to KIND:PATH,KIND:PATH,...")
    images = Path(config.data.image_dir) if config.data.image_dir else None
    benchmarks = []
    for entry in entries:
        benchmark = load(entry, drawings=folder / entry.name / "pictures", images=images)
        draw_pictures(benchmark.items)
        for scene in dict.fromkeys(part.scene for part in benchmark.missing):
            lost = [part for part in benchmark.missing if part.scene == scene]
            where = f"{benchmark.name} {scene}".strip()
            context.say(f"MISSING in {where}: {lost[0].what}{_more(len(lost) - 1)}")
        benchmarks.append(benchmark)
    return benchmarks


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def make_judges(cfg: Any) -> list[Judge]:
    """The judges of config.evaluate.judges, the one that counts first."""
    judges: dict[str, Judge] = {}
    for name in filter(None, (part.strip() for part in cfg.judges.split(","))):
        if name in RULE_JUDGES:
            judges[name] = RULE_JUDGES[name]
        elif name == "endpoint":
            judges[name] = _endpoint_judge(cfg.endpoint)
        elif name == "local":
            judges[name] = _local_judge(cfg.local)
        else:
            known = ", ".join([*RULE_JUDGES, "endpoint", "local"])
            raise UserError(f"config.evaluate.judges: there is no judge {name!r}; of {known}")
    if not judges:
        raise UserError("config.evaluate.judges is empty; 'strict' is the default")
    return list(judges.values())


def _endpoint_judge(cfg: Any) -> Judge:
    if not (cfg.url and cfg.model):
        raise UserError("judge endpoint: set config.evaluate.endpoint.url and .model")
    reply = Endpoint(
        url=cfg.url,
        model=cfg.model,
        key_variable=cfg.key_variable,
        timeout_seconds=cfg.timeout_seconds,
        workers=cfg.workers,
    )
    return ModelJudge("endpoint", cfg.kind, cfg.model, reply, pictures=cfg.pictures)


def _local_judge(cfg: Any) -> Judge:
    if not Path(cfg.folder or "-").is_dir():
        raise UserError(f"config.evaluate.local.folder={cfg.folder!r}: there is no such folder")
    reply = LocalModel(cfg.folder, pictures=cfg.pictures, batch_size=cfg.batch_size)
    model = checkpoint_digest([Path(cfg.folder)])
    return ModelJudge("local", cfg.kind, model, reply, pictures=cfg.pictures)


def compared(
    context: Context, benchmark: Benchmark, results: Sequence[Result], judges: Sequence[Judge]
) -> list[Row]:
    """Rows against the answers of config.evaluate.compare, on the questions that both have."""
    workdir = context.config.evaluate.compare
    if not workdir:
        return []
    path = Path(workdir) / "evaluate" / benchmark.name / "answers.jsonl"
    if not path.is_file():
        context.say(f"{benchmark.name}: nothing to compare with: there is no {path}")
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    others = {(line["question_id"], line["prompt"]): line for line in lines}
    both = [r for r in results if (r.item.id, r.item.text) in others]
    if len(both) < len(results):
        context.say(f"{benchmark.name}: {len(both)} of {len(results)} questions are in {path}")
    if not both:
        return []
    items = [r.item for r in both]
    texts = [others[item.id, item.text]["text"] for item in items]
    folder = context.workdir / "evaluate" / benchmark.name
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
    return {
        "benchmark": benchmark.name,
        "scene": row.scene,
        "metric": row.metric,
        "value": row.figure.value,
        "count": row.figure.count,
        "interval": list(row.figure.interval),
        "model": examinee.model_id,
        "settings": {
            **examinee.settings,
            "retrieved": retrieved,
            "benchmark": asked,
            "judge": {"name": judge.name, "hash": judge.version},
        },
        **row.more,
    }


def write_extras(folder: Path, results: Sequence[Result]) -> None:
    """What judges disagree on, and the files of other evaluation tools."""
    if len(results[0].verdicts) > 1:
        write_jsonl(folder / "disagreements.jsonl", disagreements(results))
    write_text(folder / "vlmevalkit.tsv", vlmevalkit_table(results))
    write_jsonl(folder / "lmms_eval_samples.jsonl", lmms_eval_samples(results))


def check_missing(context: Context, benchmarks: Sequence[Benchmark], where: str) -> None:
    """A run is not done while something that was asked for could not be asked.

    Args:
        context: the run.
        benchmarks: what was asked for.
        where: what is missing in detail, for the message.
    """
    lacking = [benchmark.name for benchmark in benchmarks if benchmark.missing]
    if lacking and not context.config.evaluate.partial:
        raise UserError(
            f"missing from {', '.join(lacking)}{where}; add what is missing, or accept it "
            "with --config.evaluate.partial=true"
        )
