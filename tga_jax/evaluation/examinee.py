"""The model's answers to a benchmark and the judges' verdicts, kept row by row."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from tga_jax.cluster import hosts, shared_files
from tga_jax.data.records import Question
from tga_jax.evaluation.benchmarks.load import Benchmark
from tga_jax.evaluation.defence import Defence
from tga_jax.evaluation.items import EvalItem, items_digest
from tga_jax.evaluation.judges import Judge
from tga_jax.evaluation.pace import FILE, Time, seconds_a_question
from tga_jax.evaluation.profiles import apology_tokens, evaluated_system
from tga_jax.evaluation.summary import Result
from tga_jax.evaluation.verdicts import judged
from tga_jax.files import digest, read_jsonl, write_jsonl
from tga_jax.inference.prompt_states import PromptStates
from tga_jax.inference.refill import Watch
from tga_jax.models.llava import Params
from tga_jax.retrieval.retriever import Retriever, configured, with_retrieved
from tga_jax.run.answerer import DECODING, Answerer, Reply, answer_line
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, provenance
from tga_jax.run.prompts import make_prompter
from tga_jax.run.stage_settings import say_other_template
from tga_jax.run.weights import current_weights, load_params, model_digest
from tga_jax.run.work import Work
from tga_jax.training.step import nested

# Is given a question that was asked without a retrieved text, and the states of its prompt.
See = Callable[[EvalItem, PromptStates], None]


class Examinee:
    """The model under test, with its prompts, as config.evaluate says."""

    def __init__(self, job: Job, model: OpenModel) -> None:
        """Takes config.evaluate; no weights are loaded yet."""
        self._job, self._model = job, model
        self.weights = current_weights(job)
        say_other_template(job, model.prompts, self.weights)
        cfg, base = job.config.evaluate, model.prompts.base_system(job.config.prompt)
        system = evaluated_system(job.config, base=base)
        self.prompter = make_prompter(job.config, model.prompts, system=system)
        self.system = base if system is None else system
        tokenizer = model.source.tokenizer.tokenizer
        self.apologies = apology_tokens(tokenizer, tuple(cfg.apologies))
        self.model_id = f"{model.source.name}-{self.weights.tag}"
        self.defence = Defence()
        self.see: See | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the answers, but for the benchmark and the judge."""
        return {**self._settings, "defence": self.defence.settings}

    @functools.cached_property
    def _settings(self) -> dict[str, Any]:
        config = self._job.config
        tokenizer = self._model.source.tokenizer.tokenizer
        return {
            "checkpoint": model_digest(self._model, self.weights),
            "weights": self.weights.tag,
            "template": self._model.prompts.template,
            "prompt_date": self._model.prompts.written_date,
            "profile": config.evaluate.profile,
            "system": self.system,
            "retrieved": config.prompt.retrieved,
            "retrieval": None if self.retriever is None else self.retriever.settings,
            "pictures": self._model.image_settings,
            "decoding": {name: config.generate[name] for name in DECODING},
            "apologies": [tokenizer.decode([token]) for token in self.apologies],
            "dtype": config.dtype,
            "seed": config.seed,
        }

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """As the function `provenance`, made once."""
        return provenance(self._model)

    @functools.cached_property
    def retriever(self) -> Retriever | None:
        """Finds texts for images that have none, where an index is configured."""
        return configured(self._job, self._model.mesh)

    @functools.cached_property
    def _answerer(self) -> Answerer:
        return Answerer(
            self._job.config,
            self._model,
            self.prompter,
            title=self._job.name or "evaluate",
            apologies=self.apologies,
        )

    @functools.cached_property
    def params(self) -> Params:
        """The model's parameters, nested; loaded when first used."""
        return nested(load_params(self._job, self._model, self.weights))

    def answers(self, benchmark: Benchmark, work: Work, folder: Path) -> list[Reply]:
        """Replies in the order of the items; those of a killed run are not asked for again.

        FOLDER gets seconds.json and what the defence did.
        """
        items, done = benchmark.items, work.rows()
        questions, passes = [question(item) for item in items], dict[str, list[Time]]()

        def ask(name: str, asked: Sequence[Question], rows: Sequence[int]) -> dict[int, Reply]:
            found = {r["row"]: _kept(r) for r in done if r.get("pass", "") == name}
            todo = sorted(set(rows) - found.keys(), key=lambda i: _length(asked[i]))
            title = f"{benchmark.name} {name}".strip()
            if todo:
                self._job.say(f"{title}: {len(todo)} of {len(rows)} questions to answer")
            for new in self._replies(asked, todo, items) if todo else ():
                mark = {"pass": name} if name else {}
                work.append(
                    [{"row": row, **dataclasses.asdict(r), **mark} for row, r in new.items()]
                )
                found |= new
            passes[name] = [Time(r.seconds, r.cold) for r in found.values() if r.seconds]
            return found

        defended = self.defence.answers(ask, items, questions)
        if defended.lines:
            shared_files.write_jsonl(folder / f"{self.defence.name}.jsonl", defended.lines)
        passes["defence"] = [*defended.times]
        seconds = seconds_a_question(passes, len(items))
        if seconds is not None:
            shared_files.write_json(folder / FILE, seconds)
        return [defended.replies[i] for i in range(len(items))]

    def _replies(
        self, questions: Sequence[Question], rows: Sequence[int], items: Sequence[EvalItem]
    ) -> Iterator[dict[int, Reply]]:
        def image_dir(row: int) -> Path:
            return items[row].image_dir or Path()

        self._answerer.check(questions, rows, image_dir=image_dir)
        return self._answerer.replies(
            questions,
            rows,
            self.params,
            image_dir=image_dir,
            shift=self.defence.shift,
            watch=self._watch(items),
        )

    def _watch(self, items: Sequence[EvalItem]) -> Watch | None:
        """Shows `see` the states of the prompts that no defence and no retrieved text changes."""
        see, told = self.see, self.settings["retrieved"]
        if see is None or self.defence.settings is not None:
            return None

        def watch(rows: Sequence[int], states: PromptStates) -> None:
            on_host = jax.device_get(states)
            for place, row in enumerate(rows):
                if not (told and items[row].extra.get("retrieved")):
                    see(items[row], on_host.of(place))

        return watch


def _kept(row: dict[str, Any]) -> Reply:
    """A reply that a killed run kept."""
    names = (field.name for field in dataclasses.fields(Reply))
    return Reply(**{name: row[name] for name in names if name in row})


def look_up_texts(examinee: Examinee, benchmark: Benchmark, folder: Path) -> None:
    """Gives each item with an image and no retrieved text one, in place."""
    items = benchmark.items
    if examinee.retriever is None:
        return
    asked = with_retrieved(
        examinee.retriever,
        [question(item) for item in items],
        folder,
        lambda row: items[row].image_dir or Path(),
    )
    for i, found in enumerate(asked):
        if found.retrieved is not None:
            extra = {**items[i].extra, "retrieved": found.retrieved}
            items[i] = dataclasses.replace(items[i], extra=extra)


def _length(asked: Question) -> tuple[bool, int]:
    """Text-only questions by themselves: a batch with an image has another shape."""
    return asked.image is not None, len(asked.text) + len(asked.retrieved or "")


def question(item: EvalItem) -> Question:
    """An item as the prompter takes it."""
    return Question(
        id=item.id,
        image=item.image,
        text=item.text,
        caption=item.extra.get("caption"),
        retrieved=item.extra.get("retrieved"),
    )


def examine(
    job: Job, examinee: Examinee, benchmark: Benchmark, judges: Sequence[Judge]
) -> list[Result]:
    """Answers a benchmark, has it judged, and writes evaluate/<benchmark>/answers.jsonl.

    Of several processes all answer; the first one judges and writes, the others get no results.
    """
    folder = job.workdir / "evaluate" / benchmark.name
    look_up_texts(examinee, benchmark, folder)
    path = folder / "answers.jsonl"
    signature = {**examinee.settings, "items": items_digest(benchmark.items)}
    work = Work(folder, "answers", signature, content=_said)
    done = work.is_done(path)
    replies = [] if done else examinee.answers(benchmark, work, folder)
    if not hosts.is_first():
        return []
    if done:
        replies = read_replies(path)
        job.say(f"{benchmark.name}: {len(replies)} answers were there from an earlier run")
    with hosts.alone():
        results = judged(benchmark, replies, judges, folder)
    retrieved = examinee.settings["retrieved"]
    write_jsonl(path, [_line(r, examinee.model_id, retrieved=retrieved) for r in results])
    work.finish(path)
    return results


def read_replies(path: Path) -> list[Reply]:
    """The replies of an answers file of ours."""
    return [
        Reply(line["text"], line["metadata"].get("margin"), line["metadata"].get("truncated"))
        for line in read_jsonl(path)
    ]


def _said(path: Path) -> str:
    """A digest of what the model said by an answers file; verdicts are the judges' own."""
    return digest([_said_in(line) for line in read_jsonl(path)])


def _said_in(line: Any) -> Any:
    if not isinstance(line, dict) or not isinstance(line.get("metadata"), dict):
        return line
    about = line["metadata"]
    names = ("question_id", "prompt", "text")
    return [line.get(name) for name in names] + [about.get("margin"), about.get("truncated")]


def _line(result: Result, model_id: str, *, retrieved: bool) -> dict[str, Any]:
    item = result.item
    metadata = {
        "margin": result.margin,
        "refused": result.refused,
        "verdicts": result.verdicts,
        "correct": result.correct,
        "truncated": result.truncated,
        "scene": item.scene,
        "harmful": item.harmful,
        "label": item.label,
        "image": item.image,
        "image_dir": None if item.image_dir is None else str(item.image_dir),
    }
    line = answer_line(question(item), result.text, model_id, retrieved=retrieved)
    return line | {"metadata": line["metadata"] | metadata}
