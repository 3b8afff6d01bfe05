"""Job `generate`: answers to questions about images, in LLaVA's answer format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tga_jax.cluster import shared_files
from tga_jax.data.image_files import place_of
from tga_jax.data.images import resolve_image
from tga_jax.data.records import Question, read_questions, repeats
from tga_jax.errors import UserError
from tga_jax.files import file_digest
from tga_jax.parallel.mesh import mesh_of
from tga_jax.retrieval.retriever import Retriever, check_index, configured, with_retrieved
from tga_jax.run.answerer import DECODING, Answerer, answer_line, check_decoding
from tga_jax.run.checks import MAKES_MODELS, check_model, check_questions
from tga_jax.run.fingerprint import stat_digest
from tga_jax.run.job import Job
from tga_jax.run.model import OpenModel, open_model
from tga_jax.run.prompts import PromptStyle, make_prompter
from tga_jax.run.sample_files import image_folder
from tga_jax.run.stage_settings import say_other_template
from tga_jax.run.weights import Weights, current_weights, load_params, model_digest
from tga_jax.run.work import Work
from tga_jax.training.step import nested

# Keys of config.model that decide a model that is put together from two parts.
NEW_MODEL = ("projector", "projector_scale", "feature_layer", "feature_select")


def check(job: Job, before: Sequence[str]) -> None:
    """Refuse questions, a model or an index that are not there, and wrong settings of decoding."""
    config = job.config
    if not config.generate.questions:
        raise UserError("no questions: set config.generate.questions to a JSONL file")
    questions: list[Question] = []
    folder = Path()
    if MAKES_MODELS not in before:
        questions = read_questions(Path(config.generate.questions))
        shown = [question for question in questions if question.image]
        folder = image_folder(config) if shown else Path()
        for question in shown:
            resolve_image(folder, question.image or "", record_id=str(question.id))
        twice = sum(map(bool, repeats(questions)))
        if twice:
            job.say(f"{twice} questions have the question_id of an earlier one")
    check_decoding(config.generate)

    def see(style: PromptStyle) -> None:
        asked = ((question, folder) for question in questions)
        check_questions(config, style, asked, before=before)

    check_model(config, before=before, see=see)
    check_index(job, before)


def run(job: Job) -> None:
    """Write generate/answers.jsonl, in the order of the questions."""
    config, weights, folder = job.config, current_weights(job), job.workdir / "generate"
    if not config.generate.questions:
        raise UserError("no questions: set config.generate.questions to a JSONL file")
    mesh = mesh_of(config.mesh)
    retriever = configured(job, mesh)
    questions = read_questions(Path(config.generate.questions))
    if retriever is not None:
        questions = with_retrieved(retriever, questions, folder, lambda row: image_folder(config))
    model = open_model(job, mesh)
    say_other_template(job, model.prompts, weights)
    signed = signature(job, model, weights, questions, retriever)
    work = Work(folder, "answers", signed, content=file_digest)
    path = folder / "answers.jsonl"
    if work.is_done(path):
        job.say(f"was finished before: {path}")
        return
    texts = {row["row"]: row["text"] for row in work.rows()}
    todo = sorted(set(range(len(questions))) - texts.keys(), key=lambda i: len(questions[i].text))
    for new in answered(job, model, questions, todo, weights) if todo else ():
        work.append([{"row": row, "text": text} for row, text in new.items()])
        texts |= new
    model_id = f"{model.source.name}-{weights.tag}"
    shown = config.prompt.retrieved
    lines = [
        answer_line(q, texts[i], model_id, retrieved=shown, repeat=repeat)
        for i, (q, repeat) in enumerate(zip(questions, repeats(questions), strict=True))
    ]
    shared_files.write_jsonl(path, lines)
    work.finish(path)
    job.say(f"{len(questions)} answers -> {path}")


def signature(
    job: Job,
    model: OpenModel,
    weights: Weights,
    questions: Sequence[Question],
    retriever: Retriever | None,
) -> dict[str, Any]:
    """All that decides the answers; what only decides room and time, as the batch size, does not.

    Adapters that nothing has trained change no answer.
    """
    config = job.config
    adapters = model.llava.config.decoder.lora if weights.stage else None
    images = dict.fromkeys(q.image for q in questions if q.image)
    folder = image_folder(config) if images else Path()
    return {
        "model": model_digest(model, weights),
        "made": [] if config.model.checkpoint else [config.model[key] for key in NEW_MODEL],
        "adapters": None if adapters is None else dataclasses.asdict(adapters),
        "questions": file_digest(Path(config.generate.questions)),
        "pictures": stat_digest(place_of(folder, name) for name in images),
        "preparation": model.image_settings,
        "decoding": {name: config.generate[name] for name in DECODING},
        "prompt": model.prompts.settings(config.prompt),
        "dtype": config.dtype,
        "seed": config.seed,
        "retrieval": None if retriever is None else retriever.settings,
    }


def answered(
    job: Job,
    model: OpenModel,
    questions: Sequence[Question],
    rows: Sequence[int],
    weights: Weights,
) -> Iterator[dict[int, str]]:
    """Yields {row: text} of `rows`, a batch at a time."""
    answerer = Answerer(job.config, model, make_prompter(job.config, model.prompts))
    folder = image_folder(job.config) if any(questions[row].image for row in rows) else Path()
    answerer.check(questions, rows, image_dir=lambda row: folder)
    params = nested(load_params(job, model, weights))
    for new in answerer.replies(questions, rows, params, image_dir=lambda row: folder):
        yield {row: reply.text for row, reply in new.items()}
