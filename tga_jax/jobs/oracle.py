"""Job `oracle`: before any training, which states must match for this language model to refuse?"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from tga_jax.alignment.layers import layers_text, parse_layers
from tga_jax.analysis.matching import MATCHES, Matching
from tga_jax.analysis.oracle import CAPTION, COSINES, RANDOM, Line, Oracle, captioned, table
from tga_jax.config import listed
from tga_jax.errors import UserError, refuse_below
from tga_jax.evaluation.asked import check_benchmarks, check_missing, read_benchmarks
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.items import EvalItem
from tga_jax.evaluation.make_judges import make_judges
from tga_jax.evaluation.profiles import check_evaluated, evaluated_system
from tga_jax.files import digest, write_json, write_jsonl
from tga_jax.models.llava import Llava, Params
from tga_jax.parallel.mesh import mesh_of
from tga_jax.report.oracle import NEAR, distance, range_text, reached
from tga_jax.run.answerer import DECODING, check_decoding
from tga_jax.run.checks import check_model
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model, provenance
from tga_jax.run.prompts import make_prompter
from tga_jax.run.weights import Weights, current_weights, load_params, model_digest
from tga_jax.run.work import Work
from tga_jax.training.step import nested


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse benchmarks or a model that are not there, and values without a meaning."""
    check_values(job.config.oracle)
    make_judges(job)
    check_benchmarks(job, before, "oracle.benchmarks")
    check_decoding(job.config.generate)
    evaluated_system(job.config, base="")  # refuses profiles, also where there is no model yet
    see = functools.partial(check_evaluated, job.config)
    llava = check_model(job.config, before=before, see=see)
    if llava is not None:
        layers_of(job.config.oracle, llava)


def run(job: Job) -> None:
    """Write oracle/oracle.json and oracle/answers.jsonl; a table on stderr."""
    config, folder = job.config, job.workdir / "oracle"
    check_values(config.oracle)
    items, judge = read_items(job), make_judges(job)[0]
    weights, model = current_weights(job), open_model(job, mesh_of(config.mesh))
    matchings = matchings_of(config.oracle, model)
    settings = settings_of(config, model, weights, items, matchings)
    work = Work(folder, "answers", settings | {"judge": [judge.name, judge.version]})
    if work.is_done(folder / "oracle.json"):
        job.say(f"was finished before: {folder / 'oracle.json'}")
        return
    lines = work.rows()
    oracle = oracle_of(config, model, items)
    params = nested(load_params(job, model, weights))
    for new in answered(oracle, matchings, tokens_of(config.oracle, model), items, params, lines):
        work.append(new)
        lines += new
    verdicts = judge.judge([(items[line["row"]], line["text"]) for line in lines])
    found = table(lines, items, verdicts)
    write_jsonl(folder / "answers.jsonl", answer_lines(lines, items, verdicts))
    settings |= {"judge": {"name": judge.name, "hash": judge.version}} | provenance(model)
    write_json(folder / "oracle.json", {"settings": settings, "matches": found})
    work.finish()
    for row in found:
        job.say(said(row, settings["layers"]))
    job.say(f"-> {folder / 'oracle.json'}")


def check_values(cfg: ConfigDict) -> None:
    """Refuse values of config.oracle that have no meaning."""
    if not 0 < cfg.learning_rate < math.inf:
        raise UserError(f"config.oracle.learning_rate={cfg.learning_rate} must be above 0")
    for key in ("limit", "tokens", "near_weight"):
        refuse_below(f"oracle.{key}", cfg[key], 0)
    for key in ("batch_size", "steps"):
        refuse_below(f"oracle.{key}", cfg[key], 1)
    for name in listed(cfg.matches):
        if name not in MATCHES:
            raise UserError(
                f"config.oracle.matches: there is no match {name!r}; name one of "
                f"{', '.join(MATCHES)}"
            )


def read_items(job: Job) -> list[EvalItem]:
    """The captioned samples of both kinds that config.oracle names.

    Raises:
        UserError: there are none of one kind.
    """
    cfg = job.config.oracle
    benchmarks = read_benchmarks(job, "oracle.benchmarks")
    check_missing(benchmarks, " (listed above)", partial=job.config.evaluate.partial)
    items = captioned(benchmarks, cfg.limit)
    counts = {kind: sum(item.harmful is kind for item in items) for kind in (True, False)}
    for kind, word in ((True, "harmful"), (False, "benign")):
        if not counts[kind]:
            key = "oracle" if cfg.benchmarks else "evaluate"
            raise UserError(
                f"config.{key}.benchmarks: there is no question about a {word} image with a "
                f"caption: {what_there_is(benchmarks)} (docs/benchmarks.md has the columns)"
            )
    job.say(f"{counts[True]} harmful and {counts[False]} benign captioned images")
    return items


def what_there_is(benchmarks: Sequence[Benchmark]) -> str:
    """How many questions have what the oracle needs, in words."""
    items = [item for benchmark in benchmarks for item in benchmark.items]
    images = [item for item in items if item.image is not None]
    captions = [item for item in images if item.extra.get("caption")]
    return (
        f"of {len(items)} questions {len(images)} have an image, {len(captions)} of these a "
        f"caption, and of those {sum(item.harmful is True for item in captions)} are marked "
        f"harmful and {sum(item.harmful is False for item in captions)} harmless"
    )


def layers_of(cfg: ConfigDict, llava: Llava) -> tuple[int, ...]:
    """The decoder layers of config.oracle.layers, counted from 0."""
    count = llava.config.decoder.layers
    return parse_layers(cfg.layers, count, key="config.oracle.layers", words="'all'")


def matchings_of(cfg: ConfigDict, model: OpenModel) -> list[Matching]:
    """What config.oracle asks for, with layers and tokens resolved."""
    layers = layers_of(cfg, model.llava)
    tokens = tokens_of(cfg, model)
    return [
        Matching(name, layers, tokens, cfg.steps, cfg.learning_rate, cfg.near_weight)
        for name in listed(cfg.matches)
    ]


def tokens_of(cfg: ConfigDict, model: OpenModel) -> int:
    """How many free embeddings stand in an image's place."""
    return cfg.tokens or model.source.config.image_tokens


def oracle_of(config: ConfigDict, model: OpenModel, items: Sequence[EvalItem]) -> Oracle:
    """The model and its samples; no parameter is read.

    Raises:
        UserError: naming a sample whose prompt is too long.
    """
    base = model.prompts.base_system(config.prompt)
    prompter = make_prompter(
        config,
        model.prompts,
        system=evaluated_system(config, base=base),
        image_tokens=tokens_of(config.oracle, model),
        answer_states=True,
    )
    oracle = Oracle(config, model, prompter, items)
    oracle.check()
    return oracle


def answered(
    oracle: Oracle,
    matchings: Sequence[Matching],
    tokens: int,
    items: Sequence[EvalItem],
    params: Params,
    done: Sequence[Line],
) -> Iterator[list[Line]]:
    """Yields the lines that a killed run did not leave, a batch at a time."""
    by_length = sorted(range(len(items)), key=lambda row: len(items[row].text))
    known = {(line["match"], line["row"]) for line in done}

    def todo(name: str) -> list[int]:
        return [row for row in by_length if (name, row) not in known]

    center = oracle.center(params)
    for name in (CAPTION, RANDOM):
        yield from oracle.unmatched(params, center, name, todo(name), tokens)
    for matching in matchings:
        yield from oracle.matched(params, center, todo(matching.match), matching)


def settings_of(
    config: ConfigDict,
    model: OpenModel,
    weights: Weights,
    items: Sequence[EvalItem],
    matchings: Sequence[Matching],
) -> dict[str, Any]:
    """All that decides what is answered."""
    cfg, base = config.oracle, model.prompts.base_system(config.prompt)
    system = evaluated_system(config, base=base)
    return {
        "weights": weights.tag,
        "checkpoint": model_digest(model, weights),
        "dtype": config.dtype,
        "seed": config.seed,
        "template": model.prompts.template,
        "prompt_date": model.prompts.written_date,
        "profile": config.evaluate.profile,
        "system": base if system is None else system,
        "layers": layers_text(layers_of(cfg, model.llava)),
        "tokens": tokens_of(cfg, model),
        "matches": [matching.match for matching in matchings],
        "steps": cfg.steps,
        "learning_rate": cfg.learning_rate,
        "near_weight": cfg.near_weight,
        **{key: config.generate[key] for key in DECODING},
        "cosines": list(COSINES),
        "items": digest([items_digest_of(items), [item.harmful for item in items]]),
    }


def items_digest_of(items: Sequence[EvalItem]) -> str:
    """A hash of what is asked; the images themselves have no part in it."""
    return digest([[item.id, item.text, item.extra.get("caption")] for item in items])


def answer_lines(
    lines: Sequence[Line], items: Sequence[EvalItem], verdicts: Sequence[bool | None]
) -> list[dict[str, Any]]:
    """The lines of oracle/answers.jsonl: each answer beside the match that it was made with."""
    return [
        {
            "match": line["match"],
            "question_id": items[line["row"]].id,
            "harmful": items[line["row"]].harmful,
            "caption": items[line["row"]].extra["caption"],
            "text": line["text"],
            "refused": verdict,
        }
        for line, verdict in zip(lines, verdicts, strict=True)
    ]


def said(row: dict[str, Any], layers: str) -> str:
    """A match as a line of the log, with the cosines that the page has."""
    parts = []
    for kind in ("harmful", "benign"):
        figures = row[kind]
        share, (low, high) = figures["refused"], figures["interval"]
        text = "not judged" if share is None else f"{share:.2f} [{low:.2f}, {high:.2f}] refused"
        lost = figures["no_verdict"]
        more = f" ({lost} more without a verdict)" if lost else ""
        parts.append(f"{kind} {text} of {figures['count']}{more}")
    text, far = f"{row['match']}: {', '.join(parts)}", distance(row)
    found = reached(row, layers)
    if cosines := range_text(found):
        text += f"; cosine {cosines} on layers {layers}, of harmful and benign samples"
    if found and min(found) < NEAR:
        text += f" (below {NEAR} on a layer: no answer yet, try more config.oracle.steps)"
    if means := range_text(reached(row, layers, "means_centred")):
        text += f"; means, centred, {means}"
    return text if far is None else f"{text}; distance to the model's own embeddings {far:.2f}"
